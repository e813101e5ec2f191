//! The queue of diagnostics on their way to stderr.
//!
//! Any thread adds lines to a queue that is bounded in bytes, and one thread writes the queue to
//! stderr. A stderr that blocks (an unread pipe, a stopped terminal) therefore blocks only that
//! thread. While the queue is full, lines are dropped and counted; a line reports the count as soon
//! as stderr accepts text again.
//!
//! The access log's queue carries batches, which a worker hands over once a tick. Diagnostics are
//! rare and are queued line by line, so that the lines before a crash are written, too.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::log_file::{Counts, LogFile, Target};

/// The capacity of the queue in bytes.
const LIMIT: usize = 1 << 20;
/// Memory that a line uses in addition to its text, in bytes.
const OVERHEAD: usize = 64;
/// Waiting lines are written together, in blocks of about this many bytes.
const BLOCK: usize = 64 * 1024;
/// How long [`Diagnostics::flush`] waits for a blocked stderr.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// A handle to the queue, which its own thread writes to stderr.
#[derive(Clone)]
pub struct Diagnostics {
    queue: Arc<Queue>,
}

/// Accepts lines from any thread and never blocks. Each call of `write` is one line including its
/// line feed.
pub struct Queue {
    messages: Sender<Message>,
    /// Bytes in the queue and in the write in progress.
    queued_bytes: AtomicUsize,
    /// Total number of lines dropped because the queue was full.
    dropped: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// A request to be notified when everything before it is written.
    Flush(SyncSender<()>),
}

thread_local! {
    /// Whether this thread writes the queue. Its report of dropped lines is accepted even if the
    /// queue is full.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

impl Diagnostics {
    /// Starts the thread. `report` is called on that thread with the number of lost lines; lines
    /// that it adds to the queue are written next.
    ///
    /// # Errors
    /// Returns an error if no descriptor or no thread is available.
    pub fn start(report: impl Fn(u64) + Send + 'static) -> io::Result<Diagnostics> {
        Diagnostics::over(io::stderr().as_fd().try_clone_to_owned()?.into(), report)
    }

    fn over(file: File, report: impl Fn(u64) + Send + 'static) -> io::Result<Diagnostics> {
        let (messages, received) = channel();
        let (queued_bytes, dropped) = (AtomicUsize::new(0), AtomicU64::new(0));
        let queue = Arc::new(Queue { messages, queued_bytes, dropped });
        let counts = Arc::new(Counts::default());
        let file = LogFile::new(Target::Stderr, file, Arc::clone(&counts));
        let writing = Writing { queue: Arc::clone(&queue), file, counts, reported: 0 };
        // The thread ends with the process.
        let builder = thread::Builder::new().name("diagnostics".to_owned());
        builder.spawn(move || writing.run(&received, report))?;
        Ok(Diagnostics { queue })
    }

    /// The queue that lines are added to.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Waits until everything queued so far is written, at most one second: a blocked stderr must
    /// not delay the end of the process.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.messages.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_LIMIT);
        }
    }
}

impl Queue {
    /// Adds a line; if the queue is full, drops and counts it.
    fn push(&self, line: &[u8]) {
        let cost = line.len() + OVERHEAD;
        let queued_bytes = self.queued_bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        let has_room = queued_bytes <= LIMIT || IS_WRITER.get();
        if has_room && self.messages.send(Message::Line(line.to_vec())).is_ok() {
            return;
        }
        self.queued_bytes.fetch_sub(cost, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of the writing thread.
struct Writing {
    queue: Arc<Queue>,
    file: LogFile,
    counts: Arc<Counts>,
    /// The number of lost lines covered by reports that have been written.
    reported: u64,
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>, report: impl Fn(u64)) {
        IS_WRITER.set(true);
        let (mut lines, mut flushes) = (Vec::new(), Vec::new());
        // The total covered by a report that is still in the queue.
        let mut report_in_queue = None;
        // A message that was received to see whether a report follows.
        let mut pending = None;
        while let Some(message) = pending.take().or_else(|| messages.recv().ok()) {
            let mut next = Some(message);
            let mut queued_bytes = 0;
            while let Some(message) = next {
                match message {
                    Message::Line(line) => {
                        queued_bytes += line.len() + OVERHEAD;
                        lines.extend_from_slice(&line);
                    }
                    Message::Flush(done) => flushes.push(done),
                }
                // One write takes the lines that are waiting already, up to the limit.
                next = (lines.len() < BLOCK).then(|| messages.try_recv().ok()).flatten();
            }
            let lost_before = self.lost_in_writing();
            self.file.write(&lines);
            self.queue.queued_bytes.fetch_sub(queued_bytes, Ordering::Relaxed);
            if self.lost_in_writing() > lost_before {
                // A report would be lost, too, and cause another report.
                report_in_queue = None;
            } else if !lines.is_empty() {
                self.reported = report_in_queue.take().unwrap_or(self.reported);
                let lost = self.lost_in_writing() + self.queue.dropped.load(Ordering::Relaxed);
                if lost > self.reported {
                    report(lost - self.reported);
                    report_in_queue = Some(lost);
                    // The report is in the queue, unless the log filter removed it. A flush must
                    // wait for it.
                    pending = messages.try_recv().ok();
                }
            }
            lines.clear();
            if pending.is_some() {
                continue;
            }
            // The waiting thread may have given up.
            for done in flushes.drain(..) {
                let _ = done.try_send(());
            }
        }
    }

    fn lost_in_writing(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }
}

/// Limits a message that any connection can cause to one per second.
#[derive(Default)]
pub struct Throttle {
    last: Cell<Option<Instant>>,
    skipped: Cell<u64>,
}

impl Throttle {
    /// The minimum time between two messages.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Returns `None` if the message must be skipped. Otherwise returns the number of messages that
    /// were skipped since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let since = |last| now.saturating_duration_since(last);
        if self.last.get().is_some_and(|last| since(last) < Throttle::INTERVAL) {
            self.skipped.set(self.skipped.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.skipped.take())
    }
}

#[cfg(test)]
mod tests;

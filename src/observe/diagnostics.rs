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

use super::outlet::{Counts, Outlet, Target};

/// The capacity of the queue in bytes.
const LIMIT: usize = 1 << 20;
/// Memory that a line uses in addition to its text, in bytes.
const OVERHEAD: usize = 64;
/// Waiting lines are written together, in blocks of about this many bytes.
const TOGETHER: usize = 64 * 1024;
/// How long [`Diagnostics::flush`] waits for a blocked stderr.
const PATIENCE: Duration = Duration::from_secs(1);

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
    held: AtomicUsize,
    /// Total number of lines dropped because the queue was full.
    dropped: AtomicU64,
}

enum Message {
    Line(Vec<u8>),
    /// A request for an answer when everything before it is written.
    Flush(SyncSender<()>),
}

thread_local! {
    /// Whether this thread writes the queue. Its report of dropped lines is accepted even if the
    /// queue is full.
    static WRITES: Cell<bool> = const { Cell::new(false) };
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
        let (held, dropped) = (AtomicUsize::new(0), AtomicU64::new(0));
        let queue = Arc::new(Queue { messages, held, dropped });
        let counts = Arc::new(Counts::default());
        let outlet = Outlet::new(Target::Stderr, file, Arc::clone(&counts));
        let writing = Writing { queue: Arc::clone(&queue), outlet, counts, told: 0 };
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
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

impl Queue {
    /// Adds a line; if the queue is full, drops and counts it.
    fn push(&self, line: &[u8]) {
        let cost = line.len() + OVERHEAD;
        let held = self.held.fetch_add(cost, Ordering::Relaxed) + cost;
        let has_room = held <= LIMIT || WRITES.get();
        if has_room && self.messages.send(Message::Line(line.to_vec())).is_ok() {
            return;
        }
        self.held.fetch_sub(cost, Ordering::Relaxed);
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
    outlet: Outlet,
    counts: Arc<Counts>,
    /// The number of lost lines covered by reports that have been written.
    told: u64,
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>, report: impl Fn(u64)) {
        WRITES.set(true);
        let (mut lines, mut flushes) = (Vec::new(), Vec::new());
        // The total covered by a report that is still in the queue.
        let mut telling = None;
        let mut ahead = None;
        while let Some(message) = ahead.take().or_else(|| messages.recv().ok()) {
            let mut next = Some(message);
            let mut held = 0;
            while let Some(message) = next {
                match message {
                    Message::Line(line) => {
                        held += line.len() + OVERHEAD;
                        lines.extend_from_slice(&line);
                    }
                    Message::Flush(done) => flushes.push(done),
                }
                // One write takes the lines that are waiting already, up to the limit.
                next = (lines.len() < TOGETHER).then(|| messages.try_recv().ok()).flatten();
            }
            let lost_before = self.lost_in_writing();
            self.outlet.write(&lines);
            self.queue.held.fetch_sub(held, Ordering::Relaxed);
            if self.lost_in_writing() > lost_before {
                // A report would be lost, too, and cause another report.
                telling = None;
            } else if !lines.is_empty() {
                self.told = telling.take().unwrap_or(self.told);
                let lost = self.lost_in_writing() + self.queue.dropped.load(Ordering::Relaxed);
                if lost > self.told {
                    report(lost - self.told);
                    telling = Some(lost);
                    // The report is in the queue, unless the log filter removed it. A flush must
                    // wait for it.
                    ahead = messages.try_recv().ok();
                }
            }
            lines.clear();
            if ahead.is_some() {
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
    left_out: Cell<u64>,
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
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.left_out.take())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;

    use super::*;

    /// Diagnostics that are written to a pipe. The report of dropped lines is `N lost`.
    fn piped() -> (PipeReader, Diagnostics) {
        let (reader, writer) = io::pipe().unwrap();
        let (give_queue, queue) = channel::<Arc<Queue>>();
        let own = std::sync::OnceLock::new();
        let report = move |lost| {
            let queue = own.get_or_init(|| queue.recv().unwrap());
            writeln!(&**queue, "{lost} lost").unwrap();
        };
        let diagnostics = Diagnostics::over(OwnedFd::from(writer).into(), report).unwrap();
        give_queue.send(Arc::clone(diagnostics.queue())).unwrap();
        (reader, diagnostics)
    }

    fn say(diagnostics: &Diagnostics, line: &str) {
        (&**diagnostics.queue()).write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Reads up to and including this line.
    fn read_to(reader: &mut impl Read, last: &str) -> String {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(format!("{last}\n").as_bytes()) {
            reader.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_of_a_thread_come_in_order_and_a_flush_waits_for_them() {
        let (mut reader, diagnostics) = piped();
        (0..100).for_each(|number| say(&diagnostics, &number.to_string()));
        diagnostics.flush();
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        let mut text = vec![0; expected.len()];
        // They are in the pipe already.
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        reader.read_exact(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_that_are_counted_and_bounded_memory() {
        let (mut reader, diagnostics) = piped();
        let dropped = || diagnostics.queue().dropped.load(Ordering::Relaxed);
        let mut said = 0;
        // Far more than the pipe, the write in progress and the queue hold together.
        while dropped() < 1000 {
            say(&diagnostics, &format!("{said:0>999}"));
            said += 1;
            assert!(said < 10_000, "the queue grows on and on");
        }
        assert!(diagnostics.queue().held.load(Ordering::Relaxed) <= LIMIT);
        let start = Instant::now();
        diagnostics.flush();
        assert!(start.elapsed() >= PATIENCE, "it waits a while");
        assert!(start.elapsed() < 10 * PATIENCE, "but not for long");

        let lost = dropped();
        let text = thread::spawn(move || {
            // The report may come in parts: it fits into the queue after the first write.
            let mut text = String::new();
            let told = |text: &str| -> u64 {
                let lines = text.lines().filter_map(|line| line.strip_suffix(" lost"));
                lines.map(|count| count.parse::<u64>().unwrap()).sum()
            };
            while told(&text) < lost {
                text += &read_to(&mut reader, " lost");
            }
            assert_eq!(told(&text), lost);
            text
        });
        let text = text.join().unwrap();
        let lines = text.lines().filter(|line| !line.ends_with(" lost"));
        let numbers: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        assert!(numbers.len() as u64 + lost <= said, "{} and {lost} of {said}", numbers.len());
    }

    #[test]
    fn lines_that_a_full_disk_did_not_take_are_counted_without_an_end() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let reported = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&reported);
        let report = move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let diagnostics = Diagnostics::over(file, report).unwrap();
        say(&diagnostics, "lost");
        diagnostics.flush();
        say(&diagnostics, "lost, too");
        diagnostics.flush();
        assert_eq!(reported.load(Ordering::Relaxed), 0, "a report would fail, too");
    }

    #[test]
    fn one_message_a_second_passes_and_says_how_many_did_not() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let passes = |millis| throttle.pass_at(start + Duration::from_millis(millis));
        assert_eq!([0, 1, 500, 999].map(passes), [Some(0), None, None, None]);
        assert_eq!([1000, 1999, 2000].map(passes), [Some(3), None, Some(1)]);
    }
}

//! One open log file, and the thread of an access log that writes to it.
//!
//! A write to a pipe may block for any time; only the thread of this file waits. A write may fail
//! in the middle of a line. The rest of that line is kept and written first at the next attempt;
//! otherwise two records would be joined once the disk has room again. All losses are counted in
//! [`Counts`], which other threads read directly.

mod target;

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use memchr::{memchr, memchr_iter};
use rustix::event::{PollFd, PollFlags, poll};

pub use self::target::Target;

/// State shared by the recorders, the thread of a log file and the reporter.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Total number of records that recorders dropped because there was no room.
    pub(super) dropped: AtomicU64,
    /// Total number of records that could not be written.
    pub(super) lost: AtomicU64,
    /// The errno of the last failed write.
    pub(super) errno: AtomicI32,
    /// Records that were handed over and are neither written nor lost yet.
    pub(super) waiting: AtomicU64,
    /// Whether the file must be reopened before the next batch.
    pub(super) reopen: AtomicBool,
}

/// A message in the queue of a log file.
pub(super) enum Message {
    /// Whole lines to write.
    Batch(Batch),
    /// Wakes the thread so that it checks [`Counts::reopen`].
    Wake,
}

/// Whole lines from one recorder.
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    /// The number of lines.
    pub(super) records: u64,
    /// The channel that returns the emptied buffer to its recorder.
    pub(super) home: SyncSender<Vec<u8>>,
}

/// Emptied buffers with a larger capacity are freed instead of returned to their recorder.
const MAX_KEPT_CAPACITY: usize = 128 * 1024;

/// An open log file.
pub(super) struct LogFile {
    target: Target,
    file: File,
    /// The rest of a line whose start is in the file already, including its line feed. Empty if the
    /// last line was written completely.
    torn: Vec<u8>,
    counts: Arc<Counts>,
}

impl LogFile {
    pub(super) fn new(target: Target, file: File, counts: Arc<Counts>) -> LogFile {
        LogFile { target, file, torn: Vec::new(), counts }
    }

    /// Writes batches until all senders are dropped.
    pub(super) fn run(mut self, queue: Receiver<Message>) {
        for message in queue {
            if self.counts.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            let Message::Batch(mut batch) = message else { continue };
            self.write(&batch.lines);
            self.counts.waiting.fetch_sub(batch.records, Ordering::Relaxed);
            if batch.lines.capacity() <= MAX_KEPT_CAPACITY {
                batch.lines.clear();
                // Fails if the recorder has enough buffers or no longer exists.
                let _ = batch.home.try_send(batch.lines);
            }
        }
        self.finish_torn_line_or_lose_it();
    }

    /// Writes whole lines, in one write(2) if the file accepts all of them. Lines that it does not
    /// accept are counted as lost.
    pub(super) fn write(&mut self, lines: &[u8]) {
        if let Err(cause) = self.finish_torn_line() {
            return self.count_lost(lines, &cause);
        }
        let (written, stopped) = write_accepted(&self.file, lines);
        let Some(cause) = stopped else { return };
        // The rest of the line that was cut is written later; the lines after it are lost.
        let whole = end_of_line(lines, written);
        self.torn.extend_from_slice(&lines[written..whole]);
        self.count_lost(&lines[whole..], &cause);
    }

    fn finish_torn_line(&mut self) -> io::Result<()> {
        let (written, stopped) = write_accepted(&self.file, &self.torn);
        self.torn.drain(..written);
        stopped.map_or(Ok(()), Err)
    }

    fn finish_torn_line_or_lose_it(&mut self) {
        if let Err(cause) = self.finish_torn_line() {
            let torn = std::mem::take(&mut self.torn);
            self.count_lost(&torn, &cause);
        }
    }

    fn count_lost(&self, lines: &[u8], cause: &io::Error) {
        let records = memchr_iter(b'\n', lines).count() as u64;
        let errno = cause.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
        self.counts.errno.store(errno, Ordering::Relaxed);
        // `Release`, so that a thread that sees the new count also sees its errno.
        self.counts.lost.fetch_add(records, Ordering::Release);
    }

    /// Opens the file's path again. If that fails, the old file stays in use.
    fn reopen(&mut self) {
        if !matches!(self.target, Target::File(_)) {
            return;
        }
        match self.target.open() {
            Ok(file) => {
                // A torn line belongs to the old file; its end would be meaningless in the new one.
                self.finish_torn_line_or_lose_it();
                self.file = file;
            }
            Err(error) => {
                let error = error.to_line();
                tracing::warn!(error, "the log file is not reopened: the old file stays in use");
            }
        }
    }
}

/// Writes `bytes` as far as `file` accepts them. Returns the number of bytes written and the error
/// that stopped the rest.
fn write_accepted(mut file: &File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                // Stdout is shared with the parent process, which may have made it non-blocking.
                let mut waiting = [PollFd::new(file, PollFlags::OUT)];
                match poll(&mut waiting, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(cause) => return (written, Some(cause.into())),
                }
            }
            Err(cause) => return (written, Some(cause)),
        }
    }
    (written, None)
}

/// The end of the line in which the first `written` bytes of `lines` end. It is `written` itself if
/// no line is torn.
fn end_of_line(lines: &[u8], written: usize) -> usize {
    if written == 0 || lines[written - 1] == b'\n' {
        return written;
    }
    memchr(b'\n', &lines[written..]).map_or(lines.len(), |position| written + position + 1)
}

#[cfg(test)]
mod tests;

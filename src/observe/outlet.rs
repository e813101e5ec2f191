//! One open log file, and the thread of an access log that writes to it.
//!
//! A write to a pipe may block for any time; only the thread of this file waits. A write may fail
//! in the middle of a line. The rest of that line is kept and written first at the next attempt;
//! otherwise two records would be joined once the disk has room again. All losses are counted in
//! [`Counts`], which other threads read directly.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use memchr::{memchr, memchr_iter};
use rustix::event::{PollFd, PollFlags, poll};

use crate::error::Error;

/// The destination of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, opened in append mode. [`Writer::reopen`](super::access_log::Writer::reopen) opens
    /// its path again.
    File(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("stdout"),
            Target::Stderr => f.write_str("stderr"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

impl Target {
    /// Opens the target. The error names the target, the cause and a remedy.
    pub(super) fn open(&self) -> Result<File, Error> {
        let file = match self {
            Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Target::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
            Target::File(path) => open_file(path),
        };
        file.map_err(|cause| {
            let advice = self.advice(cause.kind());
            Error::start(format!("cannot open the access log {self}"), cause, advice)
        })
    }

    fn advice(&self, kind: ErrorKind) -> String {
        let Target::File(path) = self else { return String::new() };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
            _ => ".".to_owned(),
        };
        match kind {
            ErrorKind::NotFound => format!("create the directory {directory} first"),
            ErrorKind::PermissionDenied => {
                format!("let ringgate's user write to the file and to the directory {directory}")
            }
            ErrorKind::IsADirectory => "name a file inside the directory".to_owned(),
            _ => "name a file that ringgate's user can append to".to_owned(),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // fifo(7): opening a FIFO for writing only blocks until there is a reader. On Linux, opening it
    // for reading and writing does not block.
    let fifo = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    OpenOptions::new().append(true).create(true).read(fifo).mode(0o640).open(path)
}

/// State shared by the recorders, the thread of an outlet and the reporter.
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

/// A message in an outlet's queue.
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
const KEPT_CAPACITY: usize = 128 * 1024;

/// An open log file.
pub(super) struct Outlet {
    target: Target,
    file: File,
    /// The rest of a line whose start is in the file already, including its line feed. Empty if the
    /// last line was written completely.
    torn: Vec<u8>,
    counts: Arc<Counts>,
}

impl Outlet {
    pub(super) fn new(target: Target, file: File, counts: Arc<Counts>) -> Outlet {
        Outlet { target, file, torn: Vec::new(), counts }
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
            if batch.lines.capacity() <= KEPT_CAPACITY {
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
            return self.lose(lines, &cause);
        }
        let (written, stopped) = push(&self.file, lines);
        let Some(cause) = stopped else { return };
        // The rest of the line that was cut is written later; the lines after it are lost.
        let whole = end_of_line(lines, written);
        self.torn.extend_from_slice(&lines[written..whole]);
        self.lose(&lines[whole..], &cause);
    }

    fn finish_torn_line(&mut self) -> io::Result<()> {
        let (written, stopped) = push(&self.file, &self.torn);
        self.torn.drain(..written);
        stopped.map_or(Ok(()), Err)
    }

    fn finish_torn_line_or_lose_it(&mut self) {
        if let Err(cause) = self.finish_torn_line() {
            let torn = std::mem::take(&mut self.torn);
            self.lose(&torn, &cause);
        }
    }

    fn lose(&self, lines: &[u8], cause: &io::Error) {
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
                let error = error.in_one_line();
                tracing::warn!(error, "the file that was open stays in use");
            }
        }
    }
}

/// Writes `bytes` as far as `file` accepts them. Returns the number of bytes written and the error
/// that stopped the rest.
fn push(mut file: &File, bytes: &[u8]) -> (usize, Option<io::Error>) {
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
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn outlet(target: Target) -> Outlet {
        let file = target.open().unwrap();
        Outlet::new(target, file, Arc::default())
    }

    fn lost(outlet: &Outlet) -> u64 {
        outlet.counts.lost.load(Ordering::Acquire)
    }

    #[test]
    fn a_line_ends_where_its_line_feed_is() {
        let lines = b"ab\ncd\n";
        let ends: Vec<usize> = (0..=6).map(|written| end_of_line(lines, written)).collect();
        assert_eq!(ends, [0, 3, 3, 3, 6, 6, 6]);
    }

    #[test]
    fn a_new_file_is_not_for_everyone_and_an_old_one_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        outlet(Target::File(path.clone())).write(b"first\n");
        outlet(Target::File(path.clone())).write(b"second\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "mode {mode:o}");
    }

    #[test]
    fn an_open_that_fails_names_the_path_and_advises() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("no/access.log");
        let error = Target::File(missing.clone()).open().unwrap_err().to_string();
        assert!(error.contains(missing.to_str().unwrap()), "{error}");
        let advice = format!("create the directory {}/no", directory.path().display());
        assert!(error.contains(&advice), "{error}");

        let error = Target::File(directory.path().to_owned()).open().unwrap_err().to_string();
        assert!(error.contains("name a file inside the directory"), "{error}");
    }

    #[test]
    fn a_full_disk_costs_records_and_a_later_success_recovers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut outlet = outlet(Target::File(path.clone()));
        outlet.write(b"one\ntwo\n");
        assert_eq!(lost(&outlet), 2);
        let errno = outlet.counts.errno.load(Ordering::Relaxed);
        assert_eq!(errno, rustix::io::Errno::NOSPC.raw_os_error());

        fs::remove_file(&path).unwrap();
        outlet.reopen();
        outlet.write(b"three\n");
        assert_eq!(lost(&outlet), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_torn_line_is_completed_before_anything_else_is_written() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = outlet(Target::Stdout);
        outlet.file = File::from(OwnedFd::from(writer));
        // More than a pipe holds, so the write is in progress when the reader closes.
        let line = |number: usize| format!("{number:0>999}\n");
        let lines: String = (0..1000).map(line).collect();

        let reading = std::thread::spawn(move || {
            let mut taken = vec![0; 1500];
            reader.read_exact(&mut taken).unwrap();
            taken
        });
        outlet.write(lines.as_bytes());
        reading.join().unwrap();
        assert!((1..1000).contains(&lost(&outlet)));
        // A pipe takes whole pages, and a line has a thousand bytes.
        let torn = String::from_utf8(outlet.torn.clone()).unwrap();
        assert!(torn.ends_with('\n') && torn.len() < 1000, "{torn}");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        outlet.file = Target::File(path.clone()).open().unwrap();
        outlet.write(b"next\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), torn + "next\n");
        assert!(outlet.torn.is_empty());
    }

    #[test]
    fn the_end_of_a_torn_line_never_starts_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut outlet = outlet(Target::File(path.clone()));
        outlet.torn = b"end of a line\n".to_vec();
        fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        outlet.reopen();
        outlet.write(b"next\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
        let old = fs::read_to_string(directory.path().join("access.log.1")).unwrap();
        assert_eq!(old, "end of a line\n");
        assert_eq!(lost(&outlet), 0);
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mut outlet = outlet(Target::File(logs.join("access.log")));
        let moved = directory.path().join("moved");
        fs::rename(&logs, &moved).unwrap();
        outlet.reopen();
        outlet.write(b"line\n");
        assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "line\n");
        assert_eq!(lost(&outlet), 0);
    }

    #[test]
    fn a_pipe_made_non_blocking_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let lines = b"0123456\n".repeat(100_000);
        let expected = lines.clone();
        let writing = std::thread::spawn(move || push(&File::from(OwnedFd::from(writer)), &lines));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        let (written, stopped) = writing.join().unwrap();
        assert!(stopped.is_none());
        assert_eq!(written, expected.len());
        assert!(read == expected);
    }
}

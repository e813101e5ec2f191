//! The files that a configuration is made of, read within bounds of size and time.
//!
//! Opening a FIFO waits for its writer, reading a terminal for its user, and opening a device may
//! do something: what a path is comes first, and nothing is opened in a way that waits. A pipe is
//! read all the same, as a shell makes one of `ringgate check <(generate)`, but not for ever.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a pipe may take to its end.
const PIPE_LIMIT: Duration = Duration::from_secs(5);

/// What a path may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    /// A regular file.
    Files,
    /// A regular file or a pipe.
    FilesAndPipes,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The system says so.
    Io(io::Error),
    /// It is of this kind.
    Kind(&'static str),
    /// A pipe that has not ended in time.
    Endless,
    /// It has more bytes than the limit.
    TooLong,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Unread::Io(error)
    }
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read(path: &Path, accept: Accept, limit: usize) -> Result<Vec<u8>, Unread> {
    let file = {
        is_pipe(&fs::metadata(path)?, accept)?;
        // Another may stand there by now; it is not waited for either.
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?
    };
    read_open(file, accept, limit)
}

/// Reads standard input, a regular file or a pipe of at most `limit` bytes.
pub(super) fn read_stdin(limit: usize) -> Result<Vec<u8>, Unread> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    read_open(stdin.into(), Accept::FilesAndPipes, limit)
}

fn read_open(file: File, accept: Accept, limit: usize) -> Result<Vec<u8>, Unread> {
    let bytes = if is_pipe(&file.metadata()?, accept)? {
        read_pipe(file, limit)?
    } else {
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        bytes
    };
    if bytes.len() > limit { Err(Unread::TooLong) } else { Ok(bytes) }
}

/// Whether it is a pipe; an error where it is nothing that can be read here.
fn is_pipe(metadata: &Metadata, accept: Accept) -> Result<bool, Unread> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(false)
    } else if kind.is_fifo() && accept == Accept::FilesAndPipes {
        Ok(true)
    } else if kind.is_dir() {
        Err(io::Error::from_raw_os_error(libc::EISDIR).into())
    } else if kind.is_fifo() {
        Err(Unread::Kind("a pipe"))
    } else if kind.is_socket() {
        Err(Unread::Kind("a socket"))
    } else {
        Err(Unread::Kind("a device"))
    }
}

/// Reads a pipe to its end, or one byte more than the limit.
fn read_pipe(mut pipe: File, limit: usize) -> Result<Vec<u8>, Unread> {
    let deadline = Instant::now() + PIPE_LIMIT;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while bytes.len() <= limit {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("5 s fit");
        // Before the first writer a read would say that this is the end; poll(2) waits.
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout));
        if ready.map_err(io::Error::from)? == 0 {
            return Err(Unread::Endless);
        }
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

//! Reads the files of a configuration within limits of size and time.
//!
//! Opening a FIFO blocks until there is a writer, reading a terminal blocks until the user types,
//! and opening a device may have side effects. Therefore the type of a path is checked first, and
//! every open is non-blocking. Pipes are allowed for `ringgate check <(generate)` in a shell, but
//! with a time limit.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The time limit for reading a pipe to its end.
const PIPE_LIMIT: Duration = Duration::from_secs(5);

/// The accepted types of files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    /// A regular file.
    Files,
    /// A regular file or a pipe.
    FilesAndPipes,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// A system call failed.
    System(io::Error),
    /// The path has this type, which is not accepted.
    WrongType(&'static str),
    /// A pipe did not end in time.
    PipeTimeout,
    /// The file has more bytes than this limit, which is a whole number of mebibytes.
    TooLong(usize),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::System(error)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::System(error) => error.fmt(f),
            ReadError::WrongType(name) => write!(f, "it is {name}"),
            ReadError::PipeTimeout => {
                write!(f, "it is a pipe that has not ended within {} s", PIPE_LIMIT.as_secs())
            }
            ReadError::TooLong(limit) => write!(f, "it is longer than {} MiB", limit >> 20),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let ReadError::System(error) = self { Some(error) } else { None }
    }
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read(path: &Path, accept: Accept, limit: usize) -> Result<Vec<u8>, ReadError> {
    is_pipe(&fs::metadata(path)?, accept)?;
    // The path may have been replaced after the check; O_NONBLOCK keeps this open from blocking,
    // too.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    read_file(file, accept, limit)
}

/// Reads standard input, which is a regular file or a pipe of at most `limit` bytes.
pub(super) fn read_stdin(limit: usize) -> Result<Vec<u8>, ReadError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    read_file(stdin.into(), Accept::FilesAndPipes, limit)
}

fn read_file(file: File, accept: Accept, limit: usize) -> Result<Vec<u8>, ReadError> {
    let bytes = if is_pipe(&file.metadata()?, accept)? {
        read_pipe(file, limit)?
    } else {
        let mut bytes = Vec::new();
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        bytes
    };
    if bytes.len() > limit { Err(ReadError::TooLong(limit)) } else { Ok(bytes) }
}

/// Returns true for a pipe and false for a regular file. Other types are an error.
fn is_pipe(metadata: &Metadata, accept: Accept) -> Result<bool, ReadError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(false)
    } else if kind.is_fifo() && accept == Accept::FilesAndPipes {
        Ok(true)
    } else if kind.is_dir() {
        Err(io::Error::from_raw_os_error(libc::EISDIR).into())
    } else if kind.is_fifo() {
        Err(ReadError::WrongType("a pipe"))
    } else if kind.is_socket() {
        Err(ReadError::WrongType("a socket"))
    } else {
        Err(ReadError::WrongType("a device"))
    }
}

/// Reads a pipe to its end, or until it exceeds the limit.
fn read_pipe(mut pipe: File, limit: usize) -> Result<Vec<u8>, ReadError> {
    let deadline = Instant::now() + PIPE_LIMIT;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while bytes.len() <= limit {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("5 s fit");
        // Before the first writer opens the pipe, a read would return end of file; poll(2) waits.
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout));
        if ready.map_err(io::Error::from)? == 0 {
            return Err(ReadError::PipeTimeout);
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

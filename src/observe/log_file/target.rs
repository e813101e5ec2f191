//! The destinations of access logs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The destination of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, opened in append mode. Its path can be opened again.
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
    pub(in crate::observe) fn open(&self) -> Result<File, Error> {
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

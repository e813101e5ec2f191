//! Bytes to send that cost the sender next to nothing: pages of a memory file, sent by reference.
//!
//! Load and sinks share a CPU. A sender that copies every byte is slower than a good proxy, and a
//! comparison then measures the sender.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::Errno;

/// The most that one call sends.
const LENGTH: usize = 1024 * 1024;

/// A memory file of [`LENGTH`] bytes.
pub(crate) struct Source {
    file: OwnedFd,
}

impl Source {
    pub(crate) fn new() -> io::Result<Source> {
        let file = memfd_create("bulk", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&vec![0x5a; LENGTH])?;
        Ok(Source { file: file.into() })
    }

    /// Sends up to `most` bytes (sendfile(2)); the socket is non-blocking.
    pub(crate) fn send(&self, stream: impl AsFd, most: u64) -> Result<usize, Errno> {
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(LENGTH);
        sendfile(stream, &self.file, Some(&mut 0), length)
    }
}

//! Bytes to send, in the two ways that cost a sender little.
//!
//! What a proxy receives depends on how it was sent: write(2) fills the socket with fragments of up
//! to 32 KiB, sendfile(2) with single pages, and splice(2) pays per fragment. Copying is what real
//! servers do; sending a file costs the load less where its CPU is short.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use clap::ValueEnum;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// The most that one call copies: it stays in the cache.
const COPY_LENGTH: usize = 128 * 1024;
/// The most that one call sends of a file.
const FILE_LENGTH: usize = 1024 * 1024;

/// How bulk is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Send {
    /// send(2) of 128 KiB from a buffer
    #[default]
    Copy,
    /// sendfile(2) of a memory file, page by page and uncopied
    File,
}

pub(crate) enum Source {
    Buffer(Vec<u8>),
    File(OwnedFd),
}

impl Source {
    pub(crate) fn new(send: Send) -> io::Result<Self> {
        if send == Send::Copy {
            return Ok(Self::Buffer(vec![0x5a; COPY_LENGTH]));
        }
        let file = memfd_create("bulk", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&vec![0x5a; FILE_LENGTH])?;
        Ok(Self::File(file.into()))
    }

    /// Sends up to `most` bytes; the socket is non-blocking.
    pub(crate) fn send(&self, stream: impl AsFd, most: u64) -> Result<usize, Errno> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Self::Buffer(bytes) => {
                let bytes = &bytes[..most.min(bytes.len())];
                rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)
            }
            Self::File(file) => sendfile(stream, file, Some(&mut 0), most.min(FILE_LENGTH)),
        }
    }
}

//! A pipe that moves bytes from one stream to another, or from a file to a stream, by splice(2):
//! pages are moved, nothing is copied.
//!
//! SPLICE_F_NONBLOCK covers the pipe only, so both sockets must have O_NONBLOCK set. One call moves
//! at most as many pages as the pipe has free slots. SPLICE_F_MORE is never set, because it would
//! hold back the tail of a message for 200 ms.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

use super::{Errno, File, Stream};

/// The smallest useful size: a smaller pipe moves less per call than a copy does. The kernel gives
/// pipes of 8 KiB to a user who is over the soft limit (pipe(7), pipe-user-pages-soft).
pub const MIN_PIPE_SIZE: usize = 64 * 1024;

/// An anonymous pipe and the number of bytes in it.
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes inside.
    len: usize,
}

impl Pipe {
    /// Makes a pipe with the first of the sizes that the kernel grants, or with its default size.
    ///
    /// # Errors
    /// EMFILE or ENFILE from pipe2(2); `Unsupported` if the pipe is smaller than [`MIN_PIPE_SIZE`].
    pub fn new(sizes: &[usize]) -> io::Result<Pipe> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // EPERM: the user is over the soft limit of pipe pages. Only the resulting size counts, so
        // the error is ignored.
        let granted = sizes.iter().find_map(|&size| fcntl_setpipe_size(&writer, size).ok());
        let size = match granted {
            Some(size) => size,
            None => fcntl_getpipe_size(&writer)?,
        };
        if size < MIN_PIPE_SIZE {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Pipe { reader, writer, len: 0 })
    }

    /// Bytes inside.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if no bytes are inside.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves up to `max` bytes from the stream into the pipe; 0 is the end of the stream. Call
    /// [`Stream::ensure_nonblocking`] before `fill` and before `drain`.
    ///
    /// # Errors
    /// `AGAIN` if the stream has no bytes or the pipe is full. Drain the pipe before waiting for
    /// the stream.
    pub fn fill(&mut self, from: &Stream, max: usize) -> Result<usize, Errno> {
        let moved =
            retry_on_intr(|| splice(from, None, &self.writer, None, max, SpliceFlags::NONBLOCK))?;
        self.len += moved;
        Ok(moved)
    }

    /// Moves up to `max` bytes of the page cache into the pipe, and advances the position; 0 is the
    /// end of the file. Bytes that are not in the cache are waited for: call [`File::cached`]
    /// first.
    ///
    /// # Errors
    /// `AGAIN` if the pipe is full; otherwise as splice(2).
    pub fn fill_from_file(
        &mut self,
        from: &File,
        position: &mut u64,
        max: usize,
    ) -> Result<usize, Errno> {
        let moved = retry_on_intr(|| {
            let position = Some(&mut *position);
            splice(from, position, &self.writer, None, max, SpliceFlags::NONBLOCK)
        })?;
        self.len += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe to the stream, at most all that are inside.
    ///
    /// # Errors
    /// `AGAIN` if nothing fits; `PIPE` or `CONNRESET` if the peer is gone.
    pub fn drain(&mut self, to: &Stream) -> Result<usize, Errno> {
        let moved = retry_on_intr(|| {
            splice(&self.reader, None, to, None, self.len, SpliceFlags::NONBLOCK)
        })?;
        self.len -= moved;
        Ok(moved)
    }
}

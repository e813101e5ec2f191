//! How the floor moves bytes from one socket to another: through a pipe, or through a buffer.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

const PIPE_LENGTH: usize = 1024 * 1024;
/// What a pipe has before it is made larger; the least where that is refused.
const DEFAULT_PIPE_LENGTH: usize = 64 * 1024;
const PAGE: usize = 4096;
const BUFFER_LENGTH: usize = 256 * 1024;

/// Bytes that have been taken from one side and not been given to the other.
#[derive(Default)]
pub(super) enum Held {
    #[default]
    Nothing,
    Pipe(Pipe, usize),
    /// So many bytes in the mover's buffer, until it is used again.
    Shared(usize),
    /// Bytes in a buffer of their own, and how many of them have gone.
    Own(Vec<u8>, usize),
}

/// What a side had to take.
pub(super) enum Taken {
    /// Nothing for now.
    Nothing,
    /// Some, and there may be more.
    Some(Held),
    /// Some, and that was all for now.
    All(Held),
    End,
}

pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    slots: usize,
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused when pipes hold too much already: then it stays as small as it is.
        let length = fcntl_setpipe_size(&write, PIPE_LENGTH).unwrap_or(DEFAULT_PIPE_LENGTH);
        Ok(Self { read, write, slots: length / PAGE })
    }
}

pub(super) struct Mover {
    /// Empty pipes; whoever was served last has left the one that is warm.
    pipes: Vec<Pipe>,
    /// What is copied goes through here; none when splicing.
    buffer: Option<Vec<u8>>,
}

impl Mover {
    pub(super) fn new(copy: bool) -> Self {
        Self { pipes: Vec::new(), buffer: copy.then(|| vec![0; BUFFER_LENGTH]) }
    }

    pub(super) fn take(&mut self, from: impl AsFd) -> Result<Taken, Errno> {
        let Some(buffer) = &mut self.buffer else { return self.take_by_pipe(from) };
        match rustix::net::recv(from, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => Ok(Taken::End),
            // A buffer that is not full has emptied the socket (epoll(7)).
            Ok((_, length)) if length < BUFFER_LENGTH => Ok(Taken::All(Held::Shared(length))),
            Ok((_, length)) => Ok(Taken::Some(Held::Shared(length))),
            Err(Errno::AGAIN) => Ok(Taken::Nothing),
            Err(error) => Err(error),
        }
    }

    fn take_by_pipe(&mut self, from: impl AsFd) -> Result<Taken, Errno> {
        let pipe = self.pipes.pop().map_or_else(Pipe::new, Ok)?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let length = match splice(from, None, &pipe.write, None, PIPE_LENGTH, flags) {
            Ok(length @ 1..) => length,
            nothing => {
                self.pipes.push(pipe);
                return match nothing {
                    Err(Errno::AGAIN) => Ok(Taken::Nothing),
                    other => other.map(|_| Taken::End),
                };
            }
        };
        // Every slot that is used holds a byte at least. With fewer bytes than slots it was not
        // the pipe that ended this, so the socket is empty.
        let all = length < pipe.slots;
        let held = Held::Pipe(pipe, length);
        Ok(if all { Taken::All(held) } else { Taken::Some(held) })
    }

    /// Gives what the other side has room for, and returns the rest.
    pub(super) fn give(&mut self, held: Held, to: impl AsFd) -> Result<Held, Errno> {
        match held {
            Held::Nothing => Ok(held),
            Held::Pipe(pipe, length) => {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                let left = length - room(splice(&pipe.read, None, to, None, length, flags))?;
                if left > 0 {
                    return Ok(Held::Pipe(pipe, left));
                }
                self.pipes.push(pipe);
                Ok(Held::Nothing)
            }
            Held::Shared(length) => {
                let bytes = &self.buffer.as_deref().unwrap_or_default()[..length];
                let sent = room(rustix::net::send(to, bytes, SendFlags::NOSIGNAL))?;
                if sent < length {
                    return Ok(Held::Own(bytes[sent..].to_vec(), 0));
                }
                Ok(Held::Nothing)
            }
            Held::Own(bytes, gone) => {
                let sent = room(rustix::net::send(to, &bytes[gone..], SendFlags::NOSIGNAL))?;
                let gone = gone + sent;
                Ok(if gone < bytes.len() { Held::Own(bytes, gone) } else { Held::Nothing })
            }
        }
    }
}

/// No room at all is room for 0 bytes.
fn room(result: Result<usize, Errno>) -> Result<usize, Errno> {
    match result {
        Err(Errno::AGAIN) => Ok(0),
        other => other,
    }
}

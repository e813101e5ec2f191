//! Bytes to send, in three ways that differ in what they cost the sender, and in what the receiver
//! gets: what a proxy has to do depends on how its peers send.
//!
//! | how | the sender pays for | fragments in the socket |
//! | --- | --- | --- |
//! | `copy` | a copy | up to 32 KiB |
//! | `file` | a reference for each page | 4 KiB, which splice(2) pays for one by one |
//! | `pages` | a reference for each fragment | up to 32 KiB, as copied ones |
//!
//! Real servers copy, or send files. A sender of `pages` is there to measure proxies that are
//! cheaper than such servers are: a proxy gets from it what it gets from a copying sender, for less
//! than half of the CPU.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use clap::ValueEnum;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use super::dial::frame;
use crate::while_doing;

/// The most that one call copies: it stays in the cache.
const COPY_LENGTH: usize = 128 * 1024;
/// Payload of a frame.
const FRAME: usize = 2048;
/// The most that one call sends of a file.
const FILE_LENGTH: usize = 1024 * 1024;
/// Bytes that are sent again and again as pages: they fit the cache of a CPU.
const PAGES_LENGTH: usize = 256 * 1024;
/// The largest that the kernel makes (skb_page_frag_refill).
const FRAGMENT: usize = 32 * 1024;

/// How bulk is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Send {
    /// send(2) of 128 KiB from a buffer
    #[default]
    Copy,
    /// sendfile(2) of a memory file, page by page and uncopied
    File,
    /// splice(2) of large fragments, uncopied
    Pages,
    /// send(2) of 128 KiB in WebSocket frames of 2 KiB, as v2ray-plugin makes them
    #[value(skip)]
    Frames,
}

pub(crate) enum Source {
    Buffer(Vec<u8>),
    File(OwnedFd),
    Pages(Pages),
    /// Frames over and over: where a send ended, the next one of the same socket goes on.
    Frames(Vec<u8>),
}

/// Fragments as a socket holds them.
pub(crate) struct Pages {
    /// Holds them for good: tee(2) takes nothing out.
    stock: Pipe,
    /// On their way to a socket, twice as many at most.
    way: Pipe,
    /// Bytes in `way`: all are alike, so that any socket may have what another did not take.
    on_the_way: Cell<usize>,
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Source {
    pub(crate) fn new(send: Send) -> io::Result<Self> {
        match send {
            Send::Copy => Ok(Self::Buffer(vec![0x5a; COPY_LENGTH])),
            Send::File => {
                let file = memfd_create("bulk", MemfdFlags::CLOEXEC)?;
                let mut file = File::from(file);
                file.write_all(&vec![0x5a; FILE_LENGTH])?;
                Ok(Self::File(file.into()))
            }
            Send::Pages => Ok(Self::Pages(Pages::new()?)),
            Send::Frames => Ok(Self::Frames(frame(&[0x5a; FRAME]).repeat(COPY_LENGTH / FRAME))),
        }
    }

    /// The bytes that a send of up to `most` behind `before` begins with, for a sender that
    /// encrypts them; they must be in memory.
    pub(crate) fn bytes(&self, most: u64, before: u64) -> io::Result<&[u8]> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Self::Buffer(bytes) => Ok(&bytes[..most.min(bytes.len())]),
            Self::Frames(frames) => {
                let at = usize::try_from(before % frames.len() as u64).unwrap_or_default();
                Ok(&frames[at..])
            }
            Self::File(_) | Self::Pages(_) => Err(io::Error::other("TLS is sent by copying")),
        }
    }

    /// Sends up to `most` bytes behind the `before` that were sent on this socket, which is
    /// non-blocking.
    pub(crate) fn send(&self, stream: impl AsFd, most: u64, before: u64) -> Result<usize, Errno> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match self {
            Self::Buffer(bytes) => {
                let bytes = &bytes[..most.min(bytes.len())];
                rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)
            }
            Self::File(file) => sendfile(stream, file, Some(&mut 0), most.min(FILE_LENGTH)),
            Self::Pages(pages) => pages.send(stream, most),
            Self::Frames(frames) => {
                let at = usize::try_from(before % frames.len() as u64).unwrap_or_default();
                rustix::net::send(stream, &frames[at..], SendFlags::NOSIGNAL)
            }
        }
    }
}

impl Pages {
    /// Sends bytes through a connection of its own and keeps them as they arrived.
    fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let to = TcpStream::connect(listener.local_addr()?)?;
        let (from, _) = listener.accept()?;
        to.set_nodelay(true)?;
        let (stock, way) = (Pipe::new(None)?, Pipe::new(None)?);
        fill(&to, &from, &stock)?;
        Ok(Self { stock, way, on_the_way: Cell::new(0) })
    }

    fn send(&self, stream: impl AsFd, most: usize) -> Result<usize, Errno> {
        let now = SpliceFlags::NONBLOCK;
        // What another socket did not take is not to make this one's send a small one.
        if self.on_the_way.get() < PAGES_LENGTH / 2 {
            match tee(&self.stock.reader, &self.way.writer, PAGES_LENGTH, now) {
                Ok(more) => self.on_the_way.set(self.on_the_way.get() + more),
                // Small rests fill the slots.
                Err(Errno::AGAIN) if self.on_the_way.get() > 0 => {}
                Err(errno) => return Err(errno),
            }
        }
        let most = most.min(self.on_the_way.get());
        let sent = splice(&self.way.reader, None, stream, None, most, now)?;
        self.on_the_way.set(self.on_the_way.get() - sent);
        Ok(sent)
    }
}

/// Fills the stock with whole fragments. A thread goes on with the piece of memory that it has
/// begun, so that what it sends may lie in two pieces; then the begun one is used up first.
fn fill(mut to: &TcpStream, from: &TcpStream, stock: &Pipe) -> io::Result<()> {
    const TRIES: usize = 10;

    let (arrived, slot, away) = (Pipe::new(None)?, Pipe::new(Some(1))?, File::create("/dev/null")?);
    let wait = SpliceFlags::empty();
    let mut whole = 0;
    for _ in 0..TRIES * PAGES_LENGTH / FRAGMENT {
        to.write_all(&[0x5a; FRAGMENT])?;
        take(from, &arrived, FRAGMENT)?;
        // From pipe to pipe fragments move whole, and there is room for one.
        let first = splice(&arrived.reader, None, &slot.writer, None, FRAGMENT, wait)?;
        if first == FRAGMENT {
            // A user who has too many pipes gets small ones (pipe(7)).
            splice(&slot.reader, None, &stock.writer, None, first, SpliceFlags::NONBLOCK)
                .map_err(|errno| while_doing("the pipes are too small")(errno.into()))?;
            whole += 1;
            if whole == PAGES_LENGTH / FRAGMENT {
                return Ok(());
            }
            continue;
        }
        splice(&slot.reader, None, &away, None, first, wait)?;
        to.write_all(&vec![0x5a; first])?;
        take(from, &arrived, first)?;
        let mut left = FRAGMENT;
        while left > 0 {
            left -= splice(&arrived.reader, None, &away, None, left, wait)?;
        }
    }
    Err(io::Error::other("the kernel gives no fragments of 32 KiB: use --send copy"))
}

fn take(from: &TcpStream, into: &Pipe, mut left: usize) -> io::Result<()> {
    while left > 0 {
        left -= splice(from, None, &into.writer, None, left, SpliceFlags::empty())?;
    }
    Ok(())
}

impl Pipe {
    /// Of the kernel's default size, or of fewer slots.
    fn new(size: Option<usize>) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        if let Some(size) = size {
            fcntl_setpipe_size(&writer, size)?;
        }
        Ok(Self { reader, writer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_whole_fragments_and_stays() {
        let pages = Pages::new().unwrap();
        let (slot, away) = (Pipe::new(Some(1)).unwrap(), File::create("/dev/null").unwrap());
        let now = SpliceFlags::NONBLOCK;
        for _ in 0..2 {
            let all = tee(&pages.stock.reader, &pages.way.writer, PAGES_LENGTH, now).unwrap();
            assert_eq!(all, PAGES_LENGTH);
            for _ in 0..PAGES_LENGTH / FRAGMENT {
                let one = splice(&pages.way.reader, None, &slot.writer, None, all, now).unwrap();
                assert_eq!(one, FRAGMENT, "one slot takes one fragment");
                splice(&slot.reader, None, &away, None, one, now).unwrap();
            }
        }
    }
}

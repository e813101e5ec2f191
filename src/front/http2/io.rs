//! The transport of a connection, as the `h2` crate takes it: by the traits of Tokio, which need no
//! runtime of Tokio's.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sched::Yielder;
use crate::sys::Errno;
use crate::transport::Transport;

/// Bytes that are collected before they are sent, so that the frames of one turn share a record.
const COLLECTED: usize = 16 * 1024;
/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;
/// Bytes that are read, and bytes that are sent, before all other ready tasks run.
const TURN: usize = 256 * 1024;

type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// A transport with what waits to be sent. Clones share it: the crate has one, and the task of the
/// connection sends with the other what the crate has written in a turn ([`Io::poll_send`]).
#[derive(Clone)]
pub(super) struct Io(Rc<RefCell<Inner>>);

struct Inner {
    transport: Transport,
    yielder: Rc<Yielder>,
    readable: Option<Wait>,
    writable: Option<Wait>,
    /// Frames that are not sent yet.
    out: Vec<u8>,
    /// Bytes of `out` that are.
    sent: usize,
    /// Bytes that were read in this turn.
    read: usize,
    /// Bytes that were taken to be sent in this turn.
    taken: usize,
    /// Whether the last read has found all that there was.
    is_dry: bool,
}

impl Io {
    pub(super) fn new(transport: Transport, yielder: &Rc<Yielder>) -> Io {
        Io(Rc::new(RefCell::new(Inner {
            transport,
            yielder: Rc::clone(yielder),
            readable: None,
            writable: None,
            out: Vec::new(),
            sent: 0,
            read: 0,
            taken: 0,
            is_dry: false,
        })))
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// As `Transport::send`.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        inner.taken = 0;
        Poll::Ready(Ok(()))
    }
}

impl Inner {
    /// A wait until all other ready tasks have run.
    fn yields(&self) -> Wait {
        let yielder = Rc::clone(&self.yielder);
        Box::pin(async move { yielder.yield_now().await })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(wait) = &mut self.writable {
                ready!(wait.as_mut().poll(cx));
                self.writable = None;
            }
            let result = if self.sent < self.out.len() {
                self.transport.send(&self.out[self.sent..]).map(|sent| self.sent += sent)
            } else {
                match self.transport.flush() {
                    Ok(true) => {
                        self.sent = 0;
                        // An idle connection holds no buffer.
                        self.out = Vec::new();
                        return Poll::Ready(Ok(()));
                    }
                    Ok(false) => Err(Errno::AGAIN),
                    Err(errno) => Err(errno),
                }
            };
            match result {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    let (transport, yielder) = (self.transport.clone(), Rc::clone(&self.yielder));
                    self.writable = Some(Box::pin(async move {
                        yielder.consume_budget().await;
                        transport.socket().writable().await;
                    }));
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= TURN {
            self.read = 0;
            self.readable = Some(self.yields());
        }
        loop {
            if let Some(wait) = &mut self.readable {
                ready!(wait.as_mut().poll(cx));
                self.readable = None;
            }
            let size = buffer.remaining().min(PIECE);
            let result = match std::mem::take(&mut self.is_dry) {
                true => Err(Errno::AGAIN),
                false => self.transport.recv(buffer.initialize_unfilled_to(size)),
            };
            match result {
                Ok(read) => {
                    self.is_dry = read > 0 && self.transport.is_dry_after(read, size);
                    self.read += read;
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => {
                    self.read = 0;
                    let (transport, yielder) = (self.transport.clone(), Rc::clone(&self.yielder));
                    self.readable = Some(Box::pin(async move {
                        yielder.consume_budget().await;
                        transport.readable().await;
                    }));
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.out.len() >= COLLECTED {
            ready!(inner.poll_send(cx))?;
        }
        if inner.taken >= TURN {
            inner.taken = 0;
            inner.writable = Some(inner.yields());
            ready!(inner.poll_send(cx))?;
        }
        let taken = bytes.len().min(COLLECTED);
        inner.taken += taken;
        inner.out.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Sends nothing. The crate flushes after each stream that it has accepted; the task of the
    /// connection does when it has accepted all.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        inner.transport.close_notify();
        inner.poll_send(cx)
    }
}

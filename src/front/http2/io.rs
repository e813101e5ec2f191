//! The transport of a connection, as the `h2` crate takes it: by the traits of Tokio, which need no
//! runtime of Tokio's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::Errno;
use crate::transport::Transport;

/// Bytes that are collected before they are sent, so that the frames of one turn share a record.
const COLLECTED: usize = 16 * 1024;
/// Bytes that are read in one turn of the task. Then other tasks have theirs.
const TURN: usize = 256 * 1024;

type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// A transport with what waits to be sent.
pub(super) struct Io {
    transport: Transport,
    readable: Option<Wait>,
    writable: Option<Wait>,
    /// Frames that are not sent yet.
    out: Vec<u8>,
    /// Bytes of `out` that are.
    sent: usize,
    /// Bytes that were read in this turn.
    read: usize,
}

impl Io {
    pub(super) fn new(transport: Transport) -> Io {
        Io { transport, readable: None, writable: None, out: Vec::new(), sent: 0, read: 0 }
    }

    /// Sends what was collected.
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
                    let transport = self.transport.clone();
                    self.writable =
                        Some(Box::pin(async move { transport.socket().writable().await }));
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read >= TURN {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if let Some(wait) = &mut self.readable {
                ready!(wait.as_mut().poll(cx));
                self.readable = None;
            }
            match self.transport.recv(buffer.initialize_unfilled()) {
                Ok(read) => {
                    self.read += read;
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => {
                    self.read = 0;
                    let transport = self.transport.clone();
                    self.readable = Some(Box::pin(async move { transport.readable().await }));
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.out.len() >= COLLECTED {
            ready!(self.poll_send(cx))?;
        }
        let taken = bytes.len().min(COLLECTED);
        self.out.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        self.transport.close_notify();
        self.poll_send(cx)
    }
}

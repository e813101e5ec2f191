//! What a connection reads and writes: a plain socket, or TLS records over one.
//!
//! Callers read and write bytes of data here, and reset through it. What moves bytes without
//! looking at them (splice, the outbox) asks for [`Transport::plain`]. TLS differs from a plain
//! socket in three ways that callers must know:
//!
//! - Decrypted bytes may wait in the stream, and the socket does not show them: wait for
//!   [`Transport::readable`].
//! - Bytes that were written may wait as records: they are on their way when [`Transport::flush`]
//!   returns true.
//! - The end has a message of its own: [`Transport::close_notify`] comes before
//!   [`Transport::shutdown_write`].
//!
//! The plain variant does each of these without a system call and without state.

mod backlog;
mod pool;
mod tls;

use std::rc::Rc;
use std::task::Waker;

pub use pool::{HandshakePermit, TlsPool};
pub use tls::{Facts, TlsStream};

use crate::sys::{Errno, Stream};

/// One side of a connection. Clones share the socket.
#[derive(Clone)]
pub enum Transport {
    /// Bytes are those of the socket.
    Plain(Rc<Stream>),
    /// Bytes are in TLS records. The handshake is done.
    Tls(Rc<TlsStream>),
}

impl Transport {
    /// The socket, to wait for room and to watch it.
    pub fn socket(&self) -> &Rc<Stream> {
        match self {
            Transport::Plain(stream) => stream,
            Transport::Tls(tls) => tls.socket(),
        }
    }

    /// The socket if its bytes may be moved unseen. `None` if they must be coded.
    pub fn plain(&self) -> Option<&Rc<Stream>> {
        match self {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }

    /// The TLS stream, if it is one.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => Some(tls),
        }
    }

    /// Waits until a read would not block. May be dropped at any time.
    pub async fn readable(&self) {
        if !self.tls().is_some_and(TlsStream::has_decrypted) {
            self.socket().readable().await;
        }
    }

    /// Reads available bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`Stream::recv`]. For TLS also `PROTO` if the session has failed, and `CONNABORTED` if
    /// the stream ends without close_notify: it is cut off, and the bytes before it may not be all.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Transport::Plain(stream) => stream.recv(buffer),
            Transport::Tls(tls) => tls.recv(buffer),
        }
    }

    /// Returns true if the read of `read` bytes into a buffer of `size` has found all that there
    /// was, so that another one would only return `AGAIN`.
    pub fn is_dry_after(&self, read: usize, size: usize) -> bool {
        match self {
            Transport::Plain(_) => read < size,
            Transport::Tls(tls) => tls.is_dry(),
        }
    }

    /// Writes as many bytes as fit. Bytes that TLS has taken may wait as records.
    ///
    /// # Errors
    /// As [`Stream::send`]. For TLS also `PROTO` if the session has failed, and `PIPE` after
    /// [`Transport::close_notify`].
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Transport::Plain(stream) => stream.send(bytes),
            Transport::Tls(tls) => tls.send(bytes),
        }
    }

    /// The most bytes that a caller should pass to [`Transport::send`] at a time, if they stay
    /// where they are: TLS keeps a copy of what the socket does not take.
    pub fn piece(&self) -> usize {
        match self {
            Transport::Plain(_) => usize::MAX,
            Transport::Tls(_) => 64 * 1024,
        }
    }

    /// Sends records that wait. Returns true when none does.
    ///
    /// # Errors
    /// As [`Stream::send`], but for `AGAIN`.
    pub fn flush(&self) -> Result<bool, Errno> {
        match self {
            Transport::Plain(_) => Ok(true),
            Transport::Tls(tls) => tls.flush(),
        }
    }

    /// Encrypts a message into the worker's outbox. Returns false, with nothing queued, if the
    /// transport is plain or the message does not suit: see [`Transport::send`]. `waker` is called
    /// if it cannot be sent.
    pub fn queue(&self, bytes: &[u8], waker: &Waker) -> bool {
        self.tls().is_some_and(|tls| tls.queue(bytes, waker))
    }

    /// Returns true while records are in the outbox, or their result was not asked for yet.
    pub fn is_queued(&self) -> bool {
        self.tls().is_some_and(TlsStream::is_queued)
    }

    /// Returns true if it is known that the records in the outbox could not be sent whole.
    pub fn has_failed_send(&self) -> bool {
        self.tls().is_some_and(TlsStream::has_failed_send)
    }

    /// Takes the result of the records in the outbox. Those that did not fit wait.
    ///
    /// # Errors
    /// As [`Stream::send`], but for `AGAIN`.
    pub fn settle(&self) -> Result<(), Errno> {
        self.tls().map_or(Ok(()), TlsStream::settle)
    }

    /// Bytes that were written and wait as records, with what TLS adds to them.
    pub fn unsent(&self) -> usize {
        self.tls().map_or(0, TlsStream::unsent)
    }

    /// Announces the end of what is written, where the protocol has a message for it (RFC 8446
    /// section 6.1). The message may wait like other records. Does nothing the second time.
    pub fn close_notify(&self) {
        if let Transport::Tls(tls) = self {
            tls.close_notify();
        }
    }

    /// Ends the writing side: the peer reads the end of the stream after what was sent. Records
    /// that wait go first if the socket has room for them.
    pub fn shutdown_write(&self) {
        match self {
            Transport::Plain(stream) => stream.shutdown_write(),
            Transport::Tls(tls) => tls.shutdown_write(),
        }
    }

    /// Makes the close that follows a reset: see [`Stream::reset_on_close`]. If a TLS session has
    /// failed, its peer gets an alert and the end of the stream instead, because a reset may
    /// destroy the alert on its way.
    pub fn reset_on_close(&self) {
        match self {
            Transport::Plain(stream) => stream.reset_on_close(),
            Transport::Tls(tls) => tls.reset_on_close(),
        }
    }

    /// Returns true if a read would not block.
    pub fn has_input(&self) -> bool {
        self.tls().is_some_and(TlsStream::has_decrypted) || self.socket().has_input()
    }
}

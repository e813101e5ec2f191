//! What a connection reads and writes: a plain socket at present.
//!
//! Callers read and write here, and wait and reset through [`Transport::socket`]. What moves bytes
//! without looking at them (splice, the outbox) asks for [`Transport::plain`]. A second kind, TLS
//! records over the same socket, must also say when decrypted bytes can be read: the socket does
//! not show them. An enum with one variant has the size and the cost of its content.

use std::rc::Rc;

use crate::sys::{Errno, Stream};

/// One side of a connection. Clones share the socket.
#[derive(Clone)]
pub enum Transport {
    /// Bytes are those of the socket.
    Plain(Rc<Stream>),
}

impl Transport {
    /// The socket, to wait for it and to watch it.
    pub fn socket(&self) -> &Rc<Stream> {
        let Transport::Plain(stream) = self;
        stream
    }

    /// The socket if its bytes may be moved unseen. `None` if they must be coded.
    pub fn plain(&self) -> Option<&Rc<Stream>> {
        let Transport::Plain(stream) = self;
        Some(stream)
    }

    /// Reads available bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let Transport::Plain(stream) = self;
        stream.recv(buffer)
    }

    /// Writes as many bytes as fit.
    ///
    /// # Errors
    /// As [`Stream::send`].
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let Transport::Plain(stream) = self;
        stream.send(bytes)
    }

    /// Ends the writing side: the peer reads the end of the stream after what was sent.
    pub fn shutdown_write(&self) {
        let Transport::Plain(stream) = self;
        stream.shutdown_write();
    }

    /// Returns true if a read would not block.
    pub fn has_input(&self) -> bool {
        let Transport::Plain(stream) = self;
        stream.has_input()
    }
}

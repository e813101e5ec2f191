//! Where sessions put what must be sent.

use std::ops::Deref;

/// Bytes of the wire, in the order in which they must be sent. A worker has one for all of its
/// sessions.
///
/// rustls writes records over bytes that are initialised. A `Vec` would fill its end with zeros for
/// each record; this buffer keeps what was written before as the room for the next record.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// The bytes from here on are room.
    length: usize,
}

impl Output {
    /// Removes the bytes, and keeps their room.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// The room for `size` bytes behind the last one.
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        let end = self.length + size;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.length..end]
    }

    /// Adds bytes that were written into the room.
    pub(super) fn extend(&mut self, count: usize) {
        self.length += count;
        debug_assert!(self.length <= self.bytes.len());
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.extend(bytes.len());
    }
}

impl Deref for Output {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

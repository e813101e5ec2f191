//! Bytes of a body as the `h2` crate takes them. Bytes that are in memory already are shared, not
//! copied. Bytes that were read for one stream count in the worker's budget until they are sent.

use std::ops::Range;
use std::sync::Arc;

use bytes::Buf;

use crate::files;
use crate::front::response::Body;
use crate::relay::Pool;

/// A part of a body. Clones share its bytes.
#[derive(Clone)]
pub(super) struct Piece {
    content: Content,
    /// What is left of them.
    range: Range<usize>,
}

#[derive(Clone)]
enum Content {
    Nothing,
    /// A small file, or bytes that were read for this stream.
    Counted(files::Bytes),
    /// Bytes of the configuration.
    Configured(Arc<[u8]>),
}

impl Piece {
    /// No bytes.
    pub(super) fn empty() -> Piece {
        Piece { content: Content::Nothing, range: 0..0 }
    }

    /// Bytes that were read for one stream.
    pub(super) fn read(bytes: Vec<u8>, pool: &Pool) -> Piece {
        let range = 0..bytes.len();
        Piece { content: Content::Counted(files::Bytes::new(bytes, pool.charge())), range }
    }

    /// The body of a response that is made here, as far as the caller does not send it.
    pub(super) fn of(body: &Body<'_>, pool: &Pool) -> Piece {
        match body {
            Body::None | Body::Empty | Body::Length(_) => Piece::empty(),
            Body::Line(line) => Piece::read([line.as_bytes(), b"\n"].concat(), pool),
            Body::Bytes(bytes) => {
                Piece { range: 0..bytes.len(), content: Content::Configured(Arc::clone(bytes)) }
            }
            Body::Part(bytes, range) => {
                Piece { content: Content::Counted((*bytes).clone()), range: range.clone() }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Takes this many bytes off the front. There must be as many.
    pub(super) fn split_to(&mut self, length: usize) -> Piece {
        let front = Piece { range: self.range.start..self.range.start + length, ..self.clone() };
        self.advance(length);
        front
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.range.len()
    }

    fn chunk(&self) -> &[u8] {
        match &self.content {
            Content::Nothing => &[],
            Content::Counted(bytes) => &bytes[self.range.clone()],
            Content::Configured(bytes) => &bytes[self.range.clone()],
        }
    }

    fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.range.len());
        self.range.start += count;
    }
}

//! Bytes of a body as the `h2` crate takes them. Bytes that are in memory already are shared, not
//! copied. Bytes that were read for one stream count in the worker's budget until they are sent,
//! and those of all streams of a connection together as [`Unsent`].

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Buf;

use crate::files;
use crate::front::response::Body;
use crate::relay::Pool;
use crate::sched::Charge;

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
    /// A small file.
    Counted(files::Bytes),
    /// Bytes that were read for this stream.
    Read(Rc<Read>),
    /// Bytes of the configuration.
    Configured(Arc<[u8]>),
}

struct Read {
    bytes: Vec<u8>,
    unsent: Rc<Unsent>,
    _charge: Charge,
}

/// Counts the bytes that were read for the streams of one connection and are not sent yet.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Cell<usize>,
    /// Streams that wait until there are none.
    waiting: RefCell<Vec<Waker>>,
}

impl Unsent {
    /// Returns true if all bytes that were read are sent.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.get() == 0
    }

    /// Ready when all bytes that were read are sent. `waker` is called for the next try.
    pub(super) fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.unsent.bytes.set(self.unsent.bytes.get() - self.bytes.len());
        if self.unsent.is_empty() {
            // Not borrowed while they are woken and dropped: one may be the last reference to its
            // task.
            let waiting = self.unsent.waiting.take();
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Piece {
    /// No bytes.
    pub(super) fn empty() -> Piece {
        Piece { content: Content::Nothing, range: 0..0 }
    }

    /// Bytes that were read for one stream. They count as `unsent`, too.
    pub(super) fn read(bytes: Vec<u8>, pool: &Pool, unsent: &Rc<Unsent>) -> Piece {
        let range = 0..bytes.len();
        let mut charge = pool.charge();
        charge.set(bytes.capacity());
        unsent.bytes.set(unsent.bytes.get() + bytes.len());
        let read = Read { bytes, unsent: Rc::clone(unsent), _charge: charge };
        Piece { content: Content::Read(Rc::new(read)), range }
    }

    /// The body of a response that is made here, as far as the caller does not send it.
    pub(super) fn of(body: &Body<'_>, pool: &Pool) -> Piece {
        match body {
            Body::None | Body::Empty | Body::Length(_) => Piece::empty(),
            Body::Line(line) => {
                let bytes = [line.as_bytes(), b"\n"].concat();
                let range = 0..bytes.len();
                Piece { range, content: Content::Counted(files::Bytes::new(bytes, pool.charge())) }
            }
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
            Content::Read(read) => &read.bytes[self.range.clone()],
            Content::Configured(bytes) => &bytes[self.range.clone()],
        }
    }

    fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.range.len());
        self.range.start += count;
    }
}

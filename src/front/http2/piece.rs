//! Bytes of a body as the `h2` crate takes them. Bytes that are in memory already are shared, not
//! copied. Bytes that were read for one stream count in the worker's budget until they are sent.
//! Those of all streams that the crate has and the socket has not count together as [`Unsent`].

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Buf;

use crate::files;
use crate::front::response::Body;
use crate::relay::Pool;
use crate::sched::{Charge, WaitQueue};

/// A part of a body. Parts of one share its bytes.
pub(super) struct Piece {
    content: Content,
    /// What is left of them.
    range: Range<usize>,
    /// `None` until it is given to the crate.
    sending: Option<Sending>,
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
    _charge: Charge,
}

/// The bytes that were read for the streams of one connection, and that wait for its socket.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Cell<usize>,
    /// How many pieces the socket has taken.
    taken: Cell<u64>,
    /// Streams that want to read, while each does so in its turn. The one at the front goes on when
    /// nothing is unsent.
    pub(super) waiting: WaitQueue,
}

impl Unsent {
    /// Returns true if the socket has taken all bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.get() == 0
    }

    /// A number that grows as the socket takes bytes.
    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }
}

/// Counts a piece as unsent until the crate drops it.
struct Sending {
    unsent: Rc<Unsent>,
    bytes: usize,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let unsent = &self.unsent;
        unsent.bytes.set(unsent.bytes.get() - self.bytes);
        unsent.taken.set(unsent.taken.get().wrapping_add(1));
        if unsent.is_empty() {
            unsent.waiting.wake_front();
        }
    }
}

impl Piece {
    fn new(content: Content, range: Range<usize>) -> Piece {
        Piece { content, range, sending: None }
    }

    /// No bytes.
    pub(super) fn empty() -> Piece {
        Piece::new(Content::Nothing, 0..0)
    }

    /// Bytes that were read for one stream.
    pub(super) fn read(bytes: Vec<u8>, pool: &Pool) -> Piece {
        let range = 0..bytes.len();
        let mut charge = pool.charge();
        charge.set(bytes.capacity());
        Piece::new(Content::Read(Rc::new(Read { bytes, _charge: charge })), range)
    }

    /// The body of a response that is made here, as far as the caller does not send it.
    pub(super) fn of(body: &Body<'_>, pool: &Pool) -> Piece {
        match body {
            Body::None | Body::Empty | Body::Length(_) => Piece::empty(),
            Body::Line(line) => {
                let bytes = [line.as_bytes(), b"\n"].concat();
                let range = 0..bytes.len();
                let counted = files::Bytes::new(bytes, pool.charge());
                Piece::new(Content::Counted(counted), range)
            }
            Body::Bytes(bytes) => {
                Piece::new(Content::Configured(Arc::clone(bytes)), 0..bytes.len())
            }
            Body::Part(bytes, range) => {
                Piece::new(Content::Counted((*bytes).clone()), range.clone())
            }
        }
    }

    /// Counts what was read for the stream as unsent, from now until the crate drops it. It is
    /// given to the crate next.
    pub(super) fn sent_by(mut self, unsent: &Rc<Unsent>) -> Piece {
        if let Content::Read(_) = self.content {
            let bytes = self.len();
            unsent.bytes.set(unsent.bytes.get() + bytes);
            self.sending = Some(Sending { unsent: Rc::clone(unsent), bytes });
        }
        self
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Takes this many bytes off the front. There must be as many.
    pub(super) fn split_to(&mut self, length: usize) -> Piece {
        let range = self.range.start..self.range.start + length;
        let front = Piece::new(self.content.clone(), range);
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

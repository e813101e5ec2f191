//! What a flow does to its bytes where the client's side of a tunnel is made of frames: those are
//! taken off on the way to the upstream, and put on on the way back.
//!
//! Bytes are changed where they were read, in the worker's buffer. A coded flow is copied and never
//! spliced: its bytes have to be seen.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::pool::BUFFER_SIZE;
use crate::proto::obfs;
use crate::proto::websocket::{self, Decoder, Replies};

/// The work of one direction.
pub enum Coding {
    /// From a WebSocket client.
    FromWebSocket {
        /// Where in its frames the client is.
        decoder: Decoder,
        /// What the other direction is to tell it.
        replies: Rc<RefCell<Replies>>,
    },
    /// To a WebSocket client: a frame for each read.
    ToWebSocket {
        /// What is to be told beside payload.
        replies: Rc<RefCell<Replies>>,
    },
    /// From a simple-obfs client in tls mode.
    FromObfs(obfs::Decoder),
    /// To one.
    ToObfs(obfs::Encoder),
}

impl Coding {
    /// Both directions of a WebSocket: from the client, and to it.
    pub fn websocket() -> (Coding, Coding) {
        let replies = Rc::new(RefCell::new(Replies::default()));
        let decoder = Decoder::default();
        let from = Coding::FromWebSocket { decoder, replies: Rc::clone(&replies) };
        (from, Coding::ToWebSocket { replies })
    }

    /// Bytes that are to be left free before those that are read.
    pub(super) fn room(&self) -> usize {
        match self {
            Coding::FromWebSocket { .. } | Coding::FromObfs(_) => 0,
            Coding::ToWebSocket { .. } => websocket::MAX_HEADER,
            Coding::ToObfs(_) => obfs::Encoder::room(BUFFER_SIZE),
        }
    }

    /// Changes what was read behind the room; says where in the buffer the bytes are that are to be
    /// written.
    pub(super) fn apply(&mut self, buffer: &mut [u8], read: usize) -> Range<usize> {
        match self {
            Coding::FromWebSocket { decoder, replies } => {
                0..decoder.decode(&mut buffer[..read], &mut replies.borrow_mut())
            }
            Coding::ToWebSocket { .. } => {
                let (room, payload) = buffer.split_at_mut(websocket::MAX_HEADER);
                let room = room.try_into().expect("it was split at this length");
                let header = websocket::write_header(room, payload[..read].len());
                websocket::MAX_HEADER - header..websocket::MAX_HEADER + read
            }
            Coding::FromObfs(decoder) => 0..decoder.decode(&mut buffer[..read]),
            Coding::ToObfs(encoder) => {
                let room = obfs::Encoder::room(BUFFER_SIZE);
                encoder.encode(buffer, room..room + read)
            }
        }
    }

    /// The source has said by its frames that this is the end.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Coding::FromWebSocket { decoder, .. } => decoder.is_over(),
            Coding::ToWebSocket { replies } => replies.borrow().have_ended(),
            Coding::FromObfs(decoder) => decoder.is_over(),
            Coding::ToObfs(_) => false,
        }
    }

    /// The source has broken its protocol.
    pub(super) fn is_broken(&self) -> bool {
        match self {
            Coding::FromWebSocket { decoder, .. } => decoder.is_broken(),
            // Nothing else ends these.
            Coding::FromObfs(decoder) => decoder.is_over(),
            Coding::ToWebSocket { .. } | Coding::ToObfs(_) => false,
        }
    }

    /// Something is to be written that the source has no part in.
    pub(super) fn is_due(&self) -> bool {
        match self {
            Coding::ToWebSocket { replies } => replies.borrow().are_due(),
            Coding::FromWebSocket { .. } | Coding::FromObfs(_) | Coding::ToObfs(_) => false,
        }
    }

    /// Appends that.
    pub(super) fn take_due(&mut self, out: &mut Vec<u8>) {
        if let Coding::ToWebSocket { replies } = self {
            replies.borrow_mut().write(out);
        }
    }

    /// The source has ended. What is due then, if anything is, is not the last word yet.
    pub(super) fn end(&mut self) {
        match self {
            Coding::ToWebSocket { replies } => replies.borrow_mut().ask(),
            // No answer will come.
            Coding::FromWebSocket { replies, .. } => replies.borrow_mut().gone(),
            Coding::FromObfs(_) | Coding::ToObfs(_) => {}
        }
    }

    /// What tells the destination that this is the end, where a frame does that and none was sent
    /// yet.
    pub(super) fn last_word(&self) -> Option<&Rc<RefCell<Replies>>> {
        let Coding::ToWebSocket { replies } = self else { return None };
        replies.borrow().can_end().then_some(replies)
    }

    /// The destination takes no more, and so the source is not read any more.
    pub(super) fn abandon(&mut self) {
        if let Coding::FromWebSocket { replies, .. } = self {
            replies.borrow_mut().abandon();
        }
    }
}

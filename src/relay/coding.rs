//! How a flow changes its bytes where the client's side of a tunnel is made of frames. Frames are
//! removed on the way to the upstream, and added on the way back.
//!
//! Bytes are changed where they were read, in the worker's buffer. A coded flow is copied and never
//! spliced, because the proxy must see its bytes.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::pool::BUFFER_SIZE;
use crate::proto::obfs;
use crate::proto::websocket::{self, Decoder, Replies};

/// How one direction is coded.
pub enum Coding {
    /// Decodes frames from a WebSocket client.
    FromWebSocket {
        /// The position in the client's frames.
        decoder: Decoder,
        /// Control frames that the other direction must send to the client.
        replies: Rc<RefCell<Replies>>,
    },
    /// Encodes frames for a WebSocket client: one frame for each read.
    ToWebSocket {
        /// Control frames to send beside the payload.
        replies: Rc<RefCell<Replies>>,
    },
    /// Decodes what a simple-obfs client in tls mode sends.
    FromObfs(obfs::Decoder),
    /// Encodes for a simple-obfs client in tls mode.
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

    /// Bytes to leave free in the buffer before those that are read.
    pub(super) fn room(&self) -> usize {
        match self {
            Coding::FromWebSocket { .. } | Coding::FromObfs(_) => 0,
            Coding::ToWebSocket { .. } => websocket::MAX_HEADER,
            Coding::ToObfs(_) => obfs::Encoder::room(BUFFER_SIZE),
        }
    }

    /// Codes the bytes that were read behind the room. Returns the range of the buffer that is to
    /// be written.
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

    /// Returns true when a close frame, or an error in the frames, has ended this direction.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Coding::FromWebSocket { decoder, .. } => decoder.is_over(),
            Coding::ToWebSocket { replies } => replies.borrow().have_ended(),
            Coding::FromObfs(decoder) => decoder.is_over(),
            Coding::ToObfs(_) => false,
        }
    }

    /// Returns true when the source has broken its protocol.
    pub(super) fn is_broken(&self) -> bool {
        match self {
            Coding::FromWebSocket { decoder, .. } => decoder.is_broken(),
            // Only an error ends these.
            Coding::FromObfs(decoder) => decoder.is_over(),
            Coding::ToWebSocket { .. } | Coding::ToObfs(_) => false,
        }
    }

    /// Returns true when a control frame is to be written, whatever the source sends.
    pub(super) fn is_due(&self) -> bool {
        match self {
            Coding::ToWebSocket { replies } => replies.borrow().are_due(),
            Coding::FromWebSocket { .. } | Coding::FromObfs(_) | Coding::ToObfs(_) => false,
        }
    }

    /// Appends the control frames that are due.
    pub(super) fn take_due(&mut self, out: &mut Vec<u8>) {
        if let Coding::ToWebSocket { replies } = self {
            replies.borrow_mut().write(out);
        }
    }

    /// Marks the source as ended. This may make a ping due; the close frame comes later.
    pub(super) fn end(&mut self) {
        match self {
            Coding::ToWebSocket { replies } => replies.borrow_mut().ask(),
            // The client has ended, so no answer to a ping will come.
            Coding::FromWebSocket { replies, .. } => replies.borrow_mut().gone(),
            Coding::FromObfs(_) | Coding::ToObfs(_) => {}
        }
    }

    /// The replies of a WebSocket client that can still be sent a close frame. `None` if this
    /// direction does not end with a frame, or the close was already sent.
    pub(super) fn last_word(&self) -> Option<&Rc<RefCell<Replies>>> {
        let Coding::ToWebSocket { replies } = self else { return None };
        replies.borrow().can_end().then_some(replies)
    }

    /// Marks the source as not read any more, because the destination takes no more bytes.
    pub(super) fn abandon(&mut self) {
        if let Coding::FromWebSocket { replies, .. } = self {
            replies.borrow_mut().abandon();
        }
    }
}

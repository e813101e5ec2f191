//! The control frames that must be sent to a client: pongs, a ping and the close frame.

use std::cell::RefCell;
use std::rc::Rc;

use super::{FIN, MAX_CONTROL, code, opcode};

/// The control frames of one client. They are shared by the direction that reads its frames and the
/// one that writes to it.
///
/// The ping is sent after the payload has ended: its pong shows that the client has read all of it,
/// and that the close frame may follow.
#[derive(Clone, Default)]
pub struct ControlFrames(Rc<RefCell<Frames>>);

#[derive(Default)]
struct Frames {
    pong: Pong,
    ping: Ping,
    close: Close,
    /// The client sends nothing more.
    client_ended: bool,
    /// The client's bytes are not read any more.
    client_unread: bool,
}

/// A pong with the payload of the last ping. If several pings arrive before a pong is sent, only
/// the last one is answered (RFC 6455 section 5.5.3).
struct Pong {
    pending: bool,
    payload: [u8; MAX_CONTROL],
    length: u8,
}

impl Default for Pong {
    fn default() -> Self {
        Pong { pending: false, payload: [0; MAX_CONTROL], length: 0 }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ping {
    #[default]
    None,
    Pending,
    Sent,
    Answered,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Close {
    #[default]
    None,
    /// To be sent, with this code or without one.
    Pending(Option<u16>),
    Sent,
}

impl ControlFrames {
    /// Returns true when a frame is to be sent.
    pub fn has_pending(&self) -> bool {
        let frames = self.0.borrow();
        let pending = frames.pong.pending || frames.ping == Ping::Pending;
        match frames.close {
            Close::None => pending,
            Close::Pending(_) => true,
            Close::Sent => false,
        }
    }

    /// Appends the pending frames, which then count as sent. No frame is sent after a close.
    pub fn take_pending(&self, out: &mut Vec<u8>) {
        let mut frames = self.0.borrow_mut();
        if frames.close == Close::Sent {
            return;
        }
        if std::mem::take(&mut frames.pong.pending) {
            let payload = &frames.pong.payload[..frames.pong.length.into()];
            write_frame(out, opcode::PONG, payload);
        }
        if frames.ping == Ping::Pending {
            write_frame(out, opcode::PING, &[]);
            frames.ping = Ping::Sent;
        }
        if let Close::Pending(code) = frames.close {
            match code {
                Some(code) => write_frame(out, opcode::CLOSE, &code.to_be_bytes()),
                None => write_frame(out, opcode::CLOSE, &[]),
            }
            frames.close = Close::Sent;
        }
    }

    /// Schedules the ping, unless it was scheduled before.
    pub fn schedule_ping(&self) {
        let mut frames = self.0.borrow_mut();
        if frames.ping == Ping::None {
            frames.ping = Ping::Pending;
        }
    }

    /// Returns true when no pong to the ping is to be waited for: it has arrived, or the client
    /// sends nothing more.
    pub fn is_ping_settled(&self) -> bool {
        let frames = self.0.borrow();
        frames.ping == Ping::Answered || frames.client_ended
    }

    /// Schedules a normal close.
    pub fn schedule_close(&self) {
        self.schedule_close_with(Some(code::NORMAL));
    }

    /// Returns true when a close frame can still be sent and the client's reply to it be read.
    pub fn can_close(&self) -> bool {
        let frames = self.0.borrow();
        frames.close != Close::Sent && !frames.client_unread
    }

    /// Returns true when the close frame has been sent.
    pub fn is_close_sent(&self) -> bool {
        self.0.borrow().close == Close::Sent
    }

    /// Records that the client has ended its stream, with or without a close frame.
    pub fn mark_client_ended(&self) {
        self.0.borrow_mut().client_ended = true;
    }

    /// Records that the client is not read any more, because its bytes cannot be forwarded. A clean
    /// close is then impossible.
    pub fn mark_client_unread(&self) {
        self.0.borrow_mut().client_unread = true;
    }

    /// Schedules a pong with the payload of this ping.
    pub(super) fn schedule_pong(&self, payload: &[u8]) {
        let pong = &mut self.0.borrow_mut().pong;
        pong.payload[..payload.len()].copy_from_slice(payload);
        // The cast is safe: a control frame has at most 125 bytes of payload.
        pong.length = payload.len() as u8;
        pong.pending = true;
    }

    /// Records a pong. It counts only after the ping was sent.
    pub(super) fn receive_pong(&self) {
        let mut frames = self.0.borrow_mut();
        if frames.ping == Ping::Sent {
            frames.ping = Ping::Answered;
        }
    }

    /// Schedules a close with this code. Later calls have no effect: the first reason counts.
    pub(super) fn schedule_close_with(&self, code: Option<u16>) {
        let mut frames = self.0.borrow_mut();
        if frames.close == Close::None {
            frames.close = Close::Pending(code);
        }
    }
}

fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.extend_from_slice(&[FIN | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

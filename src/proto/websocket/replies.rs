//! The control frames to be sent to a client: pongs, the ping of [`Replies::ask`] and the close.

use super::{FIN, MAX_CONTROL, code, opcode};

/// Control frames that are waiting to be sent between two other frames.
#[derive(Default)]
pub struct Replies {
    pong: Pong,
    ping: Ping,
    close: Close,
    /// The client will send nothing more.
    gone: bool,
    /// The client's bytes are no longer read, so an answer from it cannot arrive.
    abandoned: bool,
}

/// The ping that checks whether the client has read everything sent before it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ping {
    #[default]
    None,
    Due,
    Sent,
    Answered,
}

/// A pong with the payload of the last ping. If several pings arrive before a pong is sent, only
/// the last one is answered (RFC 6455 section 5.5.3).
struct Pong {
    due: bool,
    payload: [u8; MAX_CONTROL],
    length: u8,
}

impl Default for Pong {
    fn default() -> Self {
        Pong { due: false, payload: [0; MAX_CONTROL], length: 0 }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Close {
    #[default]
    None,
    /// To be sent, with this code or without one.
    Due(Option<u16>),
    Sent,
}

impl Replies {
    /// Returns true when a frame is waiting to be sent.
    pub fn are_due(&self) -> bool {
        let due = self.pong.due || self.ping == Ping::Due || self.close != Close::None;
        due && self.close != Close::Sent
    }

    /// Appends the waiting frames. No frame is sent after a close.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        if self.close == Close::Sent {
            return;
        }
        if std::mem::take(&mut self.pong.due) {
            let payload = &self.pong.payload[..self.pong.length.into()];
            write_control(out, opcode::PONG, payload);
        }
        if self.ping == Ping::Due {
            write_control(out, opcode::PING, &[]);
            self.ping = Ping::Sent;
        }
        if let Close::Due(code) = self.close {
            match code {
                Some(code) => write_control(out, opcode::CLOSE, &code.to_be_bytes()),
                None => write_control(out, opcode::CLOSE, &[]),
            }
            self.close = Close::Sent;
        }
    }

    /// Schedules a ping after the end of the payload. Its pong shows that the client has read all
    /// of it.
    pub fn ask(&mut self) {
        if self.ping == Ping::None {
            self.ping = Ping::Due;
        }
    }

    /// Returns true when the pong has arrived, or when the client will send nothing more.
    pub fn are_answered(&self) -> bool {
        self.ping == Ping::Answered || self.gone
    }

    /// Records that the client has ended its stream, with or without a close.
    pub fn gone(&mut self) {
        self.gone = true;
    }

    /// Records that the client is no longer read, because its bytes cannot be forwarded. A clean
    /// close is then impossible.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Returns true when a close can still be sent and its answer be read.
    pub fn can_end(&self) -> bool {
        self.close != Close::Sent && !self.abandoned
    }

    /// Records a pong. It counts as an answer only after the ping of [`Replies::ask`] was sent.
    pub(super) fn answer(&mut self) {
        if self.ping == Ping::Sent {
            self.ping = Ping::Answered;
        }
    }

    /// Schedules a normal close.
    pub fn end(&mut self) {
        self.close(Some(code::NORMAL));
    }

    /// Returns true when the close has been sent.
    pub fn have_ended(&self) -> bool {
        self.close == Close::Sent
    }

    /// Schedules a pong with the payload of this ping.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.pong.payload[..payload.len()].copy_from_slice(payload);
        // The cast is safe: a control frame has at most 125 bytes of payload.
        self.pong.length = payload.len() as u8;
        self.pong.due = true;
    }

    /// Schedules a close with this code. Later calls have no effect: the first reason counts.
    pub(super) fn close(&mut self, code: Option<u16>) {
        if self.close == Close::None {
            self.close = Close::Due(code);
        }
    }
}

fn write_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.extend_from_slice(&[FIN | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

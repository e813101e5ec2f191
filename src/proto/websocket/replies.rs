//! What a client is owed beside payload: the answers to its pings and to its close.

use super::{FIN, MAX_CONTROL, code, opcode};

/// Control frames that are to be sent between two others.
#[derive(Default)]
pub struct Replies {
    pong: Pong,
    ping: Ping,
    close: Close,
    /// The client says nothing any more.
    gone: bool,
    /// Nobody reads from the client any more: what it could say will not be heard.
    abandoned: bool,
}

/// The question whether the client has read everything before it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ping {
    #[default]
    None,
    Due,
    Sent,
    Answered,
}

/// The payload of the last ping that was not answered. A client that sends more of them than it
/// reads answers to gets one for the last (RFC 6455 section 5.5.3).
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
    /// With this code, or without one.
    Due(Option<u16>),
    Sent,
}

impl Replies {
    /// Whether anything is to be sent.
    pub fn are_due(&self) -> bool {
        let due = self.pong.due || self.ping == Ping::Due || self.close != Close::None;
        due && self.close != Close::Sent
    }

    /// Appends what is to be sent. Nothing is to be sent behind a close.
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

    /// There is no more payload: the client is asked whether it has read all there was.
    pub fn ask(&mut self) {
        if self.ping == Ping::None {
            self.ping = Ping::Due;
        }
    }

    /// It has, or it will not say so any more.
    pub fn are_answered(&self) -> bool {
        self.ping == Ping::Answered || self.gone
    }

    /// The client has ended its stream, with a close or without.
    pub fn gone(&mut self) {
        self.gone = true;
    }

    /// Nobody hears the client any more, as what it says cannot be passed on: there is no good end.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// A close may still be sent, and an answer to it be heard.
    pub fn can_end(&self) -> bool {
        self.close != Close::Sent && !self.abandoned
    }

    /// A pong came: only one behind [`Replies::ask`] is an answer.
    pub(super) fn answer(&mut self) {
        if self.ping == Ping::Sent {
            self.ping = Ping::Answered;
        }
    }

    /// The client is to be told that this is the end.
    pub fn end(&mut self) {
        self.close(Some(code::NORMAL));
    }

    /// The close was sent.
    pub fn have_ended(&self) -> bool {
        self.close == Close::Sent
    }

    /// The client sent a ping.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        self.pong.payload[..payload.len()].copy_from_slice(payload);
        // A control frame has no more.
        self.pong.length = payload.len() as u8;
        self.pong.due = true;
    }

    /// The client is to be told that this is the end; the first reason counts.
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

//! Answers on their way to a client that reads slower than it asks.

use std::sync::Arc;

use crate::sys::{Errno, Stream};

/// Answers that did not fit the socket.
#[derive(Default)]
pub(super) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    /// A large body behind `bytes`.
    pub(super) body: Option<Arc<[u8]>>,
    body_sent: usize,
}

/// How far sending came.
#[derive(PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything is sent.
    All,
    /// The socket is full.
    Some,
    /// The client is gone.
    Failed,
}

impl Unsent {
    /// Sends answers and keeps what does not fit. An error shows at the next call.
    pub(super) fn begin(&mut self, client: &Stream, answers: &[u8]) {
        debug_assert!(self.bytes.is_empty(), "a turn begins when everything is sent");
        let sent = if answers.is_empty() { 0 } else { client.send(answers).unwrap_or(0) };
        if sent < answers.len() {
            self.bytes = answers[sent..].to_vec();
        }
    }

    /// Sends what is left, as far as it goes.
    pub(super) fn send(&mut self, client: &Stream) -> Sent {
        while self.sent < self.bytes.len() {
            match client.send(&self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Sent::Some,
                Err(_) => return Sent::Failed,
            }
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        if let Some(body) = &self.body {
            while self.body_sent < body.len() {
                match client.send(&body[self.body_sent..]) {
                    Ok(sent) => self.body_sent += sent,
                    Err(Errno::AGAIN) => return Sent::Some,
                    Err(_) => return Sent::Failed,
                }
            }
            (self.body, self.body_sent) = (None, 0);
        }
        Sent::All
    }
}

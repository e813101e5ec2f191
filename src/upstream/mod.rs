//! Reads HTTP/1.1 responses of upstreams and passes their bodies on to clients.
//!
//! | file | what it does |
//! | --- | --- |
//! | `head` | reads the head of the final response while its bytes arrive |
//! | `body` | follows the body to its end and passes it on |
//!
//! The caller connects, sends the request, and decides what a response means: a tunnel accepts only
//! some of them as the start of a WebSocket. The module knows neither routes nor clusters nor
//! clients' requests: callers pass in the streams, the pool and the watch.

mod body;
mod head;
#[cfg(test)]
mod tests;

pub use head::Heads;

use std::cell::Cell;
use std::rc::Rc;

use crate::observe::outcome::End;
use crate::proto::http;
use crate::relay::Pool;
use crate::sched::Charge;
use crate::timers::{Fired, Watch};
use crate::transport::Transport;

/// A connection to an upstream, with one request.
pub struct Connection<'c> {
    /// The upstream's side.
    pub transport: &'c Transport,
    /// The worker's buffers and its memory budget.
    pub pool: &'c Rc<Pool>,
    /// The limit of the client's connection.
    pub watch: &'c Watch,
    /// A write to the upstream has failed.
    write_failed: Cell<bool>,
}

impl<'c> Connection<'c> {
    /// Makes a connection of a transport.
    pub fn new(transport: &'c Transport, pool: &'c Rc<Pool>, watch: &'c Watch) -> Connection<'c> {
        Connection { transport, pool, watch, write_failed: Cell::new(false) }
    }

    /// Remembers that a write to the upstream has failed. What the upstream sent before can still
    /// be read. The failed write has consumed the socket's error, so that the end of the stream
    /// after those bytes looks clean; from now on it is a reset.
    pub fn note_failed_write(&self) {
        self.write_failed.set(true);
    }

    /// Returns true if the end of the stream that was read is that of a reset. The caller runs
    /// beside the future that writes, in one task.
    pub async fn end_is_reset(&self) -> bool {
        // That future may have failed and not noted it yet.
        self.pool.yielder().yield_now().await;
        self.write_failed.get()
    }
}

/// A final response: its head, and what was read after the head.
pub struct Response {
    /// The parsed head.
    pub head: http::Response,
    bytes: Vec<u8>,
    head_length: usize,
    /// Counts `bytes`.
    _charge: Charge,
}

impl Response {
    /// The head as it arrived, up to and including its empty line.
    pub fn head_bytes(&self) -> &[u8] {
        &self.bytes[..self.head_length]
    }

    /// What was read after the head: a part of the body, or more than the body. After a 101 it is
    /// the start of the other protocol.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.head_length..]
    }

    /// The head and the rest as they arrived.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The upstream ended the connection before its head was complete.
    Closed,
    /// The upstream reset the connection, or ended it after a write to it had failed.
    Reset,
    /// The bytes are not HTTP/1, the head is malformed or its framing ambiguous, or there are too
    /// many interim responses.
    Malformed,
    /// The head, together with interim responses before it, is too large.
    HeadTooLarge,
    /// The head is incomplete, and the worker's memory budget allows no more of it.
    BudgetSpent,
    /// A limit has fired, and the bytes that had arrived by then do not complete the head.
    Fired(Fired),
}

impl Failure {
    /// How the outcome of the request ends.
    pub fn end(self) -> End {
        match self {
            Failure::Closed => End::Upstream,
            Failure::Reset => End::UpstreamReset,
            Failure::Malformed | Failure::HeadTooLarge => End::BadResponse,
            Failure::BudgetSpent => End::Overflow,
            Failure::Fired(fired) => fired.end(),
        }
    }
}

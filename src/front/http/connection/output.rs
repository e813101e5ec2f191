//! The responses of a connection on their way to the client.

use std::sync::Arc;
use std::task::Waker;

use super::{Connection, State};
use crate::config::{FieldRules, Http};
use crate::front::moment::Moment;
use crate::front::response::Response;
use crate::observe::outcome::{End, Outcome};
use crate::proto::http::response_head::{Content, Persistence};
use crate::sys::Errno;
use crate::timers::OnDrain;

/// A body that is sent from where the configuration has it. All connections share it.
pub(super) struct LargeBody {
    bytes: Arc<[u8]>,
    sent: usize,
}

impl LargeBody {
    pub(super) fn new(bytes: Arc<[u8]>) -> LargeBody {
        LargeBody { bytes, sent: 0 }
    }
}

/// The lengths of a response that was made here.
#[derive(Clone, Copy)]
pub(in crate::front::http) struct Written {
    /// The whole response.
    pub(in crate::front::http) bytes: u64,
    /// Its head.
    pub(in crate::front::http) head: u64,
}

impl Written {
    /// The outcome of a request that gets this response.
    pub(in crate::front::http) fn outcome(self, status: u16, end: End) -> Outcome {
        Outcome {
            status: Some(status),
            bytes_down: self.bytes,
            head_down: self.head,
            ..Outcome::new(end)
        }
    }
}

impl Connection<'_> {
    /// Appends a response, with the page that `http` has for its status, to `out`. A large body is
    /// kept: it follows `out`, so that no other response can be appended before it is sent.
    pub(in crate::front::http) fn append(
        &mut self,
        response: Response<'_>,
        http: Option<&Http>,
        rules: &FieldRules,
        content: Content,
        persistence: Persistence,
        out: &mut Vec<u8>,
    ) -> Written {
        debug_assert!(self.body.is_none(), "a large body is the last of the responses");
        let response = match http {
            Some(http) => response.with_page(&http.error_pages),
            None => response,
        };
        let (before, date) = (out.len(), self.conn.context.date());
        let large = response.write(rules, content, &date, persistence, out);
        let bytes = out.len() - before + large.as_ref().map_or(0, |bytes| bytes.len());
        self.body = large.map(LargeBody::new);
        let head = bytes - response.content_length(content);
        Written { bytes: bytes as u64, head: head as u64 }
    }

    /// Sends responses and keeps what does not fit. An error is found again by the next flush.
    pub(in crate::front::http) fn send(&mut self, out: &[u8]) {
        if !out.is_empty() && self.sender.send(&self.conn.client, out).is_err() {
            self.sender.push(out);
        }
    }

    /// Queues a response in the worker's outbox, or sends it. Nothing else may wait.
    pub(in crate::front::http) fn queue(&mut self, out: &[u8], waker: &Waker) {
        if !self.sender.queue(&self.conn.client, out, waker) {
            self.send(out);
        }
    }

    /// Sends an interim response. Returns false when the client is gone or too slow.
    pub(in crate::front::http) async fn flush_interim(&mut self) -> bool {
        loop {
            match self.send_more() {
                Ok(true) => return true,
                Ok(false) if self.watch.writable(self.conn.client.socket()).await.is_err() => {
                    return false;
                }
                Ok(false) => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits until all responses are sent. Returns false when the client is gone or is too slow.
    pub(in crate::front::http) async fn flush(&mut self) -> bool {
        let has_backlog = self.has_backlog();
        let mut has_waited = false;
        loop {
            match self.send_more() {
                Ok(true) if has_waited => {
                    self.enter(has_backlog, Moment::now());
                    return true;
                }
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => return false,
            }
            // Boxed: few connections wait here, but each would have room for this future.
            if !Box::pin(self.wait_to_write()).await {
                return false;
            }
            has_waited = true;
        }
    }

    /// Sends what is left until the socket is full. Returns true when everything is sent.
    fn send_more(&mut self) -> Result<bool, Errno> {
        // The bytes of a queued message that met an error are sent again, as a shortage of memory
        // in the kernel may be over. Any other error is found again.
        let _ = self.sender.finish_queued(&self.conn.client);
        if !self.sender.flush(&self.conn.client)? {
            return Ok(false);
        }
        while let Some(body) = &mut self.body {
            // In pieces: TLS keeps what it has encrypted and the socket does not take.
            let piece = &body.bytes[body.sent..];
            let piece = &piece[..piece.len().min(self.conn.client.piece())];
            match self.conn.client.send(piece) {
                Ok(sent) => body.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
            if body.sent == body.bytes.len() {
                self.body = None;
            }
        }
        self.conn.client.flush()
    }

    /// Waits until the client takes bytes. Returns false when it took none for too long. The
    /// connection is then set to reset, because the client has not got all bytes.
    pub(in crate::front::http) async fn wait_to_write(&mut self) -> bool {
        self.watch.on_drain(OnDrain::Wait);
        if self.state != State::Backlog {
            self.state = State::Sending;
        }
        // A limit that fired earlier does not count: its request was complete in time.
        self.watch.renew(self.between_requests());
        let result = self.watch.writable(self.conn.client.socket()).await;
        if result.is_err() {
            self.conn.client.reset_on_close();
        }
        result.is_ok()
    }
}

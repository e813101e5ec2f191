//! The time limits of a connection, and what happens when one fires.

use std::time::Duration;

use super::{Connection, Next};
use crate::config::Http;
use crate::front::listener::Listener;
use crate::front::moment::Moment;
use crate::front::response::protocol;
use crate::observe::outcome::{End, Outcome};
use crate::proto::http::response_head::Content;
use crate::proto::http::{Reject, Version};
use crate::timers::{Fired, Limit, OnDrain};

/// The limits of requests, as the configuration of the moment has them.
#[derive(Clone, Copy, Default)]
pub(in crate::front) struct Limits {
    /// See [`Http::head_timeout`].
    pub(in crate::front) head_timeout: Duration,
    /// See [`Http::keepalive_timeout`].
    pub(in crate::front) keepalive_timeout: Duration,
    /// See [`Http::max_head`].
    pub(in crate::front) max_head: usize,
}

impl Limits {
    /// Those of a listener, also after its service has ended. `None` if it has never served HTTP.
    pub(in crate::front) fn of(listener: &Listener) -> Option<Limits> {
        listener.limits()
    }
}

impl From<&Http> for Limits {
    fn from(http: &Http) -> Limits {
        let &Http { head_timeout, keepalive_timeout, max_head, .. } = http;
        Limits { head_timeout, keepalive_timeout, max_head }
    }
}

const TIMEOUT: Reject =
    Reject { status: 408, reason: "slow_head", text: "the request took too long" };

/// What the connection does at present, which decides its limit and what a drain does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing was read so far. The limit is that of a head, from the accept.
    Fresh,
    /// The first bytes were read before the connection was known to be one of HTTP.
    Begun,
    /// Between two requests. The limit is `keepalive_timeout`, and a drain ends the connection.
    Between,
    /// A request has begun, or the body of one that was answered is read and dropped. The limit is
    /// `head_timeout` from the first byte; later bytes do not extend it.
    Receiving,
    /// Complete requests wait until earlier responses are sent. The limit is that of `Sending`.
    Backlog,
    /// The client does not take its responses. It must take some within `keepalive_timeout`.
    Sending,
}

impl Connection<'_> {
    /// The limits of the moment; the last ones if the listener was removed a while ago.
    pub(super) fn limits(&self) -> Limits {
        Limits::of(&self.conn.listener).unwrap_or_default()
    }

    /// Ends the connection after a limit has fired before the request was complete.
    pub(super) fn end_by(&mut self, fired: Fired) -> Next {
        match fired {
            Fired::TimedOut(_) if !self.held.is_empty() => {
                let Some(service) = self.conn.listener.service() else {
                    let held = std::mem::take(&mut self.held);
                    return self.end_unserved(&held);
                };
                let mut out = self.scratch();
                let content = Content::for_rejected(&self.held);
                self.reject(&service, TIMEOUT, content, Moment::now(), &mut out);
                self.send(&out);
                Next::Linger
            }
            Fired::ClientReset | Fired::ClientEnded | Fired::UpstreamReset => {
                self.gone(fired.end())
            }
            Fired::Closed => self.gone(fired.end()),
            // The last response, or another request, may still be on its way: linger.
            _ if self.state != State::Fresh && self.held.is_empty() => Next::Linger,
            Fired::TimedOut(_) => Next::Drop,
            Fired::Drained => self.gone(fired.end()),
        }
    }

    /// Records an incomplete request, if there is one, of a client that is gone. A TLS session that
    /// has failed is recorded in any case.
    pub(super) fn gone(&mut self, end: End) -> Next {
        let is_failure = end == End::TlsFailed
            && self.conn.client.tls().is_some_and(|tls| tls.failure() != Some("truncated"));
        let begun = self.begun.filter(|_| !self.held.is_empty());
        if let Some(begun) = begun.or_else(|| is_failure.then(Moment::now)) {
            self.conn.record(begun, &Outcome::new(end), |record| {
                record.protocol = protocol(Version::Http11);
            });
        }
        Next::Drop
    }

    /// Enters the state that follows from what is held, and starts its limit.
    pub(super) fn enter(&mut self, has_backlog: bool, now: Moment) {
        let before = self.state;
        self.state = match (has_backlog, self.is_inside()) {
            (true, _) => State::Backlog,
            (false, true) => State::Receiving,
            (false, false) => State::Between,
        };
        let at_rest = self.state == State::Between;
        self.watch.on_drain(if at_rest { OnDrain::Idle } else { OnDrain::Wait });
        let has_begun = self.state == State::Receiving && self.begun.is_none();
        if has_begun {
            self.begun = Some(now);
        } else if self.state != State::Receiving {
            self.begun = None;
        }
        // The limit between two requests starts again also where requests came whole and the state
        // stays: by the configuration of the moment, which a reload may have changed.
        if self.state != before || has_begun || at_rest {
            self.watch.restart(match self.state {
                State::Receiving => Limit::new(self.limits().head_timeout, End::HeadTimeout),
                // No request is served any more. Connections that were idle when the service ended
                // have ended with it.
                State::Between if !self.conn.listener.has_service() => {
                    Limit::new(Duration::ZERO, End::Idle)
                }
                _ => self.between_requests(),
            });
        }
    }

    /// Returns true between two requests.
    pub(super) fn is_at_rest(&self) -> bool {
        self.state == State::Between
    }

    /// The limit between two requests, and for a client that does not take its responses.
    pub(super) fn between_requests(&self) -> Limit {
        Limit::new(self.limits().keepalive_timeout, End::Idle)
    }

    /// Returns true while a request has begun and is not complete, or a body is dropped.
    pub(super) fn is_inside(&self) -> bool {
        !self.held.is_empty() || !self.skipped.is_done()
    }
}

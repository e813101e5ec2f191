//! One HTTP/1.1 connection: what was read and not used yet, its time limits, and the responses that
//! wait to be sent.

mod answer;
mod limits;
mod output;

pub(in crate::front) use answer::misdirected;
pub(in crate::front) use limits::Limits;

use std::cell::RefMut;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::files::Wanted;
use super::proxy::Proxied;
use crate::config::{Route, Scheme};
use crate::front::accepted::Accepted;
use crate::front::moment::Moment;
use crate::front::response::Response;
use crate::front::service::Service;
use crate::front::tunnel::Upgrade;
use crate::observe::outcome::End;
use crate::proto::http::response_head::{Content as Sent, Persistence};
use crate::proto::http::{Body, BodyEnd, HeadScan, Reject, RequestKind, Scan};
use crate::relay::Sender;
use crate::sched::{Charge, SMALL};
use crate::sys::Errno;
use crate::timers::{Fired, Watch};
use limits::State;
use output::{LargeBody, Written};

/// Bytes of pipelined requests that are read in addition to the largest head.
const READ_AHEAD: usize = 16 * 1024;
/// With this many bytes of responses waiting, no more requests are answered before they are sent.
const MAX_RESPONSES: usize = 64 * 1024;
/// Bytes of an unused request body that are read. With more the connection is closed.
pub(super) const MAX_SKIPPED: u64 = 256 * 1024;

const OVERFLOW: Reject =
    Reject { status: 503, reason: "no_memory", text: "the server is out of memory for requests" };
pub(in crate::front) const TOO_LARGE: Reject =
    Reject { status: 431, reason: "head_too_large", text: "the request head is too large" };
const NOT_HTTP: Reject = Reject { status: 400, reason: "not_http", text: "this is not HTTP" };
const LINE_FEED: Reject =
    Reject { status: 400, reason: "bare_line_feed", text: "a line ends without CR" };

/// What comes after a turn.
pub(in crate::front) enum Next {
    /// Read more requests.
    Read,
    /// Close after the responses are sent. The client may still be sending.
    Linger,
    /// Drop the connection: there is nothing to send.
    Drop,
    /// Serve an upgrade.
    Tunnel(Box<Upgrade>),
    /// Pass a request on, and then read more.
    Proxy(Box<Proxied>),
    /// Wait for a file, and then read more.
    File(Box<Wanted>),
}

/// One connection between two turns.
pub(in crate::front) struct Connection<'c> {
    pub(super) conn: &'c Accepted,
    /// The scheme of its requests.
    scheme: Scheme,
    pub(super) watch: &'c Watch,
    state: State,
    /// Bytes that were read and are not used yet.
    held: Vec<u8>,
    /// Counts `held`.
    charge: Charge,
    /// How far `held` has been searched.
    scan: HeadScan,
    /// When the first byte of an incomplete request was read.
    begun: Option<Moment>,
    /// What is left of the body of a request that was answered. It is read and dropped.
    skipped: Body,
    skipped_bytes: u64,
    /// Responses that are not in the socket yet.
    sender: Sender,
    /// A large body that follows them.
    body: Option<LargeBody>,
}

/// How far a turn came through the bytes.
struct Used {
    bytes: usize,
    next: Next,
    /// Complete requests may be left, which wait until the responses so far are sent.
    has_backlog: bool,
}

impl Used {
    fn up_to(bytes: usize, next: Next) -> Used {
        Used { bytes, next, has_backlog: false }
    }
}

impl<'c> Connection<'c> {
    /// Makes a connection from which `first` was read.
    pub(in crate::front) fn new(conn: &'c Accepted, watch: &'c Watch, first: Vec<u8>) -> Self {
        let mut charge = conn.context.pool.charge();
        charge.set(first.len());
        watch.join_group(conn.listener.group());
        Connection {
            conn,
            scheme: if conn.client.tls().is_some() { Scheme::Https } else { Scheme::Http },
            watch,
            state: if first.is_empty() { State::Fresh } else { State::Begun },
            held: first,
            charge,
            scan: HeadScan::default(),
            begun: None,
            skipped: Body::NONE,
            skipped_bytes: 0,
            sender: Sender::new(&conn.context.pool, Vec::new()),
            body: None,
        }
    }

    /// Returns true when the next turn begins with a read. If not, it uses what is held.
    pub(super) fn must_read(&self) -> bool {
        !matches!(self.state, State::Backlog | State::Begun)
    }

    /// Returns true when there may be complete requests that wait until earlier responses are sent.
    pub(super) fn has_backlog(&self) -> bool {
        self.state == State::Backlog
    }

    /// Returns true when the responses of the last turn are in the outbox.
    pub(super) fn is_queued(&self) -> bool {
        self.sender.is_queued(&self.conn.client)
    }

    /// Waits until the client has sent something, or until it is known that a queued response could
    /// not be sent. The caller awaits [`Watch::consume_budget`] first.
    pub(super) async fn wait_for_input(&self) -> Result<(), Fired> {
        let mut readable = pin!(self.conn.client.readable());
        poll_fn(|cx| {
            if self.sender.has_failed(&self.conn.client) {
                return Poll::Ready(Ok(()));
            }
            self.watch.poll(readable.as_mut(), cx)
        })
        .await
    }

    /// Reads once and answers every complete request. If a limit has fired, the connection ends
    /// unless a request is complete by now: that one arrived in time.
    pub(super) fn turn(&mut self, fired: Option<Fired>, waker: &Waker) -> Next {
        let conn = self.conn;
        let mut buffer = conn.context.pool.buffer();
        let filled = match self.read(&mut buffer) {
            Ok(0) => return self.gone(End::Client),
            Ok(filled) => filled,
            Err(Errno::AGAIN) => return fired.map_or(Next::Read, |fired| self.end_by(fired)),
            // The alert of a session that has failed must arrive.
            Err(_) if self.conn.client.tls().is_some_and(|tls| tls.failure().is_some()) => {
                self.gone(End::TlsFailed);
                return Next::Linger;
            }
            Err(_) => return self.gone(End::ClientReset),
        };
        // A reload may have changed it since the last turn.
        let service = conn.listener.service().filter(|service| service.http().is_some());
        let Some(service) = service else { return self.end_unserved(&buffer[..filled]) };

        // 1. Answer what is complete.
        let now = Moment::now();
        let mut out = self.scratch();
        let Used { bytes: used, next, has_backlog } =
            self.answer_all(&service, &buffer[..filled], now, &mut out);

        // 2. Keep the rest, within the budget.
        let rest = &buffer[used..filled];
        if !self.charge.try_set(rest.len()) {
            // After the head of a large body, which is sent later, no other response can follow.
            if self.body.is_none() {
                self.reject(&service, OVERFLOW, Sent::for_rejected(rest), now, &mut out);
            }
            self.send(&out);
            return Next::Linger;
        }
        if !rest.is_empty() || !self.held.is_empty() {
            self.held = rest.to_vec();
        }

        // 3. Choose the next limit, and send.
        if matches!(next, Next::Read) {
            let is_inside = !has_backlog && self.is_inside();
            match fired {
                Some(fired @ Fired::TimedOut(_)) if out.is_empty() && is_inside => {
                    drop(out);
                    return self.end_by(fired);
                }
                // The request that arrived as the limit fired was complete in time. `enter` must
                // see a change of state, so that it starts a limit again.
                Some(_) => {
                    self.watch.renew(self.between_requests());
                    self.state = State::Sending;
                }
                None => {}
            }
            self.enter(has_backlog, now);
            if self.body.is_none() && self.sender.queue(&conn.client, &out, waker) {
                return next;
            }
        }
        self.send(&out);
        next
    }

    /// Fills the buffer with the bytes that are held and, if it must read, with new ones.
    /// Returns the number of bytes in it; 0 if the client has ended.
    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let held = self.held.len();
        buffer[..held].copy_from_slice(&self.held);
        if !self.must_read() {
            return Ok(held);
        }
        // Read less when the budget is spent, because less may be kept.
        let end = held + self.conn.context.pool.read_size();
        let end = end.min(self.limits().max_head + READ_AHEAD);
        // More may be held than a limit allows that a reload has lowered.
        let end = end.max(held + 1);
        let read = self.conn.client.recv(&mut buffer[held..end])?;
        Ok(if read == 0 { 0 } else { held + read })
    }

    /// How long the client may take no bytes.
    pub(super) fn keepalive_timeout(&self) -> Duration {
        self.limits().keepalive_timeout
    }

    /// Goes on after an exchange that has waited. `unread` is what is left of the body of its
    /// request, and `behind` was read after that body.
    pub(super) fn resume(&mut self, unread: Body, behind: Vec<u8>) {
        self.conn.rests();
        (self.skipped, self.skipped_bytes) = (unread, 0);
        self.charge.set(behind.len());
        let has_backlog = !behind.is_empty();
        self.held = behind;
        // Any other state, so that the limit starts again.
        self.state = State::Sending;
        self.watch.renew(self.between_requests());
        self.enter(has_backlog, Moment::now());
    }

    /// Sends a response with an error to a request with this route.
    pub(super) fn answer_error(
        &mut self,
        route: &Route,
        status: u16,
        line: &'static str,
        kind: RequestKind,
        persistence: Persistence,
    ) -> Written {
        let is_head = kind == RequestKind::Head;
        let content = if is_head { Sent::Announced } else { Sent::Sent };
        let mut out = self.scratch();
        let service = self.conn.listener.service();
        let http = service.as_ref().and_then(|service| service.http());
        let (response, rules) = (Response::text(status, line), &route.response_fields);
        let written = self.append(response, http, rules, content, persistence, &mut out);
        self.send(&out);
        written
    }

    /// The worker's scratch buffer for responses, emptied.
    pub(super) fn scratch(&self) -> RefMut<'c, Vec<u8>> {
        let mut out = self.conn.context.responses.borrow_mut();
        out.clear();
        out
    }

    /// Answers requests until the bytes, or the room for responses, are used up.
    fn answer_all(
        &mut self,
        service: &Service,
        bytes: &[u8],
        now: Moment,
        out: &mut Vec<u8>,
    ) -> Used {
        let mut used = 0;
        loop {
            // What is left of the body of the last request comes first.
            match self.skipped.follow(&bytes[used..]) {
                BodyEnd::At(0) => {}
                BodyEnd::At(end) => {
                    used += end;
                    // The next byte begins another request, which has its own start.
                    self.begun = None;
                }
                BodyEnd::NotYet => {
                    self.skipped_bytes += (bytes.len() - used) as u64;
                    let is_too_long = self.skipped_bytes > MAX_SKIPPED;
                    let next = if is_too_long { Next::Linger } else { Next::Read };
                    return Used::up_to(bytes.len(), next);
                }
                // Already answered: the client would match another response to its next request.
                BodyEnd::Malformed => return Used::up_to(bytes.len(), Next::Linger),
            }
            // Bound the responses of a turn: the other requests wait until these are sent.
            let is_spent = self.conn.context.pool.is_spent();
            let max_responses = if is_spent { SMALL } else { MAX_RESPONSES };
            if out.len() >= max_responses || self.body.is_some() {
                let has_backlog = used < bytes.len();
                return Used { bytes: used, next: Next::Read, has_backlog };
            }
            let (start, end) = match self.next_head(&bytes[used..]) {
                Ok(Some(head)) => head,
                Ok(None) => return Used::up_to(used, Next::Read),
                Err(reject) => {
                    let content = Sent::for_rejected(&bytes[used..]);
                    self.reject(service, reject, content, now, out);
                    return Used::up_to(bytes.len(), Next::Linger);
                }
            };
            let head = &bytes[used + start..used + end];
            let rest = &bytes[used + start..];
            used += end;
            match self.answer(service, head, rest, now, out) {
                Next::Read => {}
                next => return Used::up_to(bytes.len(), next),
            }
        }
    }

    /// The range of the next head. `None` if it is not complete.
    fn next_head(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, Reject> {
        match self.scan.advance(bytes) {
            Scan::Complete { start, end } => {
                self.scan = HeadScan::default();
                if end > self.limits().max_head { Err(TOO_LARGE) } else { Ok(Some((start, end))) }
            }
            // A head begins with a method or an empty line. Anything else, such as a TLS hello, is
            // refused without waiting for more. A hello may well have a line feed.
            _ if bytes.first().is_some_and(|&byte| !may_begin(byte)) => Err(NOT_HTTP),
            Scan::BareLineFeed => Err(LINE_FEED),
            Scan::Incomplete if bytes.len() >= self.limits().max_head => Err(TOO_LARGE),
            Scan::Incomplete => Ok(None),
        }
    }
}

/// A token character (RFC 9110 section 5.6.2) or a byte of an empty line.
fn may_begin(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"\r\n!#$%&'*+-.^_`|~".contains(&byte)
}

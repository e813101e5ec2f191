//! L7: a site. Requests are read, routed and answered; an upgrade is handed to its tunnel.
//!
//! A turn reads once into the worker's buffer and answers every complete request in it. All its
//! responses are sent by one call, which short ones share with those to other clients. Only the
//! rest (half a head, a response that does not fit the socket) is copied to the connection, so that
//! a connection that waits between two requests holds no buffer.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use super::accepted::{Accepted, Moment};
use super::answer;
use super::linger::linger;
use super::sni;
use super::tunnel::{self, Upgrade};
use super::unsent::{Sent, Unsent};
use crate::config::{Action, Http, Protocol, Tls};
use crate::observe::access_log::End;
use crate::proto::client_hello::HANDSHAKE;
use crate::proto::http::answer::{Connection, Content};
use crate::proto::http::{Body, BodyEnd, HeadScan, Reject, Request, Scan, Version, parse_request};
use crate::relay::{Charge, SMALL};
use crate::route;
use crate::sys::Errno;
use crate::timers::{Fired, OnDrain, Watch};

/// Bytes of pipelined requests that are read in addition to the largest head.
const READ_AHEAD: usize = 16 * 1024;
/// With this many bytes of responses waiting, no more requests are answered before they are sent.
const MAX_ANSWERS: usize = 64 * 1024;
/// Bytes of an unused request body that are read. With more the connection is closed.
const MAX_DRAINED: u64 = 256 * 1024;

const TIMEOUT: Reject =
    Reject { status: 408, reason: "slow_head", text: "the request took too long" };
const OVERFLOW: Reject =
    Reject { status: 503, reason: "no_memory", text: "the server is out of memory for requests" };
const TOO_LARGE: Reject =
    Reject { status: 431, reason: "head_too_large", text: "the request head is too large" };
const NOT_HTTP: Reject = Reject { status: 400, reason: "not_http", text: "this is not HTTP" };
const LINE_FEED: Reject =
    Reject { status: 400, reason: "bare_line_feed", text: "a line ends without CR" };

/// Serves a connection until it ends or becomes a tunnel.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Protocol::Http(http) = &conn.listener.config.protocol else { return };
        let watch = conn.context.timers.watch(&conn.client, http.head_timeout);
        watch.on_drain(OnDrain::Grace);
        let mut site = Site::new(&conn, http, &watch);
        let next = loop {
            let mut fired = None;
            if !site.resume {
                watch.consume_budget().await;
                fired = site.unsent.readable(&conn.client, &watch).await.err();
            } else {
                // Yield before going on: other tasks of this worker may be ready.
                conn.context.pool.yielder().yield_now().await;
                if !Box::pin(site.wait_to_write()).await {
                    return;
                }
            }
            // Responses queued in the last turn are sent by now, or must be sent before new ones.
            if !site.flush().await {
                return;
            }
            match poll_fn(|cx| Poll::Ready(site.turn(fired, cx.waker()))).await {
                Next::Read => {}
                next => break next,
            }
            if !site.unsent.is_queued() && !site.flush().await {
                return;
            }
        };
        if matches!(next, Next::Gone) || !site.flush().await {
            return;
        }
        match next {
            Next::Tunnel(upgrade) => Box::pin(tunnel::serve(&conn, &watch, *upgrade)).await,
            Next::Tls(tls, bytes) => {
                watch.renew(tls.hello_timeout);
                Box::pin(sni::serve_begun(&conn, tls, &watch, bytes)).await;
            }
            Next::Linger => linger(&conn, &watch).await,
            Next::Read | Next::Gone => {}
        }
    }
}

/// What comes after a turn.
enum Next<'c> {
    /// Read more requests.
    Read,
    /// Close after the responses are sent. The client may still be sending.
    Linger,
    /// Drop the connection: the client is gone.
    Gone,
    /// Serve an upgrade.
    Tunnel(Box<Upgrade<'c>>),
    /// Serve TLS: the connection begins with these bytes of a TLS handshake.
    Tls(&'c Tls, Vec<u8>),
}

/// One connection between two turns.
struct Site<'c> {
    conn: &'c Accepted,
    http: &'c Http,
    watch: &'c Watch,
    /// Nothing was read so far: the first byte may be that of TLS.
    fresh: bool,
    /// Bytes that were read and are not used yet.
    held: Vec<u8>,
    /// Counts `held`, and responses that the client does not read.
    charge: Charge,
    /// How far `held` has been searched.
    scan: HeadScan,
    /// `held` may have complete requests, which wait until earlier responses are sent.
    resume: bool,
    /// When the first byte of an incomplete request was read.
    begun: Option<Moment>,
    /// The rest of the body of a request that was answered.
    body: Body,
    drained: u64,
    unsent: Unsent,
    /// The limit that the watch runs.
    limit: Limit,
}

impl<'c> Site<'c> {
    fn new(conn: &'c Accepted, http: &'c Http, watch: &'c Watch) -> Self {
        Site {
            conn,
            http,
            watch,
            fresh: true,
            held: Vec::new(),
            charge: Charge::new(&conn.context.pool),
            scan: HeadScan::default(),
            resume: false,
            begun: None,
            body: Body::NONE,
            drained: 0,
            unsent: Unsent::default(),
            limit: Limit::Other,
        }
    }

    /// Reads once and answers every complete request. If a limit has fired, the connection ends
    /// unless a request is complete by now: that one arrived in time.
    fn turn(&mut self, fired: Option<Fired>, waker: &Waker) -> Next<'c> {
        let conn = self.conn;
        let mut buffer = conn.context.pool.buffer();
        let mut filled = self.held.len();
        buffer[..filled].copy_from_slice(&self.held);
        if !self.resume {
            // Read less when the budget is spent, because less may be kept.
            let end = (filled + conn.context.pool.read_size()).min(self.http.max_head + READ_AHEAD);
            match conn.client.recv(&mut buffer[filled..end]) {
                Ok(0) => return self.gone(End::Client),
                Ok(read) => filled += read,
                Err(Errno::AGAIN) => return fired.map_or(Next::Read, |fired| self.cut(fired)),
                Err(_) => return self.gone(End::ClientReset),
            }
        }
        if std::mem::take(&mut self.fresh)
            && let Some(tls) = self.http.tls.as_ref().filter(|_| buffer[0] == HANDSHAKE)
        {
            return Next::Tls(tls, buffer[..filled].to_vec());
        }
        let now = Moment::now();
        let mut answers = conn.context.answers.borrow_mut();
        answers.clear();
        let (used, next) = self.answer_all(&buffer[..filled], now, &mut answers);
        if !self.charge.try_set(filled - used) {
            // After the head of a large body, which is sent later, no other response can follow.
            if self.unsent.body.is_none() {
                let content = Content::for_rejected(&buffer[used..filled]);
                self.reject(OVERFLOW, content, now, &mut answers);
            }
            self.unsent.begin(&conn.client, &answers);
            return Next::Linger;
        }
        if used < filled {
            self.held = buffer[used..filled].to_vec();
        } else if !self.held.is_empty() {
            self.held = Vec::new();
        }
        if matches!(next, Next::Read) {
            match fired {
                Some(Fired::TimedOut) if answers.is_empty() && self.is_inside() => {
                    drop(answers);
                    return self.cut(Fired::TimedOut);
                }
                Some(_) => {
                    self.watch.renew(self.http.keepalive_timeout);
                    self.limit = Limit::Other;
                }
                None => {}
            }
            self.set_limit(now);
            if self.unsent.queue(&conn.client, &answers, conn.context.pool.outbox(), waker) {
                return next;
            }
        }
        self.unsent.begin(&conn.client, &answers);
        self.charge.set(self.held.len() + self.unsent.kept());
        next
    }

    /// Answers requests until the bytes, or the room for responses, are used up. Returns the number
    /// of bytes used.
    fn answer_all(&mut self, bytes: &[u8], now: Moment, out: &mut Vec<u8>) -> (usize, Next<'c>) {
        let mut used = 0;
        self.resume = false;
        loop {
            match self.body.follow(&bytes[used..]) {
                BodyEnd::At(0) => {}
                BodyEnd::At(end) => {
                    used += end;
                    // The next byte begins another request, which has its own start.
                    self.begun = None;
                }
                BodyEnd::NotYet => {
                    self.drained += (bytes.len() - used) as u64;
                    let enough = self.drained > MAX_DRAINED;
                    return (bytes.len(), if enough { Next::Linger } else { Next::Read });
                }
                // Already answered: the client would match another response to its next request.
                BodyEnd::Malformed => return (bytes.len(), Next::Linger),
            }
            // Bound the responses of a turn: the other requests wait until these are sent.
            let max_answers = if self.conn.context.pool.is_spent() { SMALL } else { MAX_ANSWERS };
            if out.len() >= max_answers || self.unsent.body.is_some() {
                self.resume = used < bytes.len();
                return (used, Next::Read);
            }
            let (start, end) = match self.next_head(&bytes[used..]) {
                Ok(Some(head)) => head,
                Ok(None) => return (used, Next::Read),
                Err(reject) => {
                    self.reject(reject, Content::for_rejected(&bytes[used..]), now, out);
                    return (bytes.len(), Next::Linger);
                }
            };
            let head = &bytes[used + start..used + end];
            let rest = &bytes[used + start..];
            used += end;
            match self.answer_one(head, rest, now, out) {
                Next::Read => {}
                next => return (bytes.len(), next),
            }
        }
    }

    /// The range of the next head. `None` if it is not complete.
    fn next_head(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, Reject> {
        match self.scan.advance(bytes) {
            Scan::Complete { start, end } => {
                self.scan = HeadScan::default();
                if end > self.http.max_head { Err(TOO_LARGE) } else { Ok(Some((start, end))) }
            }
            Scan::BareLineFeed => Err(LINE_FEED),
            Scan::Incomplete if bytes.len() >= self.http.max_head => Err(TOO_LARGE),
            // A head begins with a method or an empty line. Anything else, such as a TLS hello, is
            // refused without waiting for more.
            Scan::Incomplete if bytes.first().is_some_and(|&byte| !may_begin(byte)) => {
                Err(NOT_HTTP)
            }
            Scan::Incomplete => Ok(None),
        }
    }

    /// Answers one request. `rest` begins with its head and contains everything that was read after
    /// it.
    fn answer_one(&mut self, head: &[u8], rest: &[u8], now: Moment, out: &mut Vec<u8>) -> Next<'c> {
        let request = match parse_request(head, self.http.max_headers) {
            Ok(request) => request,
            Err(reject) => {
                self.reject(reject, Content::for_rejected(head), now, out);
                return Next::Linger;
            }
        };
        let start = self.begun.take().unwrap_or(now);
        let found = route::find(self.http, &request);
        if let Some(route) = found
            && let Action::Tunnel(tunnel) = &route.action
        {
            return Next::Tunnel(Box::new(Upgrade::new(
                route,
                tunnel,
                &request,
                head,
                rest,
                start,
                &self.conn.context.pool,
            )));
        }

        let end = AfterAnswer::of(&request);
        let draining = self.conn.context.draining.get();
        let connection = match request.version {
            _ if end != AfterAnswer::GoOn || draining => Connection::Close,
            Version::Http11 => Connection::Persistent,
            Version::Http10 => Connection::KeepAlive,
        };
        let before = out.len();
        let date = self.conn.context.date();
        let mut reason = None;
        let status = match found.map(|route| (route, &route.action)) {
            Some((route, Action::Redirect(redirect))) => {
                let result = answer::redirect(redirect, route, &request, &date, connection, out);
                result.unwrap_or_else(|reject| {
                    reason = Some(reject.reason);
                    reject.status
                })
            }
            Some((_, Action::Respond(respond))) => {
                self.unsent.body = answer::respond(respond, &request, &date, connection, out);
                respond.status
            }
            None if request.path == "*" => answer::options(&date, connection, out),
            Some((_, Action::Tunnel(_))) | None => {
                answer::not_found(&request, &date, connection, out)
            }
        };
        let body = self.unsent.body.as_ref().map_or(0, |body| body.len());
        self.conn.record(start, |record| {
            record.protocol = answer::protocol(request.version);
            record.method = Some(request.method);
            record.host = Some(request.host).filter(|host| !host.is_empty());
            record.path = Some(request.target);
            record.status = Some(status);
            record.reason = reason;
            record.route = found.map(|route| &*route.name);
            record.bytes_up = head.len() as u64;
            record.bytes_down = (out.len() - before + body) as u64;
        });
        self.body = request.body;
        self.drained = 0;
        match end {
            AfterAnswer::GoOn if !draining => Next::Read,
            _ => Next::Linger,
        }
    }

    /// Answers a head that is not a valid request.
    fn reject(&mut self, reject: Reject, content: Content, now: Moment, out: &mut Vec<u8>) {
        let before = out.len();
        let date = self.conn.context.date();
        answer::reject(reject, content, &date, Connection::Close, out);
        self.conn.record(self.begun.take().unwrap_or(now), |record| {
            record.protocol = answer::protocol(Version::Http11);
            record.status = Some(reject.status);
            record.reason = Some(reject.reason);
            record.bytes_down = (out.len() - before) as u64;
            record.end = match reject.status {
                408 => End::HeadTimeout,
                503 => End::Overflow,
                _ => End::BadRequest,
            };
        });
    }

    /// Ends the connection after a limit has fired before the request was complete.
    fn cut(&mut self, fired: Fired) -> Next<'c> {
        match fired {
            Fired::TimedOut if !self.held.is_empty() => {
                let mut answers = self.conn.context.answers.borrow_mut();
                answers.clear();
                let content = Content::for_rejected(&self.held);
                self.reject(TIMEOUT, content, Moment::now(), &mut answers);
                self.unsent.begin(&self.conn.client, &answers);
                Next::Linger
            }
            Fired::ClientReset | Fired::UpstreamReset => self.gone(End::ClientReset),
            // The last response, or another request, may still be on its way: linger.
            _ if !self.fresh && self.held.is_empty() => Next::Linger,
            Fired::TimedOut => Next::Gone,
            Fired::Drained => self.gone(End::Drain),
        }
    }

    /// Records an incomplete request, if there is one, of a client that is gone.
    fn gone(&mut self, end: End) -> Next<'c> {
        if let Some(begun) = self.begun.filter(|_| !self.held.is_empty()) {
            self.conn.record(begun, |record| {
                record.protocol = answer::protocol(Version::Http11);
                record.end = end;
            });
        }
        Next::Gone
    }

    /// Starts the limit that fits the state: that of a head, which runs from the first byte and is
    /// not extended by later ones, or that between two requests.
    fn set_limit(&mut self, now: Moment) {
        let inside = self.is_inside();
        let limit = if inside { Limit::Head } else { Limit::Between };
        let at_rest = !inside && !self.resume;
        self.watch.on_drain(if at_rest { OnDrain::Now } else { OnDrain::Wait });
        if inside && self.begun.is_none() {
            (self.begun, self.limit) = (Some(now), Limit::Other);
        } else if !inside {
            self.begun = None;
        }
        if limit == self.limit {
            if limit == Limit::Between {
                self.watch.touch();
            }
            return;
        }
        self.limit = limit;
        let http = self.http;
        self.watch.restart(if inside { http.head_timeout } else { http.keepalive_timeout });
    }

    /// Returns true while a request has begun and is not complete.
    fn is_inside(&self) -> bool {
        !self.resume && !self.held.is_empty() || !self.body.is_done()
    }

    /// Waits until all responses are sent. Returns false when the client is gone or is too slow.
    async fn flush(&mut self) -> bool {
        let mut waited = false;
        loop {
            match self.unsent.send(&self.conn.client) {
                Sent::All => {
                    self.charge.set(self.held.len());
                    if waited {
                        self.set_limit(Moment::now());
                    }
                    return true;
                }
                Sent::Failed => return false,
                Sent::Some => {}
            }
            // Boxed: few connections wait here, but each would have room for this future.
            if !Box::pin(self.wait_to_write()).await {
                return false;
            }
            waited = true;
        }
    }

    /// Waits until the client takes bytes. Returns false when it took none for too long. The
    /// connection is then set to reset, because the client has not got all bytes.
    async fn wait_to_write(&mut self) -> bool {
        self.watch.on_drain(OnDrain::Wait);
        self.limit = Limit::Other;
        // A limit that fired earlier does not count: its request was complete in time.
        self.watch.renew(self.http.keepalive_timeout);
        let result = self.watch.writable(&self.conn.client).await;
        if result.is_err() {
            self.conn.client.reset_on_close();
        }
        result.is_ok()
    }
}

/// The limit that the watch of a connection runs.
#[derive(PartialEq, Eq)]
enum Limit {
    /// That of a head, or of a body that is read only to be dropped.
    Head,
    /// That between two requests.
    Between,
    /// Another one: the first, or that of a client that does not read.
    Other,
}

/// What follows an answer, as far as the request decides it.
#[derive(PartialEq, Eq)]
enum AfterAnswer {
    GoOn,
    Close,
    /// The client may be about to send a body that is not read.
    Abandon,
}

impl AfterAnswer {
    fn of(request: &Request<'_>) -> AfterAnswer {
        match request.body {
            // A client that waits for a 100 may or may not send its body, so the next bytes are
            // ambiguous.
            _ if request.expects_continue && !request.body.is_done() => AfterAnswer::Abandon,
            Body::Length(length) if length > MAX_DRAINED => AfterAnswer::Abandon,
            _ if !request.keep_alive => AfterAnswer::Close,
            _ => AfterAnswer::GoOn,
        }
    }
}

/// A token character (RFC 9110 section 5.6.2) or the CR of an empty line.
fn may_begin(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"\r!#$%&'*+-.^_`|~".contains(&byte)
}

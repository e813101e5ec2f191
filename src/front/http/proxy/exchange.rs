//! One exchange with a cluster: the request goes out, the response comes back.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::request::Proxied;
use super::response::{Form, Transfer, write_head, write_interim};
use super::upload::{Sent, beside, is_whole, send};
use crate::cluster::{Cluster, ConnectFailure, Lease};
use crate::front::http::connection::{Connection, Next};
use crate::front::response::status_for;
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::http::response_head::{Persistence, reason_phrase};
use crate::proto::http::{Body, Reject, Response, Version};
use crate::relay::{self, Broken, Flow};
use crate::timers::{Fired, Limit, OnDrain};
use crate::upstream::{Connection as Upstream, Failure, Heads};

const TOO_LARGE: Reject =
    Reject { status: 413, reason: "body_too_large", text: "the request body is too large" };
const BAD_BODY: Reject =
    Reject { status: 400, reason: "bad_chunks", text: "the chunks of the request are malformed" };
const SLOW_BODY: Reject =
    Reject { status: 408, reason: "slow_body", text: "the request body took too long" };

/// A response that was passed on, as far as it came.
pub(in crate::front) struct Passed {
    pub(in crate::front) status: u16,
    pub(in crate::front) end: End,
    pub(in crate::front) persistence: Persistence,
    /// Bytes that the client got, and those of its head.
    pub(in crate::front) bytes: u64,
    pub(in crate::front) head: u64,
    /// Whether the body was spliced, or why it was not.
    pub(in crate::front) relay: Result<(), Copied>,
    /// Whether the upstream's connection can have another request.
    pub(in crate::front) is_reusable: bool,
}

/// Why there is no response.
pub(in crate::front) enum Missing {
    /// The upstream has sent none.
    Upstream(Failure),
    /// The request could not be sent.
    Client(Sent),
}

impl<'c> Connection<'c> {
    /// Passes a request on, and its response back. Returns what comes after it.
    pub(in crate::front::http) async fn proxy(&mut self, request: &Proxied<'c>) -> Next<'c> {
        let conn = self.conn;
        self.watch.on_drain(OnDrain::Wait);
        let cluster = Rc::clone(conn.listener.cluster(&request.proxy.cluster));
        let mut may_reuse = true;
        loop {
            let lease = match conn.connect_to(&cluster, may_reuse).await {
                Ok(lease) => lease,
                Err(failure) => {
                    if let ConnectFailure::Local(_) = failure {
                        conn.context.shortage.answered();
                    }
                    let (is_sent, behind) = (request.is_bodyless(), request.behind.clone());
                    return self.fail(request, failure.outcome(), None, is_sent.then_some(behind));
                }
            };
            // Only a connection that was idle can be lost, so there is a second attempt at most.
            match self.exchange(request, lease, &cluster).await {
                Some(next) => return next,
                None => {
                    may_reuse = false;
                    request.retries.set(request.retries.get() + 1);
                }
            }
        }
    }

    /// Sends the request and passes the response on. `None` if the endpoint has closed a connection
    /// that was idle, and the request can be sent again.
    async fn exchange(
        &mut self,
        request: &Proxied<'c>,
        mut lease: Lease,
        cluster: &Cluster,
    ) -> Option<Next<'c>> {
        let (conn, watch) = (self.conn, self.watch);
        let pool = &conn.context.pool;
        watch.set_upstream(Some(lease.upstream.socket()));
        watch.renew(Limit::new(request.proxy.response_timeout, End::ResponseTimeout));
        let transport = lease.upstream.clone();
        let upstream = Upstream::new(&transport, pool, watch);
        let mut heads = Heads::new(pool.charge(), request.kind);
        let mut up = request.flow(pool);
        poll_fn(|cx| {
            request.begin(&mut up, |up, head| up.queue(&transport, head, cx.waker()));
            Poll::Ready(())
        })
        .await;

        // 1. Send the request, and pass the response on. The client is not read once it has sent
        // its body, so the watch looks for a reset of it.
        let stall = watch.stall();
        let (mut sent, sent_at) = (None, Cell::new(Instant::now()));
        let result = {
            let sending = pin!(async {
                let sent = send(&mut up, &conn.client, &upstream).await;
                sent_at.set(Instant::now());
                sent
            });
            self.pass(request, &upstream, &mut heads, sending, &mut sent).await
        };
        drop(stall);
        watch.set_upstream(None);
        let is_sent = is_whole(&up, &transport);
        let mut outcome = outcome_of(&mut lease, up.bytes());
        outcome.first_byte = heads.begun().map(|at| at.saturating_duration_since(sent_at.get()));

        // 2. End the exchange.
        let passed = match result {
            Ok(passed) => passed,
            Err(missing) => {
                let is_lost = lease.is_reused && heads.begun().is_none() && missing.is_loss();
                if is_lost && request.may_repeat() {
                    return None;
                }
                drop(lease);
                // The client is slow only if the upstream has taken all that came.
                let is_waited_for = is_sent || sent.is_some() || up.has_unsent(&transport);
                let reject = missing.reject(is_waited_for);
                outcome.end = missing.end(reject);
                let behind = is_sent.then(|| behind(request, &mut up));
                return Some(self.fail(request, outcome, reject, behind));
            }
        };
        (outcome.end, outcome.status) = (passed.end, Some(passed.status));
        (outcome.upstream_status, outcome.retries) = (outcome.status, Some(request.retries.get()));
        (outcome.bytes_down, outcome.head_down) = (passed.bytes, passed.head);
        let is_plain = conn.client.plain().is_some() && transport.plain().is_some();
        let copied = if up.bytes() > passed.bytes { up.why_copied() } else { passed.relay.err() };
        outcome.copied = copied.map(|why| if is_plain { why } else { Copied::Tls });
        let is_spliced = passed.relay.is_ok() || up.spliced();
        outcome.relay = if is_spliced { Relay::Splice } else { Relay::Copy };
        conn.record(request.start, &outcome, |record| request.describe(record));
        if passed.end != End::Done {
            relay::cut_off(&conn.client, &transport);
            return Some(Next::Drop);
        }
        if passed.is_reusable && is_sent && !conn.context.draining.get() {
            cluster.keep(lease, &conn.listener.config.socket, &conn.context.timers);
        }
        Some(self.go_on(request, passed.persistence, is_sent, &mut up))
    }

    /// Reads the head of the response, and passes it on with the body. `sending` runs beside it.
    async fn pass(
        &mut self,
        request: &Proxied<'c>,
        upstream: &Upstream<'_>,
        heads: &mut Heads,
        mut sending: Pin<&mut impl Future<Output = Sent>>,
        sent: &mut Option<Sent>,
    ) -> Result<Passed, Missing> {
        // 1. Read the head.
        let (conn, watch) = (self.conn, self.watch);
        let reading = self.read_final(request, upstream, heads);
        let result = beside(reading, sending.as_mut(), sent).await;
        let (head, length) = result.map_err(Missing::Client)?.map_err(Missing::Upstream)?;
        // A client that waits for a 100 may or may not send its body: what comes next is ambiguous.
        // The rest of a body of chunks is not followed here.
        let is_sent = request.is_bodyless() || *sent == Some(Sent::Whole);
        let has_length = matches!(request.body, Body::Length(_));
        let is_clear = is_sent || (has_length && !request.expects_continue);
        let may_persist = request.is_persistent && is_clear && !conn.context.draining.get();
        let form = Form::of(&head, request, may_persist);
        let mut passed = Passed {
            status: head.status,
            end: End::Done,
            persistence: form.persistence,
            bytes: 0,
            head: 0,
            relay: Err(Copied::FewBytes),
            is_reusable: head.is_persistent,
        };

        // 2. If the whole response is here, give it to the outbox.
        let bytes = heads.bytes();
        let rest = (bytes.len() - length) as u64;
        let whole = match form.transfer {
            Transfer::Nothing => Some(0),
            Transfer::Length(body) if body <= rest => Some(body),
            _ => None,
        };
        if let Some(body) = whole {
            passed.is_reusable &= rest == body;
            // The cast is exact: the body is a part of a slice.
            let all = &bytes[..length + body as usize];
            let respond = |waker: &Waker| self.respond_whole(request, form, all, length, waker);
            let mut respond = respond;
            let written = poll_fn(|cx| Poll::Ready(respond(cx.waker()))).await;
            passed.bytes = written.ok_or(Missing::Upstream(Failure::Malformed))?;
            passed.head = passed.bytes - body;
            return Ok(passed);
        }

        // 3. If not, send what is here, and the rest of the body as it comes.
        let mut down = form.flow(&conn.context.pool);
        let mut out = Vec::with_capacity(length + 128);
        write_head(&bytes[..length], form, request, &conn.context.date(), &mut out)
            .ok_or(Missing::Upstream(Failure::Malformed))?;
        passed.head = out.len() as u64;
        down.push(&out);
        down.begin_with(&bytes[length..]);
        if let Transfer::Length(body) = form.transfer {
            down.allow(body - rest);
        }
        heads.clear();
        watch.renew(Limit::new(request.proxy.idle_timeout, End::Idle));
        let passing = down.run(upstream.transport, &conn.client, watch);
        let result = beside(passing, sending, sent).await;
        passed.end = end_of(result, form, &down);
        passed.bytes = down.bytes();
        passed.is_reusable &= down.take_behind().is_empty();
        passed.relay = down.why_copied().map_or(Ok(()), Err);
        Ok(passed)
    }

    /// Reads the head of the final response. Passes interim responses on, those apart that the
    /// client cannot understand: HTTP/1.0 has none (RFC 9110 section 15.2), and a 100 is for
    /// clients that wait for it.
    async fn read_final(
        &mut self,
        request: &Proxied<'c>,
        upstream: &Upstream<'_>,
        heads: &mut Heads,
    ) -> Result<(Response, usize), Failure> {
        loop {
            let (head, length) = upstream.read_head(heads).await?;
            if !head.is_interim() {
                return Ok((head, length));
            }
            let is_wanted = head.status != 100 || request.expects_continue;
            if request.asked.version() == Version::Http11 && is_wanted {
                let mut out = Vec::with_capacity(length);
                write_interim(&heads.bytes()[..length], &mut out).ok_or(Failure::Malformed)?;
                self.send(&out);
                if !self.flush_interim().await {
                    return Err(Failure::Fired(Fired::ClientReset));
                }
            }
            heads.drop_head(length);
        }
    }

    /// Sends a response that has been read whole. Returns its length; `None` if its head cannot be
    /// passed on.
    fn respond_whole(
        &mut self,
        request: &Proxied<'c>,
        form: Form,
        response: &[u8],
        head: usize,
        waker: &Waker,
    ) -> Option<u64> {
        let date = self.conn.context.date();
        let mut out = self.scratch();
        write_head(&response[..head], form, request, &date, &mut out)?;
        out.extend_from_slice(&response[head..]);
        self.queue(&out, waker);
        Some(out.len() as u64)
    }

    /// Prepares the connection for what follows a response that was passed on.
    fn go_on(
        &mut self,
        request: &Proxied<'c>,
        persistence: Persistence,
        is_sent: bool,
        up: &mut Flow,
    ) -> Next<'c> {
        if persistence == Persistence::Close || (!is_sent && up.is_coded()) {
            return Next::Linger;
        }
        // What the client still sends of its body is read and dropped.
        let unread = if is_sent { Body::NONE } else { Body::Length(up.allowed()) };
        self.resume(unread, behind(request, up));
        Next::Read
    }

    /// Answers a request that has no response, and writes its record. Without `reject` the end of
    /// the outcome chooses the status. `behind` is what was read after the request, if all of that
    /// was read.
    fn fail(
        &mut self,
        request: &Proxied<'c>,
        mut outcome: Outcome,
        reject: Option<Reject>,
        behind: Option<Vec<u8>>,
    ) -> Next<'c> {
        let conn = self.conn;
        outcome.retries = Some(request.retries.get());
        let status = reject.map(|reject| reject.status).or_else(|| status_for(outcome.end));
        let Some(status) = status else {
            conn.record(request.start, &outcome, |record| request.describe(record));
            conn.client.reset_on_close();
            return Next::Drop;
        };
        let behind = behind.filter(|_| request.is_persistent && !conn.context.draining.get());
        let persistence = match request.asked.version() {
            _ if behind.is_none() => Persistence::Close,
            Version::Http11 => Persistence::Persistent,
            Version::Http10 => Persistence::KeepAlive,
        };
        let line = reject.map_or_else(|| reason_phrase(status), |reject| reject.text);
        let written = self.answer_error(request.route, status, line, request.kind, persistence);
        (outcome.bytes_down, outcome.head_down) = (written.bytes, written.head);
        (outcome.status, outcome.reason) = (Some(status), reject.map(|reject| reject.reason));
        conn.record(request.start, &outcome, |record| request.describe(record));
        let Some(behind) = behind else { return Next::Linger };
        self.resume(Body::NONE, behind);
        Next::Read
    }
}

impl Missing {
    /// Returns true if the endpoint may have closed the connection before it got the request.
    pub(in crate::front) fn is_loss(&self) -> bool {
        matches!(self, Missing::Upstream(Failure::Closed | Failure::Reset))
    }

    /// The response to a request that is the cause itself. `is_waited_for` is true if the upstream
    /// had its turn.
    pub(in crate::front) fn reject(&self, is_waited_for: bool) -> Option<Reject> {
        match self {
            Missing::Client(Sent::TooLarge) => Some(TOO_LARGE),
            Missing::Client(Sent::Broken(End::BadRequest)) => Some(BAD_BODY),
            Missing::Upstream(Failure::Fired(Fired::TimedOut(_))) if !is_waited_for => {
                Some(SLOW_BODY)
            }
            _ => None,
        }
    }

    pub(in crate::front) fn end(&self, reject: Option<Reject>) -> End {
        match (self, reject) {
            (_, Some(reject)) if reject.status == 408 => End::HeadTimeout,
            (_, Some(_)) => End::BadRequest,
            (Missing::Upstream(failure), None) => failure.end(),
            (Missing::Client(Sent::Broken(end)), None) => *end,
            (Missing::Client(_), None) => End::BadRequest,
        }
    }
}

/// How the passing of a body has ended.
fn end_of(result: Result<Result<(), Broken>, Sent>, form: Form, down: &Flow) -> End {
    match result {
        Ok(Ok(())) if form.is_complete(down) => End::Done,
        Ok(Ok(())) if down.has_protocol_error() => End::BadResponse,
        // The upstream has ended in the middle of the body.
        Ok(Ok(())) => End::Upstream,
        Ok(Err(Broken::From(_))) => End::UpstreamReset,
        Ok(Err(Broken::To(_))) => End::ClientReset,
        Ok(Err(Broken::Fired(fired))) => fired.end(),
        Err(Sent::Broken(end)) => end,
        Err(_) => End::BadRequest,
    }
}

/// What was read after the request.
fn behind(request: &Proxied<'_>, up: &mut Flow) -> Vec<u8> {
    if up.is_coded() { up.take_behind() } else { request.behind.clone() }
}

/// What is known before the response.
pub(in crate::front) fn outcome_of(lease: &mut Lease, bytes_up: u64) -> Outcome {
    let mut outcome = Outcome {
        endpoint: Some(Rc::clone(&lease.endpoint.address)),
        connect: Some(lease.connect),
        is_reused: Some(lease.is_reused),
        bytes_up,
        ..Outcome::new(End::Done)
    };
    std::mem::take(&mut lease.tried).note(&mut outcome);
    outcome
}

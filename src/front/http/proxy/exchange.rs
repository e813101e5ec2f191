//! One exchange with a cluster: the request goes out, the response comes back. Its steps are the
//! same for each version of HTTP; what differs is behind [`Client`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::request::Proxied;
use super::upload::{Sent, beside, is_whole};
use crate::cluster::{Cluster, ConnectFailure, Lease};
use crate::front::accepted::Accepted;
use crate::front::response::status_for;
use crate::observe::live::{Activity, Direction};
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::codec::Stack;
use crate::proto::http::response_head::{Persistence, reason_phrase};
use crate::proto::http::{Reject, Response, Version};
use crate::relay::Flow;
use crate::timers::{Fired, Limit, Watch};
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

/// The client's side of an exchange: what differs between the versions of HTTP.
pub(in crate::front) trait Client {
    /// Where the body of the request comes from.
    type Body;
    /// What comes after the exchange.
    type Next;

    /// Makes the codec that gives a body without a length its chunks.
    fn chunks(limit: u64) -> Stack;

    /// Sends what `up` begins with, and the body of the request. May be dropped at any await and
    /// called again.
    fn upload(
        body: &mut Self::Body,
        up: &mut Flow,
        upstream: &Upstream<'_>,
    ) -> impl Future<Output = Sent>;

    /// Ready when the client does not want the response any more and the watch cannot find out. If
    /// not, the waker is called when that happens.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Passes an interim head on.
    async fn pass_interim(&mut self, head: &[u8]) -> Result<(), Failure>;

    /// Passes the final response on. `heads` begins with its head, which has `length` bytes.
    /// `sending` runs beside it.
    async fn pass(
        &mut self,
        exchange: &Exchange<'_>,
        upstream: &Upstream<'_>,
        heads: &mut Heads,
        response: (Response, usize),
        sending: Pin<&mut impl Future<Output = Sent>>,
        sent: &mut Option<Sent>,
    ) -> Result<Passed, Missing>;

    /// Ends an exchange whose response was passed on, as far as it came.
    fn go_on(
        &mut self,
        request: &Proxied,
        passed: &Passed,
        is_sent: bool,
        up: &mut Flow,
    ) -> Self::Next;

    /// Sends an error in place of the response, and notes its length. `behind` is what was read
    /// after the request, if all of that was read.
    fn send_error(
        &mut self,
        request: &Proxied,
        status: u16,
        line: &'static str,
        behind: Option<Vec<u8>>,
        outcome: &mut Outcome,
    ) -> Self::Next;

    /// Ends an exchange without a response.
    fn abandon(&mut self) -> Self::Next;
}

/// A request, and what it is passed on with.
#[derive(Clone, Copy)]
pub(in crate::front) struct Exchange<'a> {
    pub(in crate::front) conn: &'a Accepted,
    pub(in crate::front) watch: &'a Watch,
    pub(in crate::front) request: &'a Proxied,
}

impl Exchange<'_> {
    /// Passes the request on, and its response back. Returns what comes after it.
    pub(in crate::front) async fn run<C: Client>(
        &self,
        client: &mut C,
        body: &mut C::Body,
    ) -> C::Next {
        let &Exchange { conn, request, .. } = self;
        let cluster = Rc::clone(request.cluster());
        let mut may_reuse = true;
        loop {
            let lease = match conn.connect_to(&cluster, may_reuse).await {
                Ok(lease) => lease,
                Err(failure) => {
                    if let ConnectFailure::Local(_) = failure {
                        conn.context.shortage.answered();
                    }
                    let (is_sent, behind) = (request.is_bodyless(), request.behind.clone());
                    let behind = is_sent.then_some(behind);
                    return self.fail(client, failure.outcome(), None, behind);
                }
            };
            // Only a connection that was idle can be lost, so there is a second attempt at most.
            match self.attempt(client, body, lease, &cluster).await {
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
    async fn attempt<C: Client>(
        &self,
        client: &mut C,
        body: &mut C::Body,
        mut lease: Lease,
        cluster: &Cluster,
    ) -> Option<C::Next> {
        let &Exchange { conn, watch, request } = self;
        let pool = &conn.context.pool;
        conn.reaches(Activity::Request, cluster, &lease);
        watch.renew(Limit::new(request.proxy().response_timeout, End::ResponseTimeout));
        let transport = lease.upstream.clone();
        let upstream = Upstream::new(&transport, pool, watch);
        let mut heads = Heads::new(pool.charge(), request.kind);
        let mut up = request.flow(pool, C::chunks);
        up.count_as(Direction::Up);
        poll_fn(|cx| {
            request.begin(&mut up, |up, head| up.queue(&transport, head, cx.waker()));
            Poll::Ready(())
        })
        .await;
        up.report(watch);

        // 1. Send the request, and pass the response on. The client is not read once it has sent
        // its body, so the watch finds out whether it has left. It does not look for a reset of the
        // upstream: what had arrived before can still be read, and reads and writes find the reset.
        let stall = watch.stall_while_client_waits();
        let (mut sent, sent_at) = (None, Cell::new(Instant::now()));
        let response = {
            let sending = pin!(upload::<C>(body, &mut up, &upstream, &sent_at));
            let reading = self.read_final(client, &upstream, &mut heads);
            beside(reading, sending, &mut sent).await.map_err(Missing::Client)
        };
        request.left.set(up.allowed());
        let result = match response.and_then(|response| response.map_err(Missing::Upstream)) {
            Ok(response) => {
                let sending = pin!(upload::<C>(body, &mut up, &upstream, &sent_at));
                client.pass(self, &upstream, &mut heads, response, sending, &mut sent).await
            }
            Err(missing) => Err(missing),
        };
        drop(stall);
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
                return Some(self.fail(client, outcome, reject, behind));
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
        outcome.counted = watch.take_counted();
        conn.record(request.start, &outcome, |record| request.describe(record));
        // While a drain is to come, other clients still need the connection.
        let is_last = conn.context.draining.get() || conn.listener.is_removed();
        if passed.end != End::Done {
            transport.reset_on_close();
        } else if passed.is_reusable && is_sent && !is_last {
            cluster.keep(lease, &conn.context.timers);
        }
        Some(client.go_on(request, &passed, is_sent, &mut up))
    }

    /// Reads the head of the final response, and returns it with its length. Passes interim
    /// responses on, those apart that the client cannot understand: HTTP/1.0 has none (RFC 9110
    /// section 15.2), and a 100 is for clients that wait for it.
    async fn read_final<C: Client>(
        &self,
        client: &mut C,
        upstream: &Upstream<'_>,
        heads: &mut Heads,
    ) -> Result<(Response, usize), Failure> {
        let request = self.request;
        loop {
            let (head, length) = {
                let mut reading = pin!(upstream.read_head(heads));
                poll_fn(|cx| match client.poll_gone(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(Failure::Fired(Fired::ClientReset))),
                    Poll::Pending => reading.as_mut().poll(cx),
                })
                .await?
            };
            if !head.is_interim() {
                return Ok((head, length));
            }
            let is_wanted = head.status != 100 || request.expects_continue;
            if request.asked.version() == Version::Http11 && is_wanted {
                client.pass_interim(&heads.bytes()[..length]).await?;
            }
            heads.drop_head(length);
        }
    }

    /// Answers a request that has no response, and writes its record. Without `reject` the end of
    /// the outcome chooses the status. `behind` is as in [`Client::send_error`].
    fn fail<C: Client>(
        &self,
        client: &mut C,
        mut outcome: Outcome,
        reject: Option<Reject>,
        behind: Option<Vec<u8>>,
    ) -> C::Next {
        let request = self.request;
        outcome.retries = Some(request.retries.get());
        outcome.counted = self.watch.take_counted();
        let status = reject.map(|reject| reject.status).or_else(|| status_for(outcome.end));
        let next = match status {
            None => client.abandon(),
            Some(status) => {
                let line = reject.map_or_else(|| reason_phrase(status), |reject| reject.text);
                let reason = reject.map(|reject| reject.reason);
                (outcome.status, outcome.reason) = (Some(status), reason);
                let next = client.send_error(request, status, line, behind, &mut outcome);
                outcome.own_down = outcome.bytes_down;
                next
            }
        };
        self.conn.record(request.start, &outcome, |record| request.describe(record));
        next
    }
}

impl Missing {
    /// Returns true if the endpoint may have closed the connection before it got the request.
    fn is_loss(&self) -> bool {
        matches!(self, Missing::Upstream(Failure::Closed | Failure::Reset))
    }

    /// The response to a request that is the cause itself. `is_waited_for` is true if the upstream
    /// had its turn.
    fn reject(&self, is_waited_for: bool) -> Option<Reject> {
        match self {
            Missing::Client(Sent::TooLarge) => Some(TOO_LARGE),
            Missing::Client(Sent::Broken(End::BadRequest)) => Some(BAD_BODY),
            Missing::Upstream(Failure::Fired(Fired::TimedOut(_))) if !is_waited_for => {
                Some(SLOW_BODY)
            }
            _ => None,
        }
    }

    fn end(&self, reject: Option<Reject>) -> End {
        match (self, reject) {
            (_, Some(reject)) if reject.status == 408 => End::BodyTimeout,
            (_, Some(_)) => End::BadRequest,
            (Missing::Upstream(failure), None) => failure.end(),
            (Missing::Client(Sent::Broken(end)), None) => *end,
            (Missing::Client(_), None) => End::BadRequest,
        }
    }
}

/// Sends the request, and notes when that has ended.
async fn upload<C: Client>(
    body: &mut C::Body,
    up: &mut Flow,
    upstream: &Upstream<'_>,
    sent_at: &Cell<Instant>,
) -> Sent {
    let sent = C::upload(body, up, upstream).await;
    sent_at.set(Instant::now());
    sent
}

/// What was read after the request.
pub(super) fn behind(request: &Proxied, up: &mut Flow) -> Vec<u8> {
    if up.is_coded() { up.take_behind() } else { request.behind.clone() }
}

/// What is known before the response.
fn outcome_of(lease: &mut Lease, bytes_up: u64) -> Outcome {
    let mut outcome = Outcome {
        endpoint: Some(Rc::clone(&lease.endpoint.address)),
        used: Some(Rc::clone(&lease.endpoint.counters)),
        connect: Some(lease.connect),
        is_reused: Some(lease.is_reused),
        bytes_up,
        ..Outcome::new(End::Done)
    };
    std::mem::take(&mut lease.tried).note(&mut outcome);
    outcome
}

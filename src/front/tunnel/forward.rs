//! A tunnel whose handshake is forwarded, followed by the same relay as L4.
//!
//! Bytes after the head need care. A stock obfs-server sends its 101 only together with bytes that
//! follow it, and it has such bytes only after the client's payload has reached it. Holding the
//! payload until the 101 is a deadlock. But a server that does not upgrade takes bytes before a 101
//! for a second request. So `early_data` tells which kind of server the route has. Without it the
//! upstream gets nothing beyond the announced body before it has agreed.

use std::rc::Rc;

use super::Upgrade;
use super::hold::{ClientLeft, send_then_hold, unless_client_leaves};
use crate::cluster::ConnectFailure;
use crate::config::FieldRules;
use crate::front::accepted::{Accepted, relayed};
use crate::front::http::Limits;
use crate::front::linger::linger;
use crate::front::response::{Response as OwnResponse, status_for};
use crate::observe::live::{Activity, Direction};
use crate::observe::outcome::{End, Outcome};
use crate::proto::http::forward::{self, Framing, Rules, write_response};
use crate::proto::http::response_head::{Content, Persistence, reason_phrase};
use crate::proto::http::{Body, Hop};
use crate::relay::{self, Flow, Pool};
use crate::timers::{Limit, OnDrain, Watch};
use crate::upstream::{Connection, Failure, Response};

/// Forwards the handshake, relays, and writes the record.
pub(super) async fn serve(conn: &Accepted, watch: &Watch, mut upgrade: Upgrade, early_data: bool) {
    let (client, pool) = (&conn.client, &conn.context.pool);
    let timeouts = upgrade.timeouts;

    // 1. Connect. The attempts have their own limits.
    watch.on_drain(OnDrain::Wait);
    let lease = match Box::pin(conn.connect(upgrade.live.cluster())).await {
        Ok(lease) => lease,
        Err(failure) => return upgrade.refuse(conn, watch, failure).await,
    };
    conn.reaches(Activity::Forward, upgrade.live.cluster(), &lease);
    watch.set_upstream(Some(lease.upstream.socket()));
    watch.set_tcp_keepalive(conn.listener.tcp_keepalive());
    watch.renew(Limit::new(upgrade.response_timeout, End::ResponseTimeout));

    // 2. Send the head, and the payload that may go with it, in one write. Read the response
    // meanwhile. Boxed, so that the long-lived future of the relay stays small.
    let (mut up, mut held) = upgrade.split(pool, early_data);
    up.count_as(Direction::Up);
    let upstream = Connection::new(&lease.upstream, pool, watch);
    let sending = send_then_hold(client, &upstream, &mut up, &mut held);
    let result = Box::pin(unless_client_leaves(upstream.read_response(), sending)).await;
    let mut down = Flow::new(pool, Vec::new());
    down.count_as(Direction::Down);
    let response = match check(result, early_data) {
        Ok(response) => response,
        Err(end) => {
            if end == End::ClientReset {
                relay::cut_off(client, &lease.upstream);
            }
            return upgrade.fail(conn, watch, relayed(conn, watch, lease, (&up, &down), end)).await;
        }
    };

    // 3. After a 101, send the bytes that were held and relay.
    watch.renew(Limit::new(timeouts.idle, End::Idle));
    let status = response.head.status;
    if status == 101 {
        up.allow(u64::MAX);
        up.push(&held);
        down.push(response.bytes());
        let head_down = response.head_bytes().len() as u64;
        // The flows have their own copies. An idle tunnel must hold no buffer.
        drop((held, response));
        let (upstream, half_closed) = (&lease.upstream, timeouts.half_closed);
        let tunnel = conn.listener.counters.tunnels.guard();
        let end = relay::run(client, upstream, &mut up, &mut down, watch, half_closed).await;
        drop(tunnel);
        watch.set_upstream(None);
        let outcome = relayed(conn, watch, lease, (&up, &down), end);
        let (status, upstream_status) = (Some(status), Some(status));
        return upgrade.record(conn, Outcome { status, upstream_status, head_down, ..outcome });
    }

    // 4. Pass any other response on as plain HTTP. The bytes that were held are not sent: the
    // upstream would take them for a second request.
    drop(held);
    let Some(head) = upgrade.closing_head(conn, &response) else {
        let outcome = relayed(conn, watch, lease, (&up, &down), End::BadResponse);
        return upgrade.fail(conn, watch, outcome).await;
    };
    down.push(&head);
    // What has arrived before a reset of the upstream goes on, too.
    watch.set_upstream(None);
    let end = upstream.pass_body(response, client, &mut down).await;
    let outcome = relayed(conn, watch, lease, (&up, &down), end);
    let (status, upstream_status) = (Some(status), Some(status));
    let head_down = head.len() as u64;
    upgrade.record(conn, Outcome { status, upstream_status, head_down, ..outcome });
    if end == End::Done {
        linger(conn, watch).await;
    } else {
        // A body without a length ends with the connection. A reset shows that this one is
        // incomplete.
        conn.client.reset_on_close();
    }
}

/// Returns the response if it may be passed on: if it is a 101, it must switch to WebSocket.
/// Another protocol could carry requests that bypass the routes. With `may_be_bare`, which is for
/// obfs-servers, a 101 needs no `Upgrade`.
///
/// # Errors
/// How the outcome ends.
fn check(
    result: Result<Result<Response, Failure>, ClientLeft>,
    may_be_bare: bool,
) -> Result<Response, End> {
    match result {
        Ok(Ok(response))
            if response.head.status != 101 || response.head.switches_to_websocket(may_be_bare) =>
        {
            Ok(response)
        }
        Ok(Ok(_)) => Err(End::BadResponse),
        Ok(Err(failure)) => Err(failure.end()),
        Err(ClientLeft::Reset) => Err(End::ClientReset),
        Err(ClientLeft::Ended) => Err(End::Client),
    }
}

impl Upgrade {
    /// Returns the flow to the upstream, which begins with the bytes that may be sent at once, and
    /// the bytes that are held.
    fn split(&mut self, pool: &Rc<Pool>, early_data: bool) -> (Flow, Vec<u8>) {
        let mut first = self.take_bytes();
        if early_data {
            return (Flow::new(pool, first), Vec::new());
        }
        let after_head = (first.len() - self.head) as u64;
        let body = self.body.min(after_head);
        // `body` is at most the length of a slice, so the cast is exact.
        let held = first.split_off(self.head + body as usize);
        let mut up = Flow::new(pool, first);
        up.allow(self.body - body);
        (up, held)
    }

    /// The head of a response that is not a 101, as the client gets it. `None` if it names too many
    /// fields in `Connection`.
    fn closing_head(&self, conn: &Accepted, response: &Response) -> Option<Vec<u8>> {
        let (head, parsed) = (response.head_bytes(), &response.head);
        let framing = match parsed.body {
            Body::Length(0) if parsed.status == 304 => {
                parsed.length.map_or(Framing::None, Framing::Length)
            }
            Body::Length(0) if parsed.status == 204 => Framing::None,
            Body::Length(length) => Framing::Length(length),
            Body::Chunked(_) => Framing::Chunked,
            Body::UntilClose => Framing::None,
        };
        let FieldRules { set, remove, .. } = &self.live.route.response_fields;
        let (hop, date) = (Hop::of(head)?, conn.context.date());
        let passed = forward::Response {
            hop: &hop,
            rules: &[Rules { set, remove }],
            framing,
            date: Some(&date),
        };
        let mut out = Vec::with_capacity(head.len() + 128);
        write_response(head, &passed, Persistence::Close, false, &mut out);
        Some(out)
    }

    /// Writes the record and sends an error, because the cluster cannot be reached.
    async fn refuse(&self, conn: &Accepted, watch: &Watch, failure: ConnectFailure) {
        if let ConnectFailure::Local(_) = failure {
            conn.context.shortage.answered();
        }
        self.fail(conn, watch, failure.outcome()).await;
    }

    /// Writes the record and sends an error in place of a response, unless the client has left.
    async fn fail(&self, conn: &Accepted, watch: &Watch, outcome: Outcome) {
        let Some(status) = status_for(outcome.end) else { return self.record(conn, outcome) };
        let (bytes, head) = self.error(conn, status);
        let outcome = Outcome {
            status: Some(status),
            bytes_down: outcome.bytes_down + bytes.len() as u64,
            head_down: head as u64,
            own_down: bytes.len() as u64,
            ..outcome
        };
        self.record(conn, outcome);
        Box::pin(send_error(conn, watch, bytes)).await;
    }

    /// Makes an error response in place of the upstream's. Returns it with the length of its head.
    /// An upgrade is a GET, so the response has content.
    fn error(&self, conn: &Accepted, status: u16) -> (Vec<u8>, usize) {
        let mut response = OwnResponse::text(status, reason_phrase(status));
        let service = conn.listener.service();
        if let Some(http) = service.as_ref().and_then(|service| service.http()) {
            response = response.with_page(&http.error_pages);
        }
        let (rules, date, mut out) =
            (&self.live.route.response_fields, conn.context.date(), Vec::new());
        if let Some(page) =
            response.write(rules, Content::Sent, &date, Persistence::Close, &mut out)
        {
            out.extend_from_slice(&page);
        }
        let head = out.len() - response.content_length(Content::Sent);
        (out, head)
    }
}

/// Sends an error response, and closes: bytes after an upgrade are not a request.
async fn send_error(conn: &Accepted, watch: &Watch, response: Vec<u8>) {
    watch.set_upstream(None);
    if let Some(limits) = Limits::of(&conn.listener) {
        watch.renew(Limit::new(limits.keepalive_timeout, End::Idle));
    }
    let mut down = Flow::new(&conn.context.pool, response);
    match down.flush(&conn.client, watch).await {
        Ok(()) => linger(conn, watch).await,
        Err(_) => conn.client.reset_on_close(),
    }
}

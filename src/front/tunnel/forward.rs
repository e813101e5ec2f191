//! A tunnel whose handshake is forwarded, followed by the same relay as L4.
//!
//! Bytes after the head need care. A stock obfs-server sends its 101 only together with bytes that
//! follow it, and it has such bytes only after the client's payload has reached it. Holding the
//! payload until the 101 is a deadlock. But a server that does not upgrade takes bytes before a 101
//! for a second request. So `early_data` tells which kind of server the route has. Without it the
//! upstream gets nothing beyond the announced body before it has agreed.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::Upgrade;
use crate::cluster::ConnectFailure;
use crate::front::accepted::{Accepted, describe_failure};
use crate::front::http::Response;
use crate::front::linger::linger;
use crate::observe::access_log::End;
use crate::proto::http::response_head::{
    Content, Persistence, reason_phrase, with_connection_close,
};
use crate::proto::http::{Body, BodyEnd, HeadScan, Scan, may_begin_response, parse_response};
use crate::relay::{self, Broken, Charge, Flow, Pool, SMALL, Side};
use crate::sys::{Errno, Stream};
use crate::timers::{Fired, OnDrain, Watch};

/// Bytes of the upstream's head, including interim responses before it.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// Bytes of the client that are held until the 101. More of them wait in the socket.
const MAX_HELD: usize = 64 * 1024;
/// Interval of the checks whether a client that is not read has left.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of an ordinary response that are read at a time, and so the most that is kept for a client
/// that does not read.
const PASSED: usize = 16 * 1024;
/// Interim responses (RFC 9110 section 15.2) that are accepted before the final one.
const MAX_INTERIM: usize = 16;

/// Forwards the handshake, relays, and writes the record.
pub(super) async fn serve(
    conn: &Accepted,
    watch: &Watch,
    mut upgrade: Upgrade<'_>,
    early_data: bool,
) {
    let (pool, timeouts) = (&conn.context.pool, upgrade.tunnel.timeouts);

    // 1. Connect. The attempts have their own limits.
    watch.on_drain(OnDrain::Wait);
    let lease = match Box::pin(conn.connect(&upgrade.tunnel.cluster)).await {
        Ok(lease) => lease,
        Err(failure) => return upgrade.refuse(conn, watch, &failure).await,
    };
    let upstream = &lease.stream;

    // 2. Send the head, and the payload that may go with it, in one write.
    let (mut up, mut held) = upgrade.split(pool, early_data);
    watch.set_upstream(Some(&lease.stream));
    watch.keep_alive(conn.listener.keepalive());
    watch.renew(timeouts.idle);
    let mut down = Flow::new(pool, Vec::new());

    // 3. Read the upstream's response. Early data is sent meanwhile.
    let refused = Cell::new(false);
    let sending = send_early(&mut up, &mut held, (&*conn.client, upstream), pool, watch, &refused);
    let answer = read_answer(upstream, pool, watch, early_data);
    let answer = match Box::pin(until_answered(sending, answer)).await {
        // The client is gone: no response can be sent.
        Err(gone) => {
            let end = match gone {
                ClientGone::Reset => relay::break_off(&conn.client, upstream, Side::Client),
                ClientGone::Ended => End::Client,
            };
            return upgrade.record(conn, &lease, &up, &down, None, end);
        }
        Ok(Err(NoAnswer::Fired(Fired::ClientReset))) => {
            let end = relay::break_off(&conn.client, upstream, Side::Client);
            return upgrade.record(conn, &lease, &up, &down, None, end);
        }
        Ok(Err(failure)) => {
            let (status, end) = failure.judge(refused.get());
            upgrade.record(conn, &lease, &up, &down, Some(status), end);
            drop(lease);
            return fail(conn, watch, status).await;
        }
        Ok(Ok(answer)) => answer,
    };

    // 4. After a 101, send the bytes that were held and relay. Pass any other response on as plain
    // HTTP.
    watch.renew(timeouts.idle);
    if answer.status == 101 {
        up.allow(u64::MAX);
        up.push(&held);
        drop(held);
        down.push(&answer.bytes);
        drop(answer);
        let client = &conn.client;
        let end =
            relay::run(client, upstream, &mut up, &mut down, watch, timeouts.half_closed).await;
        watch.set_upstream(None);
        upgrade.record(conn, &lease, &up, &down, Some(101), end);
    } else {
        let status = answer.status;
        let end = pass_answer(conn, upstream, &mut down, answer, watch, refused.get()).await;
        watch.set_upstream(None);
        upgrade.record(conn, &lease, &up, &down, Some(status), end);
        drop(lease);
        if end == End::Done {
            linger(conn, watch).await;
        } else {
            // A body without a length ends with the connection. A reset shows that this one is
            // incomplete.
            conn.client.reset_on_close();
        }
    }
}

impl Upgrade<'_> {
    /// Returns the flow to the upstream, which begins with the bytes that may be sent at once, and
    /// the bytes that are held.
    fn split(&mut self, pool: &Rc<Pool>, early_data: bool) -> (Flow, Vec<u8>) {
        let mut first = self.take_bytes();
        if early_data {
            return (Flow::new(pool, first), Vec::new());
        }
        let behind = (first.len() - self.head) as u64;
        let body = self.body.min(behind);
        // `body` is at most the length of a slice, so the cast is exact.
        let held = first.split_off(self.head + body as usize);
        let mut up = Flow::new(pool, first);
        up.allow(self.body - body);
        (up, held)
    }

    /// Answers when the cluster cannot be reached.
    async fn refuse(&self, conn: &Accepted, watch: &Watch, failure: &ConnectFailure) {
        let status = match failure {
            ConnectFailure::NoEndpoint | ConnectFailure::Drained(_) => 503,
            ConnectFailure::TimedOut(_) => 504,
            ConnectFailure::Failed(_) | ConnectFailure::Local(_) => 502,
        };
        if let ConnectFailure::Local(_) = failure {
            conn.context.shortage.answered();
        }
        conn.record(self.start, |record| {
            self.describe(record);
            describe_failure(failure, record);
            record.status = Some(status);
        });
        fail(conn, watch, status).await;
    }
}

/// How the client left before the upstream answered.
enum ClientGone {
    Reset,
    Ended,
}

/// Sends what `up` may send. Then holds the client's further bytes, and returns when the client
/// leaves. `refused` is set when a write to the upstream fails. Such a write consumes the socket's
/// error, so that a later read would find what looks like a clean end.
async fn send_early(
    up: &mut Flow,
    held: &mut Vec<u8>,
    (client, upstream): (&Stream, &Rc<Stream>),
    pool: &Rc<Pool>,
    watch: &Watch,
    refused: &Cell<bool>,
) -> ClientGone {
    match up.run(client, upstream, watch).await {
        Err(Broken::From(_)) => return ClientGone::Reset,
        // The upstream takes no more bytes, but it may have answered before.
        Err(Broken::To(_)) => {
            refused.set(true);
            return not_reading(watch).await;
        }
        // The wait for the response fails with the same limit and gives the result.
        Err(Broken::Fired(_)) => return std::future::pending().await,
        Ok(()) if up.ended() => {
            upstream.shutdown_write();
            return not_reading(watch).await;
        }
        Ok(()) => {}
    }
    let mut charge = Charge::new(pool);
    charge.set(held.len());
    // Bytes beyond the limits wait in the socket.
    while held.len() < MAX_HELD && charge.try_set(held.len() + SMALL) {
        if watch.readable(client).await.is_err() {
            return std::future::pending().await;
        }
        let mut buffer = pool.buffer();
        let size = (MAX_HELD - held.len()).min(pool.read_size());
        match client.recv(&mut buffer[..size]) {
            // The client has ended before the 101, so it cannot use the tunnel. nginx and Envoy
            // give up here, too.
            Ok(0) => return ClientGone::Ended,
            Ok(read) => {
                // `reserve_exact`, because the capacity must be what is counted.
                held.reserve_exact(read);
                held.extend_from_slice(&buffer[..read]);
                charge.set(held.len());
            }
            Err(Errno::AGAIN) => {}
            Err(_) => return ClientGone::Reset,
        }
    }
    // The client is not read any more, so its end must be polled for.
    let _stall = watch.stall();
    while !client.has_ended() {
        monoio::time::sleep(LOOK).await;
    }
    if client.is_reset() { ClientGone::Reset } else { ClientGone::Ended }
}

/// Waits for ever, while the watch looks for a reset of the client.
async fn not_reading(watch: &Watch) -> ClientGone {
    let _stall = watch.stall();
    std::future::pending().await
}

/// Runs both until the response is complete or the client is gone.
async fn until_answered<T>(
    sending: impl Future<Output = ClientGone>,
    answer: impl Future<Output = T>,
) -> Result<T, ClientGone> {
    let (mut sending, mut answer) = (pin!(sending), pin!(answer));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        sending.as_mut().poll(cx).map(Err)
    })
    .await
}

/// A final response: its head and what was read after it.
struct Answer {
    status: u16,
    body: Body,
    bytes: Vec<u8>,
    head: usize,
}

/// Why there is no response.
#[derive(Clone, Copy)]
enum NoAnswer {
    Closed,
    Reset,
    Malformed,
    /// The head needs more memory than the budget allows.
    TooLarge,
    Fired(Fired),
}

impl NoAnswer {
    /// Returns the status for the client and the end for the record.
    fn judge(self, refused: bool) -> (u16, End) {
        match self {
            NoAnswer::Closed if !refused => (502, End::Upstream),
            NoAnswer::Closed | NoAnswer::Reset => (502, End::UpstreamReset),
            NoAnswer::Malformed => (502, End::BadResponse),
            NoAnswer::TooLarge => (503, End::Overflow),
            NoAnswer::Fired(Fired::TimedOut) => (504, End::ResponseTimeout),
            NoAnswer::Fired(Fired::Drained) => (503, End::Drain),
            NoAnswer::Fired(Fired::ClientReset) => (502, End::ClientReset),
            NoAnswer::Fired(Fired::UpstreamReset) => (502, End::UpstreamReset),
        }
    }
}

/// Reads the upstream's head and skips interim responses. With `bare`, which is for obfs-servers, a
/// 101 needs no `Upgrade`.
async fn read_answer(
    upstream: &Stream,
    pool: &Rc<Pool>,
    watch: &Watch,
    bare: bool,
) -> Result<Answer, NoAnswer> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut charge = Charge::new(pool);
    let mut scan = HeadScan::default();
    let (mut interim, mut total) = (0, 0);
    loop {
        let fired = watch.readable(upstream).await.err();
        {
            let mut buffer = pool.buffer();
            let room = MAX_RESPONSE_HEAD.saturating_sub(total);
            match upstream.recv(&mut buffer[..room.min(pool.read_size())]) {
                // The buffer was empty: this is not the end, but a head that is too long.
                Ok(0) if room == 0 => return Err(NoAnswer::Malformed),
                Ok(0) => return Err(NoAnswer::Closed),
                Ok(read) => {
                    total += read;
                    bytes.reserve_exact(read);
                    bytes.extend_from_slice(&buffer[..read]);
                }
                Err(Errno::AGAIN) => match fired {
                    None => continue,
                    Some(fired) => return Err(NoAnswer::Fired(fired)),
                },
                Err(_) => return Err(NoAnswer::Reset),
            }
        }
        loop {
            let (start, end) = match scan.advance(&bytes) {
                Scan::Incomplete if may_begin_response(&bytes[scan.start()..]) => break,
                // Not HTTP/1: there is no need to wait for the rest.
                Scan::Incomplete => return Err(NoAnswer::Malformed),
                Scan::BareLineFeed => return Err(NoAnswer::Malformed),
                Scan::Complete { start, end } => (start, end),
            };
            let response = parse_response(&bytes[start..end]).ok_or(NoAnswer::Malformed)?;
            // Drop interim responses.
            if matches!(response.status, 102..=199 | 100) {
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(NoAnswer::Malformed);
                }
                bytes.drain(..end);
                scan = HeadScan::default();
                continue;
            }
            // A switch to another protocol could carry requests that bypass the routes.
            if response.status == 101 && !response.switches_to_websocket(bare) {
                return Err(NoAnswer::Malformed);
            }
            bytes.drain(..start);
            let (status, body) = (response.status, response.body);
            return Ok(Answer { status, body, bytes, head: end - start });
        }
        if let Some(fired) = fired {
            return Err(NoAnswer::Fired(fired));
        }
        if !charge.try_set(bytes.len()) {
            return Err(NoAnswer::TooLarge);
        }
    }
}

/// Passes a response other than 101 on as plain HTTP, up to its end and no further. `refused` is
/// true if a write to the upstream has failed.
async fn pass_answer(
    conn: &Accepted,
    upstream: &Stream,
    down: &mut Flow,
    answer: Answer,
    watch: &Watch,
    refused: bool,
) -> End {
    let (head, rest) = answer.bytes.split_at(answer.head);
    down.push(&with_connection_close(head));
    let mut body = answer.body;
    let mut take = |down: &mut Flow, bytes: &[u8]| match body.follow(bytes) {
        BodyEnd::NotYet => {
            down.push(bytes);
            None
        }
        BodyEnd::At(end) => {
            down.push(&bytes[..end]);
            Some(End::Done)
        }
        BodyEnd::Malformed => Some(End::BadResponse),
    };
    let mut end = take(down, rest);
    let until_close = matches!(answer.body, Body::UntilClose);
    // Its bytes are in the flow by now, and counted there.
    drop(answer.bytes);
    loop {
        match down.flush(&conn.client, watch).await {
            Ok(()) => {}
            Err(Broken::Fired(fired)) => return cut(fired),
            Err(Broken::From(_) | Broken::To(_)) => return End::ClientReset,
        }
        if let Some(end) = end {
            return end;
        }
        {
            let _stall = watch.stall();
            match watch.readable(upstream).await {
                Ok(()) => {}
                // The limit fired before the task could read what has arrived.
                Err(Fired::TimedOut) if upstream.has_input() => watch.again(),
                Err(fired) => return cut(fired),
            }
        }
        let pool = &conn.context.pool;
        let mut buffer = pool.buffer();
        end = match upstream.recv(&mut buffer[..pool.read_size().min(PASSED)]) {
            Ok(0) if refused => Some(End::UpstreamReset),
            Ok(0) if until_close => Some(End::Done),
            Ok(0) => Some(End::Upstream),
            Ok(read) => {
                watch.touch();
                take(down, &buffer[..read])
            }
            Err(Errno::AGAIN) => None,
            Err(_) => Some(End::UpstreamReset),
        };
    }
}

/// The record's end for a limit that fires within a response.
fn cut(fired: Fired) -> End {
    match fired {
        Fired::TimedOut => End::Idle,
        Fired::Drained => End::Drain,
        Fired::ClientReset => End::ClientReset,
        Fired::UpstreamReset => End::UpstreamReset,
    }
}

/// Sends an error response in place of the upstream, and closes: bytes after an upgrade are not a
/// request. An upgrade is a GET, so the response has content.
async fn fail(conn: &Accepted, watch: &Watch, status: u16) {
    let mut out = Vec::new();
    let response = Response::text(status, reason_phrase(status));
    response.write(Content::Sent, &conn.context.date(), Persistence::Close, &mut out);
    // The response fits an empty send buffer. If unread responses fill the buffer, this one is
    // dropped.
    let _ = conn.client.send(&out);
    watch.set_upstream(None);
    linger(conn, watch).await;
}

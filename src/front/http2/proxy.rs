//! A request of a stream that goes on to a cluster. The cluster gets HTTP/1.1.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::head::Collected;
use super::send::{self, Broken, capacity, cut_off, finish};
use super::stream::Stream;
use crate::cluster::{Cluster, ConnectFailure, Lease};
use crate::config::Http;
use crate::front::accepted::Accepted;
use crate::front::http::{Missing, Passed, Proxied, Sent, beside, outcome_of, response_fields};
use crate::front::response::{Response as OwnResponse, status_for};
use crate::observe::outcome::{Copied, End, Outcome, Relay};
use crate::proto::codec::{Codec, State};
use crate::proto::http::response_head::{Persistence, reason_phrase};
use crate::proto::http::{Body, Dechunk, Response};
use crate::relay::Sender;
use crate::sys::Errno;
use crate::timers::{Fired, Limit, Watch};
use crate::transport::Transport;
use crate::upstream::{Connection as Upstream, Failure, Heads};

/// Passes the request on, and the response back.
pub(super) async fn serve(mut stream: Stream, conn: &Accepted, http: &Http, request: &Proxied<'_>) {
    let cluster = Rc::clone(conn.listener.cluster(&request.proxy.cluster));
    let mut may_reuse = true;
    loop {
        let lease = match conn.connect_to(&cluster, may_reuse).await {
            Ok(lease) => lease,
            Err(failure) => {
                if let ConnectFailure::Local(_) = failure {
                    conn.context.shortage.answered();
                }
                return fail(&mut stream, conn, http, request, failure.outcome(), None);
            }
        };
        match exchange(&mut stream, conn, http, request, lease, &cluster).await {
            true => return,
            false => {
                may_reuse = false;
                request.retries.set(request.retries.get() + 1);
            }
        }
    }
}

/// Sends the request and passes the response on. Returns false if the endpoint has closed a
/// connection that was idle, and the request can be sent again.
async fn exchange(
    stream: &mut Stream,
    conn: &Accepted,
    http: &Http,
    request: &Proxied<'_>,
    mut lease: Lease,
    cluster: &Cluster,
) -> bool {
    let pool = &conn.context.pool;
    let limit = Limit::new(request.proxy.response_timeout, End::ResponseTimeout);
    let watch = conn.context.timers.watch(conn.client.socket(), limit);
    watch.set_upstream(Some(lease.upstream.socket()));
    let transport = lease.upstream.clone();
    let upstream = Upstream::new(&transport, pool, &watch);
    let mut heads = Heads::new(pool.charge(), request.kind);
    let mut upload = Upload::new(request, Sender::new(pool, Vec::new()));
    let (mut sent, sent_at) = (None, Cell::new(Instant::now()));
    let result = {
        let Stream { body, respond, .. } = stream;
        let sending = pin!(async {
            let sent = upload.run(request, body, &upstream).await;
            sent_at.set(Instant::now());
            sent
        });
        let passing = Pass { conn, request, upstream: &upstream, respond };
        passing.run(&mut heads, sending, &mut sent).await
    };
    let is_sent = request.is_bodyless() || sent == Some(Sent::Whole);
    let mut outcome = outcome_of(&mut lease, upload.sender.bytes());
    outcome.first_byte = heads.begun().map(|at| at.saturating_duration_since(sent_at.get()));
    let passed = match result {
        Ok(passed) => passed,
        Err(missing) => {
            let is_lost = lease.is_reused && heads.begun().is_none() && missing.is_loss();
            if is_lost && request.may_repeat() {
                return false;
            }
            drop(lease);
            let is_waited_for = is_sent || sent.is_some() || !upload.sender.is_empty();
            let reject = missing.reject(is_waited_for);
            outcome.end = missing.end(reject);
            fail(stream, conn, http, request, outcome, reject);
            return true;
        }
    };
    (outcome.end, outcome.status) = (passed.end, Some(passed.status));
    (outcome.bytes_down, outcome.head_down) = (passed.bytes, passed.head);
    (outcome.upstream_status, outcome.retries) = (outcome.status, Some(request.retries.get()));
    outcome.relay = Relay::Copy;
    outcome.copied = passed.relay.err();
    conn.record(request.start, &outcome, |record| request.describe(record));
    if passed.end != End::Done {
        transport.reset_on_close();
    } else if passed.is_reusable && is_sent && !conn.context.draining.get() {
        cluster.keep(lease, &conn.listener.config.socket, &conn.context.timers);
    }
    true
}

/// Answers a request that has no response, and writes its record.
fn fail(
    stream: &mut Stream,
    conn: &Accepted,
    http: &Http,
    request: &Proxied<'_>,
    mut outcome: Outcome,
    reject: Option<crate::proto::http::Reject>,
) {
    outcome.retries = Some(request.retries.get());
    let status = reject.map(|reject| reject.status).or_else(|| status_for(outcome.end));
    match status {
        None => stream.respond.send_reset(h2::Reason::CANCEL),
        Some(status) => {
            let line = reject.map_or_else(|| reason_phrase(status), |reject| reject.text);
            let response = OwnResponse::text(status, line);
            let method = request.asked.method();
            (outcome.status, outcome.reason) = (Some(status), reject.map(|reject| reject.reason));
            stream.send_response(conn, http, Some(request.route), method, response, &mut outcome);
        }
    }
    conn.record(request.start, &outcome, |record| request.describe(record));
}

/// The request on its way to the upstream.
struct Upload {
    sender: Sender,
    is_chunked: bool,
    /// Bytes of the body so far.
    bytes: u64,
}

impl Upload {
    fn new(request: &Proxied<'_>, sender: Sender) -> Upload {
        Upload { sender, is_chunked: !matches!(request.body, Body::Length(_)), bytes: 0 }
    }

    async fn run(
        &mut self,
        request: &Proxied<'_>,
        body: &mut RecvStream,
        upstream: &Upstream<'_>,
    ) -> Sent {
        // 1. The head, by the outbox if it is all.
        let to = upstream.transport;
        let is_queued = poll_fn(|cx| {
            let is_queued =
                request.is_bodyless() && self.sender.queue(to, &request.head, cx.waker());
            Poll::Ready(is_queued)
        });
        if is_queued.await {
            poll_fn(|_| match self.sender.has_failed(to) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        } else {
            self.sender.push(&request.head);
        }
        if let Err(sent) = self.flush(upstream).await {
            return sent;
        }

        // 2. The body.
        while !request.is_bodyless() {
            let piece = match body.data().await {
                Some(Ok(piece)) => piece,
                Some(Err(_)) => return Sent::Broken(End::ClientReset),
                None => break,
            };
            self.bytes += piece.len() as u64;
            if request.proxy.max_body.is_some_and(|most| self.bytes > most) {
                return Sent::TooLarge;
            }
            if !piece.is_empty() {
                self.push(&piece);
            }
            if let Err(sent) = self.flush(upstream).await {
                return sent;
            }
            // The client may send as much again.
            let _ = body.flow_control().release_capacity(piece.len());
            upstream.watch.touch();
        }
        if self.is_chunked && !request.is_bodyless() {
            self.sender.push(b"0\r\n\r\n");
        }
        match self.flush(upstream).await {
            Ok(()) => Sent::Whole,
            Err(sent) => sent,
        }
    }

    fn push(&mut self, piece: &[u8]) {
        if self.is_chunked {
            self.sender.push(format!("{:x}\r\n", piece.len()).as_bytes());
            self.sender.push(piece);
            self.sender.push(b"\r\n");
        } else {
            self.sender.push(piece);
        }
    }

    async fn flush(&mut self, upstream: &Upstream<'_>) -> Result<(), Sent> {
        loop {
            match self.sender.flush(upstream.transport) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) => {
                    upstream.note_failed_write();
                    return Err(Sent::Refused);
                }
            }
            // The other future waits with the same limit and gives the result.
            if upstream.watch.writable(upstream.transport.socket()).await.is_err() {
                return pending().await;
            }
        }
    }
}

/// The response on its way to the client.
struct Pass<'a, 'c> {
    conn: &'a Accepted,
    request: &'a Proxied<'c>,
    upstream: &'a Upstream<'a>,
    respond: &'a mut SendResponse<Bytes>,
}

impl Pass<'_, '_> {
    async fn run(
        mut self,
        heads: &mut Heads,
        mut sending: Pin<&mut impl Future<Output = Sent>>,
        sent: &mut Option<Sent>,
    ) -> Result<Passed, Missing> {
        // 1. The head.
        let reading = self.read_final(heads);
        let result = beside(reading, sending.as_mut(), sent).await;
        let (head, length) = result.map_err(Missing::Client)?.map_err(Missing::Upstream)?;
        let mut collected = Collected::default();
        let date = self.conn.context.date();
        let bytes = heads.bytes();
        response_fields(&bytes[..length], &head, self.request, &date, &mut collected)
            .ok_or(Missing::Upstream(Failure::Malformed))?;
        let mut passed = Passed {
            status: head.status,
            end: End::Done,
            persistence: Persistence::Persistent,
            bytes: length as u64,
            head: length as u64,
            relay: Err(Copied::Tls),
            is_reusable: head.is_persistent,
        };
        let has_body = head.body != Body::NONE;
        let response = collected.into_response();
        let Ok(mut stream) = self.respond.send_response(response, !has_body) else {
            passed.end = End::ClientReset;
            return Ok(passed);
        };
        if !has_body {
            passed.is_reusable &= bytes.len() == length;
            return Ok(passed);
        }

        // 2. The body.
        let first = bytes[length..].to_vec();
        heads.clear();
        let limit = Limit::new(self.request.proxy.idle_timeout, End::Idle);
        self.upstream.watch.renew(limit);
        let mut down = Download::new(head.body, &self);
        let passing = down.run(first, &mut stream);
        let result = beside(passing, sending, sent).await;
        passed.end = match result {
            Ok(end) => end,
            Err(Sent::Broken(end)) => end,
            Err(_) => End::BadRequest,
        };
        if passed.end != End::Done {
            cut_off(&mut stream);
        }
        passed.bytes += down.sent;
        passed.is_reusable &= down.is_exact;
        Ok(passed)
    }

    /// Reads the head of the final response, and passes interim ones on.
    async fn read_final(&mut self, heads: &mut Heads) -> Result<(Response, usize), Failure> {
        loop {
            let (head, length) = {
                let respond = &mut *self.respond;
                let mut reading = pin!(self.upstream.read_head(heads));
                poll_fn(|cx| {
                    // Of a stream that the client has reset nothing goes on.
                    if respond.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(Failure::Fired(Fired::ClientReset)));
                    }
                    reading.as_mut().poll(cx)
                })
                .await?
            };
            if !head.is_interim() {
                return Ok((head, length));
            }
            if head.status != 100 || self.request.expects_continue {
                let collected = Collected::of_own(&heads.bytes()[..length]);
                let _ = self.respond.send_informational(collected.into_response());
            }
            heads.drop_head(length);
        }
    }
}

/// The body of a response.
struct Download<'a> {
    transport: &'a Transport,
    watch: &'a Watch,
    conn: &'a Accepted,
    /// How much is left, where the length is known.
    left: Option<u64>,
    /// Takes the payload out of chunks.
    chunks: Option<Dechunk>,
    sent: u64,
    /// Nothing was read behind the end of the body.
    is_exact: bool,
}

impl<'a> Download<'a> {
    fn new(body: Body, pass: &Pass<'a, '_>) -> Download<'a> {
        Download {
            transport: pass.upstream.transport,
            watch: pass.upstream.watch,
            conn: pass.conn,
            left: if let Body::Length(length) = body { Some(length) } else { None },
            chunks: matches!(body, Body::Chunked(_)).then(Dechunk::default),
            sent: 0,
            is_exact: true,
        }
    }

    /// Sends the body, which begins with `first`.
    async fn run(&mut self, mut first: Vec<u8>, stream: &mut SendStream<Bytes>) -> End {
        let size = first.len();
        let (range, mut is_over) = self.take(&mut first, size);
        let first = Bytes::copy_from_slice(&first[range]);
        if let Err(broken) = self.send(first, stream).await {
            return end_of(broken);
        }
        while is_over.is_none() {
            // What the client does not take is not read.
            let room = match capacity(stream, self.watch).await {
                Ok(room) => room,
                Err(broken) => return end_of(broken),
            };
            if let Err(broken) = send::readable(stream, self.transport, self.watch).await {
                return end_of(broken);
            }
            let piece = match self.read(room) {
                Ok(Some((piece, over))) => {
                    is_over = over;
                    piece
                }
                Ok(None) => continue,
                Err(end) => return end,
            };
            if let Err(broken) = self.send(piece, stream).await {
                return end_of(broken);
            }
        }
        match is_over {
            Some(End::Done) => finish(stream).map_or_else(end_of, |()| End::Done),
            Some(end) => end,
            None => End::Done,
        }
    }

    /// Reads once. `None` if nothing was there.
    fn read(&mut self, room: usize) -> Result<Option<(Bytes, Option<End>)>, End> {
        let mut buffer = self.conn.context.pool.buffer();
        let most = self.left.map_or(room, |left| room.min(usize::try_from(left).unwrap_or(room)));
        match self.transport.recv(&mut buffer[..most]) {
            Ok(0) if self.left.is_none() && self.chunks.is_none() => {
                Ok(Some((Bytes::new(), Some(End::Done))))
            }
            // It has ended in the middle of the body.
            Ok(0) => Err(End::Upstream),
            Ok(read) => {
                self.watch.touch();
                let (range, over) = self.take(&mut buffer[..read], read);
                Ok(Some((Bytes::copy_from_slice(&buffer[range]), over)))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(_) => Err(End::UpstreamReset),
        }
    }

    /// Takes the payload out of bytes in place. Returns its range, and why the body is over, if it
    /// is.
    fn take(&mut self, bytes: &mut [u8], read: usize) -> (std::ops::Range<usize>, Option<End>) {
        if let Some(chunks) = &mut self.chunks {
            let range = chunks.code(bytes, 0..read);
            let over = match chunks.state() {
                State::Open => None,
                State::Ended => Some(End::Done),
                State::Broken => Some(End::BadResponse),
            };
            self.is_exact &= chunks.unused() == 0;
            return (range, over);
        }
        let Some(left) = &mut self.left else { return (0..read, None) };
        let own = usize::try_from(*left).unwrap_or(usize::MAX).min(read);
        self.is_exact &= own == read;
        *left -= own as u64;
        (0..own, (*left == 0).then_some(End::Done))
    }

    async fn send(&mut self, bytes: Bytes, stream: &mut SendStream<Bytes>) -> Result<(), Broken> {
        self.sent += bytes.len() as u64;
        send::send_all(stream, bytes, false, self.watch).await
    }
}

fn end_of(broken: Broken) -> End {
    match broken {
        Broken::Client => End::ClientReset,
        Broken::Fired(fired) => fired.end(),
    }
}

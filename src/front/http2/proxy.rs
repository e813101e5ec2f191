//! The client's side of an exchange in HTTP/2. The cluster gets HTTP/1.1.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::{Reason, RecvStream, SendStream};

use super::head::Collected;
use super::piece::{Piece, Unsent};
use super::send::{self, Broken, cut_off, finish, release, room_to_read};
use super::stream::Stream;
use crate::front::accepted::Accepted;
use crate::front::http::{
    Client, Exchange, Missing, Passed, Proxied, Sent, beside, failed, is_whole, pass_interim,
    response_fields,
};
use crate::front::response::Response as OwnResponse;
use crate::observe::live::Direction;
use crate::observe::outcome::{Copied, End, Outcome};
use crate::proto::codec::{Codec, Stack, State};
use crate::proto::http::response_head::Persistence;
use crate::proto::http::{Body, Dechunk, Enchunk, Response};
use crate::relay::Flow;
use crate::sys::Errno;
use crate::timers::{Limit, Watch};
use crate::transport::Transport;
use crate::upstream::{Connection as Upstream, Failure, Heads};

/// Passes the request on, and the response back.
pub(super) async fn serve(
    stream: Stream,
    body: &mut RecvStream,
    conn: &Accepted,
    request: &Proxied,
) {
    // The exchange starts the limit when it has connected.
    let limit = Limit::new(request.proxy().response_timeout, End::ResponseTimeout);
    let watch = &conn.watch(limit);
    let mut waiting = Waiting { stream, conn };
    Exchange { conn, watch, request }.run(&mut waiting, body).await;
    conn.rests();
}

/// A stream that waits for its response.
struct Waiting<'a> {
    stream: Stream,
    conn: &'a Accepted,
}

impl Client for Waiting<'_> {
    type Body = RecvStream;
    type Next = ();

    fn chunks(limit: u64) -> Stack {
        Stack::new(Enchunk::with_limit(limit))
    }

    async fn upload(body: &mut RecvStream, up: &mut Flow, upstream: &Upstream<'_>) -> Sent {
        let to = upstream.transport;
        up.queue_failed(to).await;
        loop {
            if let Err(broken) = up.flush(to, upstream.watch).await {
                return failed(broken, upstream).await;
            }
            up.report(upstream.watch);
            if up.ended() {
                // The client may have announced more than it has sent.
                return if is_whole(up, to) { Sent::Whole } else { Sent::Broken(End::Client) };
            }
            match body.data().await {
                Some(Ok(piece)) => {
                    up.feed(&piece);
                    // The flow has it now, whether or not this future goes on: the client may send
                    // as much again.
                    let _ = body.flow_control().release_capacity(piece.len());
                    upstream.watch.touch();
                    if up.is_too_long() {
                        return Sent::TooLarge;
                    }
                }
                Some(Err(_)) => return Sent::Broken(End::ClientReset),
                None => up.end(),
            }
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.respond.poll_reset(cx).map(|_| ())
    }

    async fn pass_interim(&mut self, head: &[u8]) -> Result<(), Failure> {
        let mut collected = Collected::default();
        pass_interim(head, &mut collected).ok_or(Failure::Malformed)?;
        // If it fails, the final response fails, too.
        let _ = self.stream.respond.send_informational(collected.into_response());
        Ok(())
    }

    async fn pass(
        &mut self,
        exchange: &Exchange<'_>,
        upstream: &Upstream<'_>,
        heads: &mut Heads,
        (head, length): (Response, usize),
        sending: Pin<&mut impl Future<Output = Sent>>,
        sent: &mut Option<Sent>,
    ) -> Result<Passed, Missing> {
        // 1. The head.
        let &Exchange { conn, watch, request } = exchange;
        let mut collected = Collected::default();
        let bytes = heads.bytes();
        response_fields(&bytes[..length], &head, request, &conn.context.date(), &mut collected)
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
        let Ok(mut stream) = self.stream.respond.send_response(response, !has_body) else {
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
        watch.renew(Limit::new(request.proxy().idle_timeout, End::Idle));
        let mut down = Download::new(head.body, upstream, conn, &self.stream.shared.unsent);
        down.head = passed.head;
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

    fn go_on(&mut self, _: &Proxied, _: &Passed, _: bool, _: &mut Flow) {}

    fn send_error(
        &mut self,
        request: &Proxied,
        status: u16,
        line: &'static str,
        _: Option<Vec<u8>>,
        outcome: &mut Outcome,
    ) {
        let Waiting { stream, conn } = self;
        let service = conn.listener.service();
        let http = service.as_ref().and_then(|service| service.http());
        let (rules, method) = (&request.route().response_fields, request.asked.method());
        let response = OwnResponse::text(status, line);
        stream.send_response(conn, http, rules, method, response, outcome);
    }

    fn abandon(&mut self) {
        self.stream.respond.send_reset(Reason::CANCEL);
    }
}

/// The body of a response.
struct Download<'a> {
    upstream: &'a Upstream<'a>,
    transport: &'a Transport,
    watch: &'a Watch,
    conn: &'a Accepted,
    unsent: &'a Rc<Unsent>,
    /// How much is left, where the length is known.
    left: Option<u64>,
    /// Takes the payload out of chunks.
    chunks: Option<Dechunk>,
    sent: u64,
    /// Bytes of the head of the response.
    head: u64,
    /// Nothing was read behind the end of the body.
    is_exact: bool,
}

impl<'a> Download<'a> {
    fn new(
        body: Body,
        upstream: &'a Upstream<'a>,
        conn: &'a Accepted,
        unsent: &'a Rc<Unsent>,
    ) -> Download<'a> {
        Download {
            upstream,
            transport: upstream.transport,
            watch: upstream.watch,
            conn,
            unsent,
            left: if let Body::Length(length) = body { Some(length) } else { None },
            chunks: matches!(body, Body::Chunked(_)).then(Dechunk::default),
            sent: 0,
            head: 0,
            is_exact: true,
        }
    }

    /// Sends the body, which begins with `first`.
    async fn run(&mut self, mut first: Vec<u8>, stream: &mut SendStream<Piece>) -> End {
        let pool = &self.conn.context.pool;
        let size = first.len();
        let (range, mut is_over) = self.take(&mut first, size);
        // In place: a copy would be kept beside it for as long as the body takes.
        first.truncate(range.end);
        first.drain(..range.start);
        let first = Piece::read(first, pool);
        if let Err(broken) = self.send(first, stream).await {
            return end_of(broken);
        }
        while is_over.is_none() {
            if let Err(broken) = send::readable(stream, self.transport, self.watch).await {
                return end_of(broken);
            }
            // What the client does not take is not read.
            let room = match room_to_read(stream, pool, self.unsent, self.watch).await {
                Ok(room) => room,
                Err(broken) => return end_of(broken),
            };
            let read = pool.bulk().turn(|turn| {
                let read = self.read(room.bytes);
                if let Ok(Some((piece, _))) = &read {
                    turn.spend(piece.len());
                }
                read
            });
            let piece = match read.await {
                Ok(Some((piece, over))) => {
                    is_over = over;
                    piece
                }
                Ok(None) => Piece::empty(),
                Err(End::Upstream) if self.upstream.end_is_reset().await => {
                    return End::UpstreamReset;
                }
                Err(end) => return end,
            };
            if let Err(broken) = self.send(piece, stream).await {
                return end_of(broken);
            }
            release(stream);
        }
        match is_over {
            Some(End::Done) if self.ends_with_source() && self.upstream.end_is_reset().await => {
                End::UpstreamReset
            }
            Some(End::Done) => finish(stream).map_or_else(end_of, |()| End::Done),
            Some(end) => end,
            None => End::Done,
        }
    }

    /// Returns true if nothing but the end of its source ends the body.
    fn ends_with_source(&self) -> bool {
        self.left.is_none() && self.chunks.is_none()
    }

    /// Reads once. `None` if nothing was there.
    fn read(&mut self, room: usize) -> Result<Option<(Piece, Option<End>)>, End> {
        let mut buffer = self.conn.context.pool.buffer();
        let most = self.left.map_or(room, |left| room.min(usize::try_from(left).unwrap_or(room)));
        match self.transport.recv(&mut buffer[..most]) {
            Ok(0) if self.ends_with_source() => Ok(Some((Piece::empty(), Some(End::Done)))),
            // It has ended in the middle of the body.
            Ok(0) => Err(End::Upstream),
            Ok(read) => {
                self.watch.touch();
                let (range, over) = self.take(&mut buffer[..read], read);
                let (bytes, pool) = (buffer[range].to_vec(), &self.conn.context.pool);
                Ok(Some((Piece::read(bytes, pool), over)))
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

    async fn send(&mut self, bytes: Piece, stream: &mut SendStream<Piece>) -> Result<(), Broken> {
        self.sent += bytes.len() as u64;
        let sent = send::send_all(stream, bytes, false, self.unsent, self.watch).await;
        self.watch.moved(Direction::Down, self.head + self.sent);
        sent
    }
}

fn end_of(broken: Broken) -> End {
    match broken {
        Broken::Client => End::ClientReset,
        Broken::Fired(fired) => fired.end(),
    }
}

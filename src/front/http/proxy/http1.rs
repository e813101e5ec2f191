//! The client's side of an exchange in HTTP/1.1, and in 1.0: bodies go through flows, which splice
//! long ones.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::exchange::{Client, Exchange, Missing, Passed, behind};
use super::request::Proxied;
use super::response::{Form, Transfer, pass_interim, write_head};
use super::upload::{Sent, beside, send};
use crate::front::http::connection::{Connection, MAX_SKIPPED, Next};
use crate::observe::live::Direction;
use crate::observe::outcome::{Copied, End, Outcome};
use crate::proto::codec::Stack;
use crate::proto::http::forward::Lines;
use crate::proto::http::response_head::Persistence;
use crate::proto::http::{Body, Rechunk, Response, Version};
use crate::relay::{Broken, Flow};
use crate::sys::Errno;
use crate::timers::{Fired, Limit, OnDrain};
use crate::transport::Transport;
use crate::upstream::{Connection as Upstream, Failure, Heads};

impl Connection<'_> {
    /// Passes a request on, and its response back. Returns what comes after it.
    pub(in crate::front::http) async fn proxy(&mut self, request: &Proxied) -> Next {
        let (conn, watch) = (self.conn, self.watch);
        watch.on_drain(OnDrain::Wait);
        let mut body = &conn.client;
        Exchange { conn, watch, request }.run(self, &mut body).await
    }

    /// Sends a response that has been read whole. Returns its length; `None` if its head cannot be
    /// passed on.
    fn respond_whole(
        &mut self,
        request: &Proxied,
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
}

impl<'c> Client for Connection<'c> {
    type Body = &'c Transport;
    type Next = Next;

    fn chunks(limit: u64) -> Stack {
        Stack::new(Rechunk::with_limit(limit))
    }

    fn upload(
        body: &mut &'c Transport,
        up: &mut Flow,
        upstream: &Upstream<'_>,
    ) -> impl Future<Output = Sent> {
        send(up, body, upstream)
    }

    /// The watch finds out.
    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    async fn pass_interim(&mut self, head: &[u8]) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(head.len());
        pass_interim(head, &mut Lines(&mut out)).ok_or(Failure::Malformed)?;
        out.extend_from_slice(b"\r\n");
        self.send(&out);
        match self.flush_interim().await {
            true => Ok(()),
            false => Err(Failure::Fired(Fired::ClientReset)),
        }
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
        // 1. Choose the form of the response.
        let &Exchange { conn, watch, request } = exchange;
        // A client that waits for a 100 may or may not send its body: what comes next is ambiguous.
        // The rest of a body of chunks is not followed here, and a long one is not read.
        let is_sent = request.is_bodyless() || *sent == Some(Sent::Whole);
        let has_length = matches!(request.body, Body::Length(_));
        let is_short = has_length && request.left.get() <= MAX_SKIPPED;
        let is_clear = is_sent || (is_short && !request.expects_continue);
        let may_persist = request.is_persistent && is_clear && !conn.must_end();
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
        down.count_as(Direction::Down);
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
        watch.renew(Limit::new(request.proxy().idle_timeout, End::Idle));
        let passing = pass_body(&mut down, form, upstream, &conn.client);
        let result = beside(passing, sending, sent).await;
        passed.end = end_of(result, form, &down);
        passed.bytes = down.bytes();
        passed.is_reusable &= down.take_behind().is_empty();
        passed.relay = down.why_copied().map_or(Ok(()), Err);
        Ok(passed)
    }

    fn go_on(&mut self, request: &Proxied, passed: &Passed, is_sent: bool, up: &mut Flow) -> Next {
        if passed.end != End::Done {
            self.conn.client.reset_on_close();
            return Next::Drop;
        }
        if passed.persistence == Persistence::Close || (!is_sent && up.is_coded()) {
            return Next::Linger;
        }
        // What the client still sends of its body is read and dropped.
        let unread = if is_sent { Body::NONE } else { Body::Length(up.allowed()) };
        self.resume(unread, behind(request, up));
        Next::Read
    }

    fn send_error(
        &mut self,
        request: &Proxied,
        status: u16,
        line: &'static str,
        behind: Option<Vec<u8>>,
        outcome: &mut Outcome,
    ) -> Next {
        let must_end = self.conn.must_end();
        let behind = behind.filter(|_| request.is_persistent && !must_end);
        let persistence = match request.asked.version() {
            _ if behind.is_none() => Persistence::Close,
            Version::Http11 => Persistence::Persistent,
            Version::Http10 => Persistence::KeepAlive,
        };
        let written = self.answer_error(request.route(), status, line, request.kind, persistence);
        (outcome.bytes_down, outcome.head_down) = (written.bytes, written.head);
        let Some(behind) = behind else { return Next::Linger };
        self.resume(Body::NONE, behind);
        Next::Read
    }

    fn abandon(&mut self) -> Next {
        self.conn.client.reset_on_close();
        Next::Drop
    }
}

/// Passes a body on until it or its source ends.
async fn pass_body(
    down: &mut Flow,
    form: Form,
    upstream: &Upstream<'_>,
    client: &Transport,
) -> Result<(), Broken> {
    down.run(upstream.transport, client, upstream.watch).await?;
    let is_whole = form.is_complete(down) && !form.ends_with_source();
    if is_whole || down.has_protocol_error() {
        return Ok(());
    }
    if upstream.end_is_reset().await {
        return Err(Broken::From(Errno::CONNRESET));
    }
    if form.ends_with_source() {
        down.end();
    }
    down.flush(client, upstream.watch).await
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

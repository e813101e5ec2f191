//! L7: a site. Requests are read, routed and answered; an upgrade is handed to its tunnel.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `connection` | bytes: pipelining, time limits, what waits to be sent |
//! | `exchange` | a request and its response, if it needs no wait: redirects, `respond`, errors |
//! | `files` | a request for a file |
//! | `proxy` | a request that goes on to a cluster |
//! | `asked` | what a request asked for, kept for its record |
//!
//! A turn reads once into the worker's buffer and answers every complete request in it. All its
//! responses are sent by one call, which short ones share with those to other clients. Only the
//! rest (half a head, a response that does not fit the socket) is copied to the connection, so that
//! a connection that waits between two requests holds no buffer.

mod asked;
mod connection;
mod exchange;
mod files;
mod proxy;

use std::future::poll_fn;
use std::task::Poll;

use super::accepted::Accepted;
use super::linger::linger;
use super::tunnel;
use crate::observe::live::Protocol;
use crate::observe::outcome::End;
use crate::timers::{Fired, Limit, OnDrain};
pub(super) use asked::Asked;
use connection::Next;
pub(super) use connection::{Connection, Limits, TOO_LARGE, misdirected};
pub(super) use exchange::respond;
pub(super) use files::{Query, respond as file_response};
pub(super) use proxy::{
    Client, Exchange, Missing, Passed, Proxied, Sent, Source, beside, failed, is_whole,
    pass_interim, response_fields,
};

/// Serves a connection until it ends or becomes a tunnel.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn serve(conn: Accepted) -> impl Future<Output = ()> {
    async move {
        let Some(limits) = Limits::of(&conn.listener) else { return };
        let limit = Limit::new(limits.head_timeout, End::HeadTimeout);
        let watch = conn.watch(limit);
        watch.on_drain(OnDrain::Grace);
        run(&mut Connection::new(&conn, &watch, Vec::new()), None).await;
    }
}

/// Serves a connection. Its watch runs the limit of the first head. `first_fired` is why the watch
/// has ended the wait for the first bytes, if the connection has any.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(super) fn run(
    connection: &mut Connection<'_>,
    mut first_fired: Option<Fired>,
) -> impl Future<Output = ()> {
    async move {
        connection.conn.speaks(Protocol::Http1);

        // 1. Turn after turn, until something other than a request follows.
        let next = loop {
            let mut fired = first_fired.take();
            if connection.must_read() {
                connection.watch.consume_budget().await;
                fired = connection.wait_for_input().await.err();
            } else if connection.has_backlog() {
                // Yield before going on: other tasks of this worker may be ready.
                connection.conn.context.pool.yielder().yield_now().await;
                if !Box::pin(connection.wait_to_write()).await {
                    return;
                }
            }
            // Responses queued in the last turn are sent by now, or must be sent before new ones.
            if !connection.flush().await {
                return;
            }
            match poll_fn(|cx| Poll::Ready(connection.turn(fired, cx.waker()))).await {
                Next::Read => {}
                // Boxed: few connections wait here at a time.
                waiting @ (Next::Proxy(_) | Next::File(_)) => {
                    match Box::pin(exchange(connection, waiting)).await {
                        Next::Read => {}
                        next => break next,
                    }
                }
                next => break next,
            }
            if !connection.is_queued() && !connection.flush().await {
                return;
            }
        };

        // 2. Send what is left, then go on as the last turn has found.
        if matches!(next, Next::Drop) || !connection.flush().await {
            return;
        }
        let (conn, watch) = (connection.conn, connection.watch);
        match next {
            Next::Tunnel(upgrade) => Box::pin(tunnel::serve(conn, watch, *upgrade)).await,
            Next::Linger => linger(conn, watch).await,
            Next::Read | Next::Proxy(_) | Next::File(_) | Next::Drop => {}
        }
    }
}

/// Runs an exchange that has to wait. Returns what comes after it.
async fn exchange(connection: &mut Connection<'_>, waiting: Next) -> Next {
    // Earlier responses go first.
    if !connection.flush().await {
        return Next::Drop;
    }
    match waiting {
        Next::Proxy(request) => connection.proxy(&request).await,
        Next::File(mut wanted) => connection.file(&mut wanted).await,
        next => next,
    }
}

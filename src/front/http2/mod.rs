//! HTTP/2 towards clients (RFC 9113), over TLS whose handshake has agreed on it.
//!
//! | file | what it does |
//! | --- | --- |
//! | `io` | gives the transport to the `h2` crate |
//! | `head` | a head of HTTP/2 becomes one of HTTP/1.1, and a response the other way |
//! | `stream` | one request and its response: what can be answered at once is |
//! | `proxy` | a request that goes on to a cluster |
//! | `piece` | bytes of a body, shared or counted |
//! | `send` | bodies on their way to the client, as fast as it takes them |
//! | `skip` | what a client still sends of a body when it has its response |
//!
//! A head becomes one of HTTP/1.1 in bytes and is then parsed, checked and routed like any other: a
//! request means the same in both versions. Each stream that has to wait is a task of its own. It
//! has its own limits; those of the connection run while it has no stream.

mod head;
mod io;
mod piece;
mod proxy;
mod send;
mod skip;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use h2::Reason;
use h2::server::{Builder, Connection};

use super::accepted::Accepted;
use super::admission::Permit;
use super::http::Limits;
use super::linger::linger;
use crate::observe::live::Protocol;
use crate::observe::outcome::End;
use crate::timers::{Fired, Limit, OnDrain, Watch};
use io::Io;
use piece::{Piece, Unsent};

/// The name of the protocol in TLS (RFC 9113 section 3.2).
pub(super) const ALPN: &str = "h2";
/// Streams that a client may have open at once.
const MAX_STREAMS: u32 = 100;
/// Bytes that a client may send on a stream before the cluster has taken them. nginx and the guide
/// of Envoy for the edge have 64 KiB. Twice as much lets a single upload over a path of 50 ms be
/// twice as fast, 2.6 MB/s.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all of its streams together, as in Envoy's guide: a client cannot make a worker
/// keep more. Uploads that their clusters do not take fill one stream's window each, so there may
/// be seven of them before the others of the connection have to wait. These bytes are in the queues
/// of the crate, which the worker's budget does not count: 64 connections that are filled up keep
/// as much as the budget.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a stream that are given to the crate and not sent yet, at most.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the client has reset and that no task has accepted yet. Beyond it the connection
/// ends: the requests of a rapid reset cost the client nothing (CVE-2023-44487).
const MAX_RESET: usize = 20;

/// How long the last frames may take.
const LAST: Duration = Duration::from_secs(5);
/// How long a connection that ends waits for new streams that are on their way when the last one
/// has ended. A client that answers the PING of the crate ends the wait.
const PONG: Duration = Duration::from_secs(1);

/// What the streams of a connection share.
struct Shared {
    conn: Rc<Accepted>,
    /// Streams whose tasks run.
    open: Cell<usize>,
    /// Whether the second descriptor of the connection's place is free.
    has_place: Cell<bool>,
    /// When the last stream began or ended.
    active: Cell<Instant>,
    /// Set when a stream begins, until the task of the connection looks.
    has_begun: Cell<bool>,
    /// Wakes the task of a connection that is to end when the last stream has ended.
    ending: Cell<Option<Waker>>,
    /// What was read for the streams.
    unsent: Rc<Unsent>,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is not to end yet.
    Open,
    /// The client was told that no new stream is accepted, and some are open.
    Ending,
    /// None is open any more.
    Idle,
    /// The last frame is on its way.
    Last,
}

/// What the task of a connection has waited for.
enum Event {
    /// The connection has ended, with false if it was cut off.
    Ended(bool),
    /// Its watch has fired.
    Fired(Fired),
    /// It is to end, and its last stream has ended.
    Idle,
}

/// Serves a connection whose TLS handshake has agreed on HTTP/2.
pub(super) async fn serve(conn: Accepted) {
    let conn = Rc::new(conn);
    let Some(limits) = Limits::of(&conn.listener) else { return };
    let _reset = ResetOnPanic(&conn);
    let limit = Limit::new(limits.head_timeout, End::HeadTimeout);
    let watch = conn.watch(limit);
    watch.on_drain(OnDrain::Grace);
    conn.speaks(Protocol::Http2);
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(limits.max_head as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_RESET);
    let io = Io::new(conn.client.clone(), conn.context.pool.yielder());
    let mut handshake = pin!(builder.handshake::<_, Piece>(io.clone()));
    let begun = poll_fn(|cx| {
        if watch.poll_fired(cx.waker()).is_ready() {
            return Poll::Ready(None);
        }
        let begun = handshake.as_mut().poll(cx).map(Result::ok);
        // An error is found again by the crate, which reads.
        let _ = io.poll_send(cx);
        begun
    });
    // A client that does not begin with the preface has asked for nothing.
    let Some(mut connection) = begun.await else { return conn.client.reset_on_close() };
    let shared = Rc::new(Shared {
        conn: Rc::clone(&conn),
        open: Cell::new(0),
        has_place: Cell::new(true),
        active: Cell::new(Instant::now()),
        has_begun: Cell::new(false),
        ending: Cell::default(),
        unsent: Rc::default(),
    });
    watch.renew(Limit::new(limits.keepalive_timeout, End::Idle));
    watch.join_group(conn.listener.group());
    if run(&mut connection, &io, &shared, &watch).await {
        // The last frames must arrive, whatever the client goes on sending.
        linger(&conn, &watch).await;
    } else {
        conn.client.reset_on_close();
    }
}

/// Accepts streams until the connection ends. Returns false if it was cut off.
async fn run(
    connection: &mut Connection<Io, Piece>,
    io: &Io,
    shared: &Rc<Shared>,
    watch: &Watch,
) -> bool {
    let idle = |shared: &Shared| Limit::new(shared.keepalive_timeout(), End::Idle);
    let mut phase = Phase::Open;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(fired) = watch.poll_fired(cx.waker()) {
                return Poll::Ready(Event::Fired(fired));
            }
            if let Poll::Ready(is_clean) = poll_streams(connection, io, shared, cx) {
                return Poll::Ready(Event::Ended(is_clean));
            }
            // Until then its first request may be on its way, as on a connection of HTTP/1.1.
            if shared.has_begun.take() && phase == Phase::Open {
                watch.on_drain(OnDrain::Now);
                // A reload may have changed it.
                watch.restart(idle(shared));
                if shared.conn.must_end() {
                    return Poll::Ready(Event::Fired(Fired::Drained));
                }
            }
            if phase == Phase::Ending {
                if !is_busy(connection, shared) {
                    return Poll::Ready(Event::Idle);
                }
                shared.ending.set(Some(cx.waker().clone()));
            }
            Poll::Pending
        });
        match event.await {
            Event::Ended(is_clean) => return is_clean,
            Event::Idle => {
                phase = Phase::Idle;
                watch.renew(Limit::new(PONG, End::Idle));
            }
            Event::Fired(Fired::Closed) => return false,
            // Streams have limits of their own.
            Event::Fired(Fired::TimedOut(_)) if shared.open.get() > 0 && phase != Phase::Last => {
                if phase == Phase::Idle {
                    phase = Phase::Ending;
                }
                watch.renew(idle(shared));
            }
            Event::Fired(Fired::TimedOut(_)) if phase == Phase::Open && shared.is_active() => {
                watch.renew(idle(shared));
            }
            // The client hears that the connection ends, and may end the streams that are open. A
            // request that is on its way is still served: the GOAWAY that says which ones were
            // follows when the client has answered a PING, or after PONG (RFC 9113 section 6.8).
            // When the time of a drain is over, only streams that are open are waited for.
            Event::Fired(_)
                if phase == Phase::Open
                    && (is_busy(connection, shared) || !shared.conn.context.timers.all_ended()) =>
            {
                phase = Phase::Ending;
                connection.graceful_shutdown();
                watch.on_drain(OnDrain::Wait);
                watch.renew(idle(shared));
            }
            // The time of the drain is over. The streams reset themselves first: without that the
            // end of the connection could pass for that of a response.
            Event::Fired(Fired::Drained)
                if phase == Phase::Ending && is_busy(connection, shared) =>
            {
                phase = Phase::Last;
                watch.renew(Limit::new(LAST, End::Idle));
            }
            // A request that comes now was not accepted, and the client knows.
            Event::Fired(_) if phase != Phase::Last => {
                phase = Phase::Last;
                connection.abrupt_shutdown(Reason::NO_ERROR);
                watch.on_drain(OnDrain::Wait);
                watch.renew(Limit::new(LAST, End::Idle));
            }
            Event::Fired(_) => return false,
        }
    }
}

/// Returns true if a stream waits for its response, or the end of a response was not sent yet.
fn is_busy(connection: &Connection<Io, Piece>, shared: &Shared) -> bool {
    shared.open.get() > 0 || connection.has_streams()
}

/// Accepts the streams that have arrived, and sends all that is answered by now. Ready when the
/// connection has ended, with false if it was cut off.
fn poll_streams(
    connection: &mut Connection<Io, Piece>,
    io: &Io,
    shared: &Rc<Shared>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    loop {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => stream::begin(shared, request, respond),
            // The crate has told the client why.
            Poll::Ready(Some(Err(error))) => return Poll::Ready(!error.is_io()),
            Poll::Ready(None) => return Poll::Ready(true),
            Poll::Pending => break,
        }
    }
    match io.poll_send(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(false),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

impl Shared {
    /// Returns true if a stream has begun or ended within the limit of the connection.
    fn is_active(&self) -> bool {
        self.active.get().elapsed() < self.keepalive_timeout()
    }

    /// That of the listener at present, or the last one if it was removed.
    fn keepalive_timeout(&self) -> Duration {
        Limits::of(&self.conn.listener).map_or(Duration::ZERO, |limits| limits.keepalive_timeout)
    }
}

/// Makes the close a reset if the task of the connection panics. Its streams have tasks of their
/// own, which hold the connection until they end.
struct ResetOnPanic<'a>(&'a Accepted);

impl Drop for ResetOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.client.reset_on_close();
        }
    }
}

/// The descriptor that a stream waits with: a connection to a cluster, or a file. The place of the
/// client's connection has one; for each further one a stream takes a place of its own.
struct Place {
    shared: Rc<Shared>,
    /// `None` for the one that comes with the client's connection.
    permit: Option<Permit>,
}

impl Place {
    /// `None` if the worker has no place left. No stream waits for one, so streams cannot wait for
    /// each other.
    fn take(shared: &Rc<Shared>) -> Option<Place> {
        let permit = match shared.has_place.replace(false) {
            true => None,
            false => Some(shared.conn.context.load.permit_for_stream()?),
        };
        Some(Place { shared: Rc::clone(shared), permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.permit.is_none() {
            return self.shared.has_place.set(true);
        }
        // The permit itself is dropped after this function, before the woken task runs.
        self.shared.conn.context.waiting_accepts.wake_front();
    }
}

/// A stream that is counted.
struct Open(Rc<Shared>);

impl Open {
    fn new(shared: &Rc<Shared>) -> Open {
        shared.open.set(shared.open.get() + 1);
        Open(Rc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.active.set(Instant::now());
        if self.0.open.get() == 0
            && let Some(waker) = self.0.ending.take()
        {
            waker.wake();
        }
    }
}

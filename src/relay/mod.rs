//! Relays two streams: bytes go both ways, ends and resets are passed on, silence is limited.
//!
//! | event on one stream | what the other stream gets | what goes on |
//! | --- | --- | --- |
//! | end (FIN) | what was read before, then the end | the other direction, half-closed limit |
//! | end after the other stream's end | the same | nothing: both are closed |
//! | reset | a reset, never a clean end | nothing |
//! | end of TLS without close_notify | what was read before, then a reset | nothing |
//! | a write to it fails | what it had sent; then, or when a write would wait, a reset | nothing |
//! | idle limit, no unsent bytes | the end, sent by the relay | nothing |
//! | idle limit, unsent bytes | a reset | nothing |
//! | half-closed limit, after the other stream's end | a reset | nothing |
//! | the worker ends first | a reset | nothing |
//!
//! One task runs both directions. An idle relay holds two descriptors, no buffer and no pipe. The
//! module knows neither configuration nor clusters: callers pass in the streams and the limits.

mod flow;
mod pool;
mod sender;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

pub use flow::{Broken, Flow};
pub use pool::{BUFFER_SIZE, PipeLease, Pool};
pub use sender::Sender;

use crate::observe::live::Direction;
use crate::observe::outcome::End;
use crate::timers::{Fired, Limit, Stall, Watch};
use crate::transport::Transport;

/// One of the two streams of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The accepted stream.
    Client,
    /// The connected stream.
    Upstream,
}

/// Why a relay stopped before both directions had ended.
enum Stop {
    /// The stream of this side failed.
    Broke(Side),
    /// The limit of the connection has fired.
    Fired(Fired),
}

/// Relays until both directions have ended, one has failed, or the limit has fired. Returns the
/// reason. Bytes are counted while they move. `watch` must watch both streams and run the idle
/// limit. Afterwards the caller only drops the streams: where bytes are missing they are set to
/// reset on close.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub fn run(
    client: &Transport,
    upstream: &Transport,
    up: &mut Flow,
    down: &mut Flow,
    watch: &Watch,
    half_closed: Duration,
) -> impl Future<Output = End> {
    async move {
        up.count_as(Direction::Up);
        down.count_as(Direction::Down);
        let relay = Relay {
            client,
            upstream,
            watch,
            half_closed,
            first_end: Cell::new(None),
            unread: Cell::new(None),
            failed_write: Cell::new(None),
        };
        let result = loop {
            let result = {
                let up = pin!(async {
                    let result = up.run(client, upstream, watch).await;
                    let result = up.deliver_if_truncated(result, upstream, watch).await;
                    if matches!(result, Err(Broken::From(_) | Broken::To(_))) {
                        up.mark_unread();
                    }
                    relay.end_direction(result, Side::Client)
                });
                let down = pin!(async {
                    let result = down.run(upstream, client, watch).await;
                    let result = down.deliver_if_truncated(result, client, watch).await;
                    relay.end_direction(result, Side::Upstream)
                });
                both(up, down, || relay.is_stuck()).await
            };
            match (result, relay.failed_write.get()) {
                // The limit fired before the task could read what has arrived: relay that first.
                (Err(Stop::Fired(Fired::TimedOut(_))), None)
                    if up.is_behind(client, upstream) || down.is_behind(upstream, client) =>
                {
                    watch.again();
                }
                // A write to this side had failed before. Now its remaining bytes are relayed, or
                // the limit for them has run out.
                (Ok(()) | Err(Stop::Fired(Fired::TimedOut(_))), Some(side)) => {
                    break Err(Stop::Broke(side));
                }
                (result, _) => break result,
            }
        };
        // A direction may have bytes in the outbox when the other one fails. After `finish_queued`
        // only the bytes that were sent are counted.
        let _ = (up.finish_queued(upstream), down.finish_queued(client));
        let has_unsent = up.has_unsent(upstream) || down.has_unsent(client);
        relay.conclude(result, has_unsent)
    }
}

/// What both directions of a running relay know.
struct Relay<'r> {
    client: &'r Transport,
    upstream: &'r Transport,
    watch: &'r Watch,
    half_closed: Duration,
    /// The side whose end was read first.
    first_end: Cell<Option<Side>>,
    /// That side is not read any more, so the watch must look for a reset of it.
    unread: Cell<Option<Stall<'r>>>,
    /// The side that a write has failed to. The failed write has consumed the socket's error, so no
    /// later call reports it.
    failed_write: Cell<Option<Side>>,
}

impl Relay<'_> {
    /// Handles the end of the direction that comes from this side.
    fn end_direction(&self, result: Result<(), Broken>, from: Side) -> Result<(), Stop> {
        match result {
            // After a failed write to this side, an end read from it is part of a reset.
            Ok(()) if self.failed_write.get() == Some(from) => Err(Stop::Broke(from)),
            Ok(()) => {
                // After the second end both streams are closed, which sends the end as well.
                if self.first_end.get().is_none() {
                    self.first_end.set(Some(from));
                    self.unread.set(Some(self.watch.stall()));
                    self.limit_the_other_direction();
                    let to = if from == Side::Client { self.upstream } else { self.client };
                    to.shutdown_write();
                }
                Ok(())
            }
            Err(Broken::From(_)) => Err(Stop::Broke(from)),
            // A peer that takes no more bytes may have sent the reason before it closed: go on
            // reading what it sent.
            Err(Broken::To(_)) => {
                self.failed_write.set(Some(from.other()));
                self.limit_the_other_direction();
                Ok(())
            }
            Err(Broken::Fired(fired)) => Err(Stop::Fired(fired)),
        }
    }

    fn limit_the_other_direction(&self) {
        self.watch.restart(Limit::new(self.half_closed, End::HalfClosedTimeout));
    }

    /// Returns the side that a write has failed to if the other direction cannot go on: it goes on
    /// with what that peer had sent, until one of its writes has to wait.
    fn is_stuck(&self) -> Option<Stop> {
        self.failed_write.get().filter(|_| self.watch.is_stalled()).map(Stop::Broke)
    }

    /// Returns the end of the relay, and sets the streams to reset where bytes are missing.
    fn conclude(&self, result: Result<(), Stop>, has_unsent: bool) -> End {
        match (result, self.first_end.get()) {
            (Ok(()), Some(Side::Upstream)) => End::Upstream,
            (Ok(()), _) => End::Client,
            (Err(Stop::Broke(side)), _) => break_off(self.client, self.upstream, side),
            // No bytes are missing: each side has everything that the other one has sent.
            (Err(Stop::Fired(Fired::TimedOut(End::Idle))), None) if !has_unsent => End::Idle,
            (Err(Stop::Fired(fired)), first_end) => {
                cut_off(self.client, self.upstream);
                match (fired, first_end) {
                    // The first end was read as the idle limit fired.
                    (Fired::TimedOut(_), Some(_)) => End::HalfClosedTimeout,
                    _ => fired.end(),
                }
            }
        }
    }
}

/// Passes a reset on: resets both streams on close and returns the matching end.
pub fn break_off(client: &Transport, upstream: &Transport, broken: Side) -> End {
    cut_off(client, upstream);
    let has_failed = |side: &Transport| side.tls().is_some_and(|tls| tls.failure().is_some());
    match broken {
        Side::Client if has_failed(client) => End::TlsFailed,
        Side::Upstream if has_failed(upstream) => End::UpstreamTlsFailed,
        Side::Client => End::ClientReset,
        Side::Upstream => End::UpstreamReset,
    }
}

/// Makes the close of both streams a reset, so that neither peer takes an incomplete transfer for a
/// complete one.
pub fn cut_off(client: &Transport, upstream: &Transport) {
    client.reset_on_close();
    upstream.reset_on_close();
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        }
    }
}

/// Runs both futures in the calling task until both are done or one has failed. When neither can go
/// on, `failure` may return an error that ends the wait. The futures are passed in pinned: moved
/// into this function, each would be stored twice in an idle relay.
fn both<'f, E>(
    mut left: Pin<&'f mut impl Future<Output = Result<(), E>>>,
    mut right: Pin<&'f mut impl Future<Output = Result<(), E>>>,
    failure: impl Fn() -> Option<E>,
) -> impl Future<Output = Result<(), E>> {
    let (mut left_done, mut right_done) = (false, false);
    poll_fn(move |cx| {
        // A future that is done must not be polled again.
        if !left_done && let Poll::Ready(result) = left.as_mut().poll(cx) {
            left_done = true;
            if let Err(error) = result {
                return Poll::Ready(Err(error));
            }
        }
        if !right_done && let Poll::Ready(result) = right.as_mut().poll(cx) {
            right_done = true;
            if let Err(error) = result {
                return Poll::Ready(Err(error));
            }
        }
        if left_done && right_done {
            return Poll::Ready(Ok(()));
        }
        failure().map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    })
}

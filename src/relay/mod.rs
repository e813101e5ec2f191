//! Two streams become one connection: bytes both ways, ends and resets passed on, silence limited.
//!
//! | a stream says | what the other one gets | what goes on |
//! | --- | --- | --- |
//! | end (FIN) | what was read before, then the end | the other direction, half-closed limit |
//! | end, and the other had ended | the same | nothing: both are closed |
//! | reset | a reset, never a clean end | nothing |
//! | a refusal: a write to it fails | what it had sent, then a reset; no wait | nothing |
//! | nothing for too long, and nothing was in between | the end, from us | nothing |
//! | nothing for too long, with bytes in between | a reset | nothing |
//! | nothing for too long after the other had ended | a reset | nothing |
//! | the worker ends first | a reset | nothing |
//!
//! One task runs both directions. An idle relay holds two descriptors, no buffer and no pipe. Knows
//! neither configuration nor clusters: it is given streams and limits.

mod baton;
mod coding;
mod flow;
mod pool;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

pub use coding::Coding;
pub use flow::{Broken, Flow};
pub use pool::{BUDGET, BUFFER_SIZE, Charge, Pool, SMALL};

use crate::observe::access_log::End;
use crate::sys::Stream;
use crate::timers::{Fired, Watch};

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was accepted.
    Client,
    /// The one that was connected.
    Upstream,
}

/// Why a relay stopped before both directions had ended.
enum Stop {
    /// This side broke.
    Broke(Side),
    /// The limit has fired.
    Fired(Fired),
}

/// Relays until both directions have ended, one has broken, or the limit has fired; says which. The
/// watch must watch both streams and run the idle limit. The streams are then only to be dropped:
/// where bytes are missing they are set to reset.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub fn run(
    client: &Rc<Stream>,
    upstream: &Rc<Stream>,
    up: &mut Flow,
    down: &mut Flow,
    watch: &Watch,
    half_closed: Duration,
) -> impl Future<Output = End> {
    async move {
        let first_end = Cell::new(None);
        let unread = Cell::new(None);
        // The side that a write has failed to.
        let refused = Cell::new(None);
        let judge = |result: Result<(), Broken>, from: Side| match result {
            // What looks like an end behind a refused write is what is left of a reset.
            Ok(()) if refused.get() == Some(from) => Err(Stop::Broke(from)),
            Ok(()) => {
                if first_end.get().is_none() {
                    first_end.set(Some(from));
                    watch.restart(half_closed);
                    // That side is not read from any more.
                    unread.set(Some(watch.stall()));
                    let to = if from == Side::Client { upstream } else { client };
                    to.shutdown_write();
                }
                // Behind the last end both streams are closed, which says the same.
                Ok(())
            }
            Err(Broken::From(_)) => Err(Stop::Broke(from)),
            // A peer that takes no more may have said why before it left: what it sent is still to
            // be read.
            Err(Broken::To(_)) => {
                refused.set(Some(from.other()));
                watch.restart(half_closed);
                Ok(())
            }
            Err(Broken::Fired(fired)) => Err(Stop::Fired(fired)),
        };
        // A failed write takes the error from the socket, so that nothing else reports it. The
        // other direction goes on with what that peer had sent, as long as it need not wait to
        // write it.
        let is_stuck = || refused.get().filter(|_| watch.is_stalled()).map(Stop::Broke);
        let result = loop {
            let result = {
                let up = pin!(async {
                    let result = up.run(client, upstream, watch).await;
                    if matches!(result, Err(Broken::From(_) | Broken::To(_))) {
                        up.abandon();
                    }
                    judge(result, Side::Client)
                });
                let down =
                    pin!(async { judge(down.run(upstream, client, watch).await, Side::Upstream) });
                both(up, down, is_stuck).await
            };
            match (result, refused.get()) {
                // The limit fired before the task had a turn to read what has arrived.
                (Err(Stop::Fired(Fired::TimedOut)), None)
                    if up.is_behind(client) || down.is_behind(upstream) =>
                {
                    watch.again();
                }
                // The limit of what was left, or its end: that side had gone before.
                (Ok(()) | Err(Stop::Fired(Fired::TimedOut)), Some(side)) => {
                    break Err(Stop::Broke(side));
                }
                (result, _) => break result,
            }
        };
        // Of what one direction has queued while the other broke, only what was sent counts.
        let _ = (up.settle(), down.settle());
        let in_between = up.has_unsent() || down.has_unsent();
        match (result, first_end.get()) {
            (Ok(()), Some(Side::Upstream)) => End::Upstream,
            (Ok(()), _) => End::Client,
            (Err(Stop::Broke(side)), _) => break_off(client, upstream, side),
            (Err(Stop::Fired(Fired::ClientReset)), _) => break_off(client, upstream, Side::Client),
            (Err(Stop::Fired(Fired::UpstreamReset)), _) => {
                break_off(client, upstream, Side::Upstream)
            }
            // Nothing is missing: both sides have everything that the other one has sent.
            (Err(Stop::Fired(Fired::TimedOut)), None) if !in_between => End::Idle,
            (Err(Stop::Fired(fired)), first_end) => {
                cut_off(client, upstream);
                match (fired, first_end) {
                    (Fired::Drained, _) => End::Drain,
                    (_, None) => End::Idle,
                    (_, Some(_)) => End::HalfClosedTimeout,
                }
            }
        }
    }
}

/// Passes a reset on: what is left of both streams ends without a clean close.
pub fn break_off(client: &Stream, upstream: &Stream, broken: Side) -> End {
    cut_off(client, upstream);
    match broken {
        Side::Client => End::ClientReset,
        Side::Upstream => End::UpstreamReset,
    }
}

/// Makes the close of both streams a reset: neither peer must take what it has for all there is.
pub fn cut_off(client: &Stream, upstream: &Stream) {
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

/// Runs both futures in the calling task until both are done, one has failed, or `failure` gives an
/// error for one that waits. They are taken as they are pinned: moved in here, an idle relay would
/// hold each of them twice.
fn both<'f, E>(
    mut left: Pin<&'f mut impl Future<Output = Result<(), E>>>,
    mut right: Pin<&'f mut impl Future<Output = Result<(), E>>>,
    failure: impl Fn() -> Option<E>,
) -> impl Future<Output = Result<(), E>> {
    let (mut left_done, mut right_done) = (false, false);
    poll_fn(move |cx| {
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

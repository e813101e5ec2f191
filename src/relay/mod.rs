//! Two streams become one connection: bytes both ways, ends and resets passed on, silence limited.
//!
//! | a stream says | what the other one gets | what goes on |
//! | --- | --- | --- |
//! | end (FIN) | what was read before, then the end | the other direction, half-closed limit |
//! | end, and the other had ended | the same | nothing: both are closed |
//! | reset, or a write to it fails | a reset, never a clean end | nothing |
//! | nothing for too long | the end, from us | nothing |
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
pub use pool::{BUFFER_SIZE, Pool};

use crate::observe::access_log::End;
use crate::sys::Stream;
use crate::timers::{Expiry, Fired, Watch};

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was accepted.
    Client,
    /// The one that was connected.
    Upstream,
}

/// Relays until both directions have ended, one has broken, or the watch has fired; says which. The
/// watch must watch both streams and run the idle limit. The streams are then only to be dropped:
/// after a break they are set to reset.
pub async fn run(
    client: &Rc<Stream>,
    upstream: &Rc<Stream>,
    up: &mut Flow,
    down: &mut Flow,
    watch: &Watch,
    half_closed: Duration,
) -> End {
    let first_end = Cell::new(None);
    let unread = Cell::new(None);
    let ended = |side| {
        // The end of a limit looks like the end of both streams; it is neither side's doing.
        if watch.fired() != Fired::No {
            return Err(side);
        }
        if first_end.get().is_none() {
            first_end.set(Some(side));
            watch.restart(half_closed, Expiry::Both);
            // That side is not read from any more.
            unread.set(Some(watch.stall()));
        }
        Ok(())
    };
    let refused = Cell::new(None);
    let judge = |result: Result<(), Broken>, from: Side| match result {
        // What looks like an end behind a refused write is what is left of a reset.
        Ok(()) if refused.get() == Some(from) => Err(from),
        Ok(()) => {
            let last = first_end.get().is_some();
            ended(from)?;
            // Behind the last end both streams are closed, which says the same.
            if !last {
                let to = if from == Side::Client { upstream } else { client };
                to.shutdown_write();
            }
            Ok(())
        }
        Err(Broken::From(_)) => Err(from),
        // A peer that takes no more may have said why before it left: what it sent is still to be
        // read.
        Err(Broken::To(_)) => {
            refused.set(Some(from.other()));
            ended(from.other())
        }
    };
    let result = {
        let up = pin!(async {
            let result = up.run(client, upstream, watch).await;
            if result.is_err() {
                up.abandon();
            }
            judge(result, Side::Client)
        });
        let down = pin!(async { judge(down.run(upstream, client, watch).await, Side::Upstream) });
        both(up, down).await.and_then(|()| refused.get().map_or(Ok(()), Err))
    };
    // Of what one direction has queued while the other broke, only what was sent counts.
    let _ = (up.settle(), down.settle());
    match (watch.fired(), result, first_end.get()) {
        (Fired::TimedOut, _, None) => End::Idle,
        (Fired::TimedOut, _, Some(_)) => End::HalfClosedTimeout,
        (Fired::Drained, ..) => End::Drain,
        (Fired::ClientReset, ..) => break_off(client, upstream, Side::Client),
        (Fired::UpstreamReset, ..) => break_off(client, upstream, Side::Upstream),
        (Fired::No, Err(side), _) => break_off(client, upstream, side),
        (Fired::No, Ok(()), Some(Side::Upstream)) => End::Upstream,
        (Fired::No, Ok(()), _) => End::Client,
    }
}

/// Passes a reset on: what is left of both streams ends without a clean close.
pub fn break_off(client: &Stream, upstream: &Stream, broken: Side) -> End {
    client.reset_on_close();
    upstream.reset_on_close();
    match broken {
        Side::Client => End::ClientReset,
        Side::Upstream => End::UpstreamReset,
    }
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        }
    }
}

/// Runs both futures in the calling task until both are done or one has failed. They are taken as
/// they are pinned: moved in here, an idle relay would hold each of them twice.
fn both<'f, E>(
    mut left: Pin<&'f mut impl Future<Output = Result<(), E>>>,
    mut right: Pin<&'f mut impl Future<Output = Result<(), E>>>,
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
        if left_done && right_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
}

//! The limit of one connection, and the waits of its task, which fail when the limit has fired.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Conn, SLACK, TICK, Timers, ticks};
use crate::observe::outcome::End;
use crate::sys::Stream;
use crate::transport::Transport;

/// A time limit, and how a connection ends when it runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The time from now, or from the last activity, until it fires.
    pub time: Duration,
    /// Why the connection ends then.
    pub end: End,
}

impl Limit {
    /// Makes a limit.
    pub fn new(time: Duration, end: End) -> Limit {
        Limit { time, end }
    }
}

/// Why a wait failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The limit ran out.
    TimedOut(End),
    /// The worker drains or stops.
    Drained,
    /// The client reset the connection while its stream was not read.
    ClientReset,
    /// The client ended its side while it waited for a response.
    ClientEnded,
    /// The upstream reset the connection while its stream was not read.
    UpstreamReset,
    /// The connection is to be closed at once. No other limit follows.
    Closed,
}

impl Fired {
    /// Why the connection ends. This is the only place where a limit that has fired becomes the end
    /// of an outcome.
    pub fn end(self) -> End {
        match self {
            Fired::TimedOut(end) => end,
            Fired::Drained => End::Drain,
            Fired::ClientReset => End::ClientReset,
            Fired::ClientEnded => End::Client,
            Fired::UpstreamReset => End::UpstreamReset,
            Fired::Closed => End::AdminClosed,
        }
    }
}

/// A running limit. Dropping it ends the watch. It holds references to its streams, so they are
/// closed only after it is dropped.
pub struct Watch {
    pub(super) timers: Rc<Timers>,
    pub(super) key: usize,
}

impl Watch {
    pub(super) fn new(timers: Rc<Timers>, key: usize) -> Watch {
        Watch { timers, key }
    }

    /// Waits until a read would not block. May be dropped at any time. A task whose transport
    /// is always ready yields here.
    ///
    /// # Errors
    /// A limit, a drain or a reset has ended the wait. Bytes may have arrived at the same time, so
    /// read once more.
    pub async fn readable(&self, transport: &Transport) -> Result<(), Fired> {
        self.consume_budget().await;
        let mut ready = pin!(transport.readable());
        poll_fn(|cx| self.poll(ready.as_mut(), cx)).await
    }

    /// Waits until a write would not block. May be dropped at any time. A task whose stream is
    /// always ready yields here.
    ///
    /// # Errors
    /// A limit, a drain or a reset has ended the wait.
    pub async fn writable(&self, stream: &Stream) -> Result<(), Fired> {
        self.consume_budget().await;
        let mut ready = pin!(stream.writable());
        poll_fn(|cx| self.poll(ready.as_mut(), cx)).await
    }

    /// Counts a wait against the worker's budget, and yields when that is spent. For a caller that
    /// waits by [`Watch::poll`].
    pub async fn consume_budget(&self) {
        self.timers.yielder.consume_budget().await;
    }

    /// Polls `ready`, and fails if the limit has fired. It is [`Watch::readable`] for a caller that
    /// also waits for something else, and saves the memory of one more future.
    ///
    /// # Errors
    /// A limit, a drain or a reset has ended the wait.
    pub fn poll(
        &self,
        ready: Pin<&mut impl Future<Output = ()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fired>> {
        match self.poll_fired(cx.waker()) {
            Poll::Ready(fired) => Poll::Ready(Err(fired)),
            Poll::Pending => ready.poll(cx).map(Ok),
        }
    }

    /// Ready if the limit has fired. Otherwise the waker is called when it fires.
    pub fn poll_fired(&self, waker: &Waker) -> Poll<Fired> {
        let replaced = self.conn(|conn| {
            if let Some(fired) = conn.fired {
                return Err(fired);
            }
            // Usually a single task waits for a connection, so this is nearly always the same
            // waker.
            let known = conn.waker.as_ref().is_some_and(|known| known.will_wake(waker));
            Ok(if known { None } else { conn.waker.replace(waker.clone()) })
        });
        match replaced {
            Err(fired) => Poll::Ready(fired),
            // The old waker is dropped here, where the state is not borrowed.
            Ok(_replaced) => Poll::Pending,
        }
    }

    /// Returns why waits fail; `None` if they do not.
    pub fn fired(&self) -> Option<Fired> {
        self.conn(|conn| conn.fired)
    }

    /// Starts the limit anew after activity.
    pub fn touch(&self) {
        self.timers.state.borrow_mut().conns.touch(self.key);
    }

    /// Starts another limit now. If one has fired, it stays: the next wait fails with it.
    pub fn restart(&self, limit: Limit) {
        let conns = &mut self.timers.state.borrow_mut().conns;
        conns[self.key].limit_end = limit.end;
        conns.restart(self.key, ticks(limit.time));
    }

    /// Starts another limit now, even after one that has fired: the caller has handled that one.
    /// [`Fired::Closed`] stays.
    pub fn renew(&self, limit: Limit) {
        self.restart(limit);
        let conns = &mut self.timers.state.borrow_mut().conns;
        let fired = &mut conns[self.key].fired;
        if fired.take_if(|fired| *fired != Fired::Closed).is_some() {
            conns.schedule(self.key);
        }
    }

    /// Starts the limit that has fired anew, because there was something to read when it fired.
    pub fn again(&self) {
        let limit = {
            let conns = &self.timers.state.borrow().conns;
            Limit::new(TICK * (conns.limit(self.key) - SLACK), conns[self.key].limit_end)
        };
        self.renew(limit);
    }

    pub(super) fn conn<T>(&self, change: impl FnOnce(&mut Conn) -> T) -> T {
        change(&mut self.timers.state.borrow_mut().conns[self.key])
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let conn = self.timers.state.borrow_mut().conns.remove(self.key);
        // Dropped while nothing is borrowed: it holds streams, and a waker may be the last
        // reference to its task.
        drop(conn);
    }
}

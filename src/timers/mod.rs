//! All time limits of a worker, driven by one coarse tick.
//!
//! A connection has one limit, and its task waits through a [`Watch`]. A limit that runs out wakes
//! the task, and its wait fails with the reason. The sockets are left as they are, so the task
//! decides what the peers see. Limits cost nothing while bytes flow (see `wheel`). They are never
//! early. They are at most 150 ms late as long as a turn of the event loop takes less than 100 ms.
//!
//! Each worker has its own time: a late tick advances it by `MAX_ADVANCE` ticks at most. A stop of
//! the process (SIGSTOP, a paused machine, a CPU quota) costs a limit two ticks at most. On an
//! overloaded worker all limits last longer. A task whose wait fails still reads what has arrived.
//!
//! A watch also handles what needs the same list of connections, but is no time limit: resets of
//! streams that are not read (`stall`), the end by a drain (`drain`), TCP keepalive for the
//! upstream's stream (`upstream`), the bytes that have moved (`progress`), and what is open
//! (`listing`).

mod drain;
mod listing;
mod progress;
mod stall;
mod upstream;
mod watch;
mod wheel;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

pub use drain::OnDrain;
pub use listing::{Order, Shown};
pub use stall::Stall;
pub use watch::{Fired, Limit, Watch};

use crate::observe::live::Live;
use crate::observe::outcome::End;
use crate::sched::Yielder;
use crate::sys::{Keepalive, Stream};
use progress::Progress;
use stall::{STALL_CHECK, Stalls};
use wheel::Wheel;

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(TICK_MILLIS);
const TICK_MILLIS: u64 = 50;

/// The most ticks by which a late tick advances time.
const MAX_ADVANCE: u32 = 2;

/// Ticks that are added to a limit, because the current tick has partly passed and the next one may
/// come late.
const SLACK: u32 = 2;

/// Converts a limit to ticks: rounded up, plus `SLACK`, so that it is never early.
pub fn ticks(limit: Duration) -> u32 {
    // In 64 bits, because requests restart limits: a division of 128 bits is a call.
    let millis = limit.as_secs().saturating_mul(1000).saturating_add(limit.subsec_millis().into());
    let ticks = millis.div_ceil(TICK_MILLIS).saturating_add(SLACK.into());
    // At most half the range, so that relative comparisons are right. That is 3.4 years.
    ticks.min(i32::MAX as u64) as u32
}

/// The limits of one worker.
pub struct Timers {
    /// When time was advanced last.
    ticked: Cell<Instant>,
    yielder: Rc<Yielder>,
    /// Whether [`Timers::end_all`] was called.
    all_ended: Cell<bool>,
    live: Live,
    state: RefCell<State>,
}

struct State {
    /// A connection is scheduled in the wheel until its limit fires.
    conns: Wheel<Conn>,
    /// Keys of connections that have a [`Stall`].
    stalled: Vec<u32>,
}

/// A connection that is watched.
struct Conn {
    client: Rc<Stream>,
    upstream: Option<Rc<Stream>>,
    /// TCP keepalive that is still to be set for the upstream's stream.
    keepalive: Option<Keepalive>,
    /// The waker of the task that waits, or that waited last.
    waker: Option<Waker>,
    stalls: Stalls,
    fired: Option<Fired>,
    /// Why the connection ends when its limit runs out.
    limit_end: End,
    on_drain: OnDrain,
    /// See [`Watch::join_group`]; 0 if it has none.
    group: u32,
    progress: Progress,
}

impl Timers {
    /// Starts without limits. Waits count against the budget of the yielder.
    pub fn new(yielder: &Rc<Yielder>) -> Rc<Timers> {
        Rc::new(Timers {
            ticked: Cell::new(Instant::now()),
            yielder: Rc::clone(yielder),
            all_ended: Cell::new(false),
            live: Live::start(),
            state: RefCell::new(State { conns: Wheel::new(), stalled: Vec::new() }),
        })
    }

    /// The open connections of clients.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Ticks so far. Wraps after 6.8 years.
    pub fn now(&self) -> u32 {
        self.state.borrow().conns.now()
    }

    /// Watches a client's stream; the limit starts now.
    pub fn watch(self: &Rc<Self>, client: &Rc<Stream>, limit: Limit) -> Watch {
        let conn = Conn {
            client: Rc::clone(client),
            upstream: None,
            keepalive: None,
            waker: None,
            stalls: Stalls::default(),
            fired: None,
            limit_end: limit.end,
            on_drain: OnDrain::Wait,
            group: 0,
            progress: Progress::default(),
        };
        let key = self.state.borrow_mut().conns.insert(conn, ticks(limit.time));
        Watch::new(Rc::clone(self), key)
    }

    /// Advances time and fires the limits that are due. The worker calls this once a tick.
    pub fn tick(&self) {
        let advance = self.advance();
        let state = &mut *self.state.borrow_mut();
        let past = state.conns.now();
        state.conns.advance(advance, |conn, is_due| {
            if is_due {
                conn.fire(Fired::TimedOut(conn.limit_end));
            } else {
                conn.keep_alive();
            }
        });
        if state.conns.now() / STALL_CHECK != past / STALL_CHECK {
            state.check_stalled();
        }
    }

    /// Returns the number of ticks by which time advances.
    fn advance(&self) -> u32 {
        let ticked = self.ticked.get();
        let passed = (ticked.elapsed().as_millis() / TICK.as_millis()) as u32;
        if passed >= MAX_ADVANCE {
            // What is left of a tick is part of the delay and does not count.
            self.ticked.set(Instant::now());
            return MAX_ADVANCE;
        }
        self.ticked.set(ticked + TICK * passed);
        passed
    }
}

impl State {
    /// Fires the limit of a connection, unless it has fired already: the first reason stays. Only
    /// an order to close it takes its place, because a connection may go on after a time limit.
    fn fire(&mut self, key: usize, why: Fired) {
        if self.conns[key].fired.is_none() {
            self.conns.unschedule(key);
        } else if why != Fired::Closed {
            return;
        }
        self.conns[key].fire(why);
    }
}

impl Conn {
    fn fire(&mut self, why: Fired) {
        self.fired = Some(why);
        // Waking only puts the task into the ready queue.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;

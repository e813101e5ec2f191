//! All time limits of a worker, driven by one coarse tick.
//!
//! A connection's limit costs nothing while bytes flow: activity stores the current tick, and no
//! timer moves. The wheel visits an entry when its limit could have run out, and schedules it again
//! if it has not. A limit that runs out wakes the connection's task, and the wait of that task
//! ([`Watch::readable`] or [`Watch::writable`]) fails with the reason. The sockets are left as they
//! are, so the task decides what the peers see. Limits are never early. They are at most 150 ms
//! late as long as a turn of the event loop takes less than 100 ms.
//!
//! Each worker has its own time: a late tick advances it by `MAX_ADVANCE` ticks at most. After a
//! stop of the process (SIGSTOP, a paused machine, a CPU quota) a connection has what was left of
//! its limit before. On an overloaded worker all limits last longer. A task whose wait fails still
//! reads what has arrived.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::sched::Yielder;
use crate::sys::{Keepalive, Stream};

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(50);

/// The most ticks by which a late tick advances time.
const MAX_ADVANCE: u32 = 2;

/// Ticks between two checks of stalled connections.
const STALL_CHECK: u32 = 20;

/// Slots of the wheel. Limits beyond 25 s go around it more than once.
const SLOTS: u32 = 512;

/// Why a wait failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// The limit ran out.
    TimedOut,
    /// The worker drains or stops.
    Drained,
    /// The client reset the connection while its stream was not read.
    ClientReset,
    /// The upstream reset the connection while its stream was not read.
    UpstreamReset,
}

/// What a drain does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrain {
    /// Lets it continue: a request or a relay.
    Wait,
    /// Ends it a second after the drain began: a connection that has sent nothing yet, and whose
    /// first bytes may be in flight.
    Grace,
    /// Ends it at once: a connection between two requests.
    Now,
}

/// The limits of one worker.
pub struct Timers {
    /// When `now` was advanced last.
    ticked: Cell<Instant>,
    /// Ticks so far. Wraps after 6.8 years; comparisons are relative.
    now: Cell<u32>,
    yielder: Rc<Yielder>,
    /// Whether [`Timers::end_all`] was called.
    all_ended: Cell<bool>,
    state: RefCell<State>,
}

struct State {
    entries: Slab<Entry>,
    /// Keys of entries, by the slot of their next visit.
    wheel: Vec<Vec<u32>>,
    /// Keys of entries that have a [`Stall`].
    stalled: Vec<u32>,
}

struct Entry {
    client: Rc<Stream>,
    upstream: Option<Rc<Stream>>,
    /// The waker of the task that waits, or that waited last.
    waker: Option<Waker>,
    fired: Option<Fired>,
    on_drain: OnDrain,
    /// TCP keepalive that is still to be set for the upstream's stream.
    keepalive: Option<Keepalive>,
    /// Tick of the last activity.
    active: u32,
    /// Ticks from the last activity until the limit fires.
    limit: u32,
    /// Tick of the next visit.
    visit: u32,
    /// Position in the slot of `visit`. `wheel[visit % SLOTS][position]` is this entry's key until
    /// the limit fires.
    position: u32,
    /// The number of [`Stall`]s: reasons why one of the streams is not read.
    stalls: u32,
    /// Position in `stalled` while `stalls` is not 0.
    stall_position: u32,
}

impl Timers {
    /// Starts without limits. Waits count against the budget of the yielder.
    pub fn new(yielder: &Rc<Yielder>) -> Rc<Timers> {
        let wheel = (0..SLOTS).map(|_| Vec::new()).collect();
        Rc::new(Timers {
            ticked: Cell::new(Instant::now()),
            now: Cell::new(0),
            yielder: Rc::clone(yielder),
            all_ended: Cell::new(false),
            state: RefCell::new(State { entries: Slab::new(), wheel, stalled: Vec::new() }),
        })
    }

    /// Ticks so far. Wraps after 6.8 years.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Watches a client's stream; the limit starts now.
    pub fn watch(self: &Rc<Self>, client: &Rc<Stream>, limit: Duration) -> Watch {
        let now = self.now.get();
        let mut state = self.state.borrow_mut();
        let key = state.entries.insert(Entry {
            client: Rc::clone(client),
            upstream: None,
            waker: None,
            fired: None,
            on_drain: OnDrain::Wait,
            keepalive: None,
            active: now,
            limit: ticks(limit),
            visit: 0,
            position: 0,
            stalls: 0,
            stall_position: 0,
        });
        state.schedule(key, now);
        Watch { timers: Rc::clone(self), key }
    }

    /// Advances time and fires the limits that are due. The worker calls this once a tick.
    pub fn tick(&self) {
        let (past, advance) = (self.now.get(), self.advance());
        let now = past.wrapping_add(advance);
        self.now.set(now);
        let state = &mut *self.state.borrow_mut();
        for tick in 1..=advance {
            let slot = (past.wrapping_add(tick) % SLOTS) as usize;
            for key in std::mem::take(&mut state.wheel[slot]) {
                let entry = &mut state.entries[key as usize];
                let due = entry.active.wrapping_add(entry.limit);
                // The limit may have started anew since the entry was put into this slot.
                if due.wrapping_sub(now) as i32 <= 0 {
                    entry.fire(Fired::TimedOut);
                } else {
                    entry.keep_alive();
                    state.schedule(key as usize, now);
                }
            }
        }
        if now / STALL_CHECK != past / STALL_CHECK {
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

    /// Ends connections with [`OnDrain::Now`], and if `grace_is_over` also those with
    /// [`OnDrain::Grace`].
    pub fn drain(&self, grace_is_over: bool) {
        self.end(|entry| match entry.on_drain {
            OnDrain::Wait => false,
            OnDrain::Grace => grace_is_over,
            OnDrain::Now => true,
        });
    }

    /// Ends all connections.
    pub fn end_all(&self) {
        self.all_ended.set(true);
        self.end(|_| true);
    }

    /// Returns true after [`Timers::end_all`] was called. For waits that have no stream.
    pub fn all_ended(&self) -> bool {
        self.all_ended.get()
    }

    fn end(&self, which: impl Fn(&Entry) -> bool) {
        let state = &mut *self.state.borrow_mut();
        let keys = state.entries.iter().filter_map(|(key, entry)| which(entry).then_some(key));
        for key in keys.collect::<Vec<_>>() {
            state.fire(key, Fired::Drained);
        }
    }
}

impl State {
    /// Ends stalled connections if one of their streams was reset.
    fn check_stalled(&mut self) {
        for index in (0..self.stalled.len()).rev() {
            let key = self.stalled[index] as usize;
            let entry = &self.entries[key];
            if entry.client.is_reset() {
                self.fire(key, Fired::ClientReset);
            } else if entry.upstream.as_ref().is_some_and(|upstream| upstream.is_reset()) {
                self.fire(key, Fired::UpstreamReset);
            }
        }
    }

    /// Fires the limit of an entry, unless it has fired already: the first reason stays.
    fn fire(&mut self, key: usize, why: Fired) {
        if self.entries[key].fired.is_none() {
            self.unschedule(key);
            self.entries[key].fire(why);
        }
    }

    /// Puts an entry that is in no slot into the slot of its due tick, or of the farthest tick of
    /// the wheel.
    fn schedule(&mut self, key: usize, now: u32) {
        let entry = &mut self.entries[key];
        let wait = entry.active.wrapping_add(entry.limit).wrapping_sub(now) as i32;
        entry.visit = now.wrapping_add((wait.max(1) as u32).min(SLOTS - 1));
        let slot = &mut self.wheel[(entry.visit % SLOTS) as usize];
        entry.position = slot.len() as u32;
        slot.push(key as u32);
    }

    fn unschedule(&mut self, key: usize) {
        let entry = &self.entries[key];
        let (position, slot) = (entry.position, (entry.visit % SLOTS) as usize);
        self.wheel[slot].swap_remove(position as usize);
        // The last key of the slot has moved to the free position.
        if let Some(&moved) = self.wheel[slot].get(position as usize) {
            self.entries[moved as usize].position = position;
        }
    }
}

impl Entry {
    fn fire(&mut self, why: Fired) {
        self.fired = Some(why);
        // Waking only puts the task into the ready queue.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn keep_alive(&mut self) {
        if let Some(upstream) = &self.upstream
            && let Some(keepalive) = self.keepalive.take()
        {
            upstream.set_keepalive(keepalive);
        }
    }
}

/// A running limit. Dropping it ends the watch. It holds references to its streams, so they are
/// closed only after it is dropped.
pub struct Watch {
    timers: Rc<Timers>,
    key: usize,
}

impl Watch {
    /// Waits until a read would not block. May be dropped at any time. A task whose stream is
    /// always ready yields here.
    ///
    /// # Errors
    /// The limit has fired. Bytes may have arrived at the same time, so read once more.
    pub async fn readable(&self, stream: &Stream) -> Result<(), Fired> {
        self.consume_budget().await;
        let mut ready = pin!(stream.readable());
        poll_fn(|cx| self.poll(ready.as_mut(), cx)).await
    }

    /// Waits until a write would not block. May be dropped at any time. A task whose stream is
    /// always ready yields here.
    ///
    /// # Errors
    /// The limit has fired.
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
    /// The limit has fired.
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
        let replaced = self.entry(|entry| {
            if let Some(fired) = entry.fired {
                return Err(fired);
            }
            // Usually a single task waits for a connection, so this is nearly always the same
            // waker.
            let known = entry.waker.as_ref().is_some_and(|known| known.will_wake(waker));
            Ok(if known { None } else { entry.waker.replace(waker.clone()) })
        });
        match replaced {
            Err(fired) => Poll::Ready(fired),
            // The old waker is dropped here, where the entries are not borrowed.
            Ok(_replaced) => Poll::Pending,
        }
    }

    /// Starts the limit anew after activity.
    pub fn touch(&self) {
        let now = self.timers.now.get();
        self.entry(|entry| entry.active = now);
    }

    /// Starts another limit now. If one has fired, it stays: the next wait fails with it.
    pub fn restart(&self, limit: Duration) {
        let now = self.timers.now.get();
        let state = &mut *self.timers.state.borrow_mut();
        let entry = &mut state.entries[self.key];
        (entry.active, entry.limit) = (now, ticks(limit));
        let sooner = now.wrapping_add(entry.limit).wrapping_sub(entry.visit) as i32;
        // The scheduled visit would be too late for a limit that is shorter.
        if entry.fired.is_none() && sooner < 0 {
            state.unschedule(self.key);
            state.schedule(self.key, now);
        }
    }

    /// Starts the limit that has fired anew, because there was something to read when it fired.
    pub fn again(&self) {
        let limit = self.entry(|entry| entry.limit);
        self.renew(TICK * (limit - SLACK));
    }

    /// Starts another limit now, even after one that has fired: the caller has handled that one.
    pub fn renew(&self, limit: Duration) {
        self.restart(limit);
        let now = self.timers.now.get();
        let state = &mut *self.timers.state.borrow_mut();
        if state.entries[self.key].fired.take().is_some() {
            state.schedule(self.key, now);
        }
    }

    /// Sets what a drain does to the connection. It begins with [`OnDrain::Wait`].
    pub fn on_drain(&self, what: OnDrain) {
        self.entry(|entry| entry.on_drain = what);
    }

    /// Sets the upstream's stream of the connection, which is watched from now on, too.
    pub fn set_upstream(&self, upstream: Option<&Rc<Stream>>) {
        let upstream = upstream.cloned();
        // A stream that the new one replaces must not be dropped while the entries are borrowed.
        let replaced = self.entry(|entry| std::mem::replace(&mut entry.upstream, upstream));
        drop(replaced);
    }

    /// Sets TCP keepalive for the upstream's stream at the first visit of the wheel, after 26 s at
    /// most. A connection that ends earlier needs none, which saves three calls.
    pub fn keep_alive(&self, keepalive: Option<Keepalive>) {
        self.entry(|entry| entry.keepalive = keepalive);
    }

    /// Marks one of the streams as not read, as long as the result lives.
    pub fn stall(&self) -> Stall<'_> {
        let state = &mut *self.timers.state.borrow_mut();
        let entry = &mut state.entries[self.key];
        entry.stalls += 1;
        if entry.stalls == 1 {
            entry.stall_position = state.stalled.len() as u32;
            state.stalled.push(self.key as u32);
        }
        Stall { watch: self }
    }

    /// Returns true if one of the streams is not read.
    pub fn is_stalled(&self) -> bool {
        self.entry(|entry| entry.stalls > 0)
    }

    /// Returns why waits fail; `None` if they do not.
    pub fn fired(&self) -> Option<Fired> {
        self.entry(|entry| entry.fired)
    }

    fn entry<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> T {
        change(&mut self.timers.state.borrow_mut().entries[self.key])
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.timers.state.borrow_mut();
        if state.entries[self.key].fired.is_none() {
            state.unschedule(self.key);
        }
        let entry = state.entries.remove(self.key);
        drop(state);
        // Dropped while nothing is borrowed: it holds streams, and a waker may be the last
        // reference to its task.
        drop(entry);
    }
}

/// The mark of a stream that is not read. Dropping it removes the mark.
pub struct Stall<'a> {
    watch: &'a Watch,
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        let state = &mut *self.watch.timers.state.borrow_mut();
        let entry = &mut state.entries[self.watch.key];
        entry.stalls -= 1;
        if entry.stalls == 0 {
            let position = entry.stall_position;
            state.stalled.swap_remove(position as usize);
            if let Some(&moved) = state.stalled.get(position as usize) {
                state.entries[moved as usize].stall_position = position;
            }
        }
    }
}

/// Ticks that are added to a limit, because the current tick has partly passed and the next one may
/// come late.
const SLACK: u32 = 2;

/// Converts a limit to ticks: rounded up, plus `SLACK`, so that it is never early.
pub fn ticks(limit: Duration) -> u32 {
    let ticks = limit.as_millis().div_ceil(TICK.as_millis()) + u128::from(SLACK);
    // At most half the range, so that relative comparisons are right. That is 3.4 years.
    u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

#[cfg(test)]
mod tests;

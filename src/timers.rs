//! Every time limit of a worker, by one coarse tick.
//!
//! A connection's limit costs nothing while bytes flow: activity stores the current tick, no timer
//! moves. The wheel visits an entry when its limit could have run out and puts it back when it has
//! not. An entry that is due has its streams shut down (shutdown(2)), which wakes the task that
//! waits for them; the task asks [`Watch::fired`] why. Limits are kept to one tick: never early, at
//! most 100 ms and a turn of the loop late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::sys::{Keepalive, Stream};

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(50);

/// Ticks between two looks after stalled connections.
const STALL_CHECK: u32 = 20;

/// Slots of the wheel; limits beyond 25 s go around it more than once.
const SLOTS: u32 = 512;

/// What the end of a limit does to the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Ends reading from the client; an answer can still be written.
    Read,
    /// Ends the upstream's stream; an answer can still be written to the client.
    Upstream,
    /// Ends both directions of both streams.
    Both,
}

/// Why a watched stream was shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// It was not.
    No,
    /// Its limit ran out.
    TimedOut,
    /// The worker is ending.
    Drained,
    /// The client reset the connection while nobody read from it.
    ClientReset,
    /// The upstream did.
    UpstreamReset,
}

/// The limits of one worker.
pub struct Timers {
    origin: Instant,
    /// Ticks since `origin`. Wraps after 6.8 years; comparisons are relative.
    now: Cell<u32>,
    state: RefCell<State>,
}

struct State {
    entries: Slab<Entry>,
    /// Keys of entries, by the tick of their next visit.
    wheel: Vec<Vec<u32>>,
    /// Keys of entries with stalls.
    stalled: Vec<u32>,
}

struct Entry {
    client: Rc<Stream>,
    upstream: Option<Rc<Stream>>,
    expiry: Expiry,
    fired: Fired,
    /// Nothing is under way: a drain may end it at once.
    idle: bool,
    /// TCP keepalive to be set for the upstream's stream.
    keepalive: Option<Keepalive>,
    /// Tick of the last activity.
    active: u32,
    /// Ticks from the last activity to expiry.
    limit: u32,
    /// Tick of the next visit.
    visit: u32,
    /// Position in the slot of `visit`. `wheel[visit % SLOTS][position]` is this entry's key until
    /// it fired.
    position: u32,
    /// Reasons why nobody reads from one of the streams.
    stalls: u32,
    /// Position in `stalled`, while there are such reasons.
    stall_position: u32,
}

impl Timers {
    /// No limits yet.
    pub fn new() -> Rc<Timers> {
        let wheel = (0..SLOTS).map(|_| Vec::new()).collect();
        Rc::new(Timers {
            origin: Instant::now(),
            now: Cell::new(0),
            state: RefCell::new(State { entries: Slab::new(), wheel, stalled: Vec::new() }),
        })
    }

    /// Ticks so far. Wraps after 6.8 years.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Watches a client's stream; the limit starts now.
    pub fn watch(self: &Rc<Self>, client: &Rc<Stream>, limit: Duration, expiry: Expiry) -> Watch {
        let now = self.now.get();
        let mut state = self.state.borrow_mut();
        let key = state.entries.insert(Entry {
            client: Rc::clone(client),
            upstream: None,
            expiry,
            fired: Fired::No,
            idle: false,
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

    /// Moves time on and shuts down what is due. Called once a tick by the worker.
    pub fn tick(&self) {
        let now = (self.origin.elapsed().as_millis() / TICK.as_millis()) as u32;
        let past = self.now.replace(now);
        let state = &mut *self.state.borrow_mut();
        // After a stop (SIGSTOP, a suspended machine) one turn of the wheel visits everything.
        for tick in 1..=now.wrapping_sub(past).min(SLOTS) {
            let slot = (past.wrapping_add(tick) % SLOTS) as usize;
            for key in std::mem::take(&mut state.wheel[slot]) {
                let entry = &mut state.entries[key as usize];
                let due = entry.active.wrapping_add(entry.limit);
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

    /// Ends what is idle (connections between two requests).
    pub fn end_idle(&self) {
        self.end(|entry| entry.idle);
    }

    /// Ends everything, also what was ended more gently before.
    pub fn end_all(&self) {
        self.end(|entry| {
            entry.idle = false;
            true
        });
    }

    fn end(&self, which: impl Fn(&mut Entry) -> bool) {
        let state = &mut *self.state.borrow_mut();
        let keys = state.entries.iter_mut().filter_map(|(key, entry)| which(entry).then_some(key));
        for key in keys.collect::<Vec<_>>() {
            if state.entries[key].fired == Fired::No {
                state.unschedule(key);
            }
            state.entries[key].fire(Fired::Drained);
        }
    }
}

impl State {
    /// Ends stalled connections of which a stream was reset.
    fn check_stalled(&mut self) {
        for index in (0..self.stalled.len()).rev() {
            let key = self.stalled[index] as usize;
            let entry = &self.entries[key];
            let upstream = entry.upstream.as_ref();
            let why = if entry.client.is_reset() {
                Fired::ClientReset
            } else if upstream.is_some_and(|upstream| upstream.is_reset()) {
                Fired::UpstreamReset
            } else {
                continue;
            };
            if entry.fired == Fired::No {
                self.unschedule(key);
                self.entries[key].fire_reset(why);
            } else {
                // Nobody read from the survivor, so that the end of its reading side woke nobody.
                self.entries[key].shutdown();
            }
        }
    }

    /// Puts an entry that is in no slot into that of its due tick, or of the farthest tick there
    /// is.
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
        if let Some(&moved) = self.wheel[slot].get(position as usize) {
            self.entries[moved as usize].position = position;
        }
    }
}

impl Entry {
    fn fire(&mut self, why: Fired) {
        self.fired = why;
        match (self.expiry, why) {
            // What is idle ends after what it has sent already.
            (_, Fired::Drained) if self.idle => self.client.shutdown_read(),
            (Expiry::Read, Fired::TimedOut) => self.client.shutdown_read(),
            (Expiry::Upstream, Fired::TimedOut) => {
                if let Some(upstream) = &self.upstream {
                    upstream.shutdown();
                }
            }
            _ => self.shutdown(),
        }
    }

    fn keep_alive(&mut self) {
        if let Some(upstream) = &self.upstream
            && let Some(keepalive) = self.keepalive.take()
        {
            upstream.set_keepalive(keepalive);
        }
    }

    /// Wakes the task that reads from the survivor. Its peer must hear of a reset, not of an end.
    fn fire_reset(&mut self, why: Fired) {
        self.fired = why;
        if why == Fired::UpstreamReset {
            self.client.shutdown_read();
        } else if let Some(upstream) = &self.upstream {
            upstream.shutdown_read();
        }
    }

    fn shutdown(&self) {
        self.client.shutdown();
        if let Some(upstream) = &self.upstream {
            upstream.shutdown();
        }
    }
}

/// A running limit; dropping it ends the watch. It keeps its streams alive, so drop it before
/// expecting a close.
pub struct Watch {
    timers: Rc<Timers>,
    key: usize,
}

impl Watch {
    /// Something happened: the limit starts anew.
    pub fn touch(&self) {
        let now = self.timers.now.get();
        self.entry(|entry| entry.active = now);
    }

    /// Another limit, from now on, also after one that ran out: what [`Watch::fired`] said is gone,
    /// so ask before.
    pub fn restart(&self, limit: Duration, expiry: Expiry) {
        let now = self.timers.now.get();
        let state = &mut *self.timers.state.borrow_mut();
        let entry = &mut state.entries[self.key];
        (entry.active, entry.limit, entry.expiry) = (now, ticks(limit), expiry);
        let sooner = now.wrapping_add(entry.limit).wrapping_sub(entry.visit) as i32;
        if entry.fired != Fired::No {
            entry.fired = Fired::No;
            state.schedule(self.key, now);
        } else if sooner < 0 {
            state.unschedule(self.key);
            state.schedule(self.key, now);
        }
    }

    /// Says whether a drain may end the connection at once.
    pub fn set_idle(&self, idle: bool) {
        self.entry(|entry| entry.idle = idle);
    }

    /// Watches the other stream of the connection too, from now on.
    pub fn set_upstream(&self, upstream: Option<&Rc<Stream>>) {
        let upstream = upstream.cloned();
        // A stream that the new one replaces must not be dropped while the entries are borrowed.
        let replaced = self.entry(|entry| std::mem::replace(&mut entry.upstream, upstream));
        drop(replaced);
    }

    /// Sets TCP keepalive for the upstream's stream at the first visit, after 26 s at most: a
    /// connection that ends before needs none, and three calls are saved.
    pub fn keep_alive(&self, keepalive: Option<Keepalive>) {
        self.entry(|entry| entry.keepalive = keepalive);
    }

    /// Says that one of the streams is not read from, as long as the result lives.
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

    /// Why the streams were shut down, if they were.
    pub fn fired(&self) -> Fired {
        self.entry(|entry| entry.fired)
    }

    fn entry<T>(&self, change: impl FnOnce(&mut Entry) -> T) -> T {
        change(&mut self.timers.state.borrow_mut().entries[self.key])
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.timers.state.borrow_mut();
        if state.entries[self.key].fired == Fired::No {
            state.unschedule(self.key);
        }
        let entry = state.entries.remove(self.key);
        drop(state);
        drop(entry);
    }
}

/// A stream that is not read from.
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

/// Whole ticks that are at least as long as the limit: two more than it divides into, because the
/// current tick has partly passed, and because the word of the next one may come late.
pub fn ticks(limit: Duration) -> u32 {
    let ticks = limit.as_millis().div_ceil(TICK.as_millis()) + 2;
    // Half the range keeps relative comparisons right; it is 3.4 years.
    u32::try_from(ticks).unwrap_or(u32::MAX).min(i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// Runs a worker's runtime, without a ring: the test must not depend on the memlock limit.
    fn in_runtime(test: impl AsyncFnOnce()) {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .enable_timer()
            .build()
            .unwrap()
            .block_on(test());
    }

    fn stream() -> (Rc<Stream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Rc::new(Stream::from_fd(OwnedFd::from(ours)).unwrap()), theirs)
    }

    async fn tick_until(timers: &Timers, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "not within 10 s");
            monoio::time::sleep(TICK).await;
            timers.tick();
        }
    }

    #[test]
    fn a_limit_is_never_early_and_can_be_armed_anew() {
        in_runtime(async || {
            let timers = Timers::new();
            let (client, _peer) = stream();
            let watch = timers.watch(&client, Duration::from_millis(120), Expiry::Both);
            for _ in 0..2 {
                let begun = Instant::now();
                assert_eq!(watch.fired(), Fired::No);
                tick_until(&timers, || watch.fired() == Fired::TimedOut).await;
                assert!(begun.elapsed() >= Duration::from_millis(120));
                watch.restart(Duration::from_millis(120), Expiry::Both);
            }
        });
    }

    #[test]
    fn a_limit_is_not_early_where_a_tick_is_late() {
        in_runtime(async || {
            let timers = Timers::new();
            let (client, _peer) = stream();
            // Nearly two ticks pass of which nobody has told.
            monoio::time::sleep(Duration::from_millis(90)).await;
            let begun = Instant::now();
            let watch = timers.watch(&client, Duration::from_millis(100), Expiry::Both);
            while watch.fired() == Fired::No {
                monoio::time::sleep(Duration::from_millis(1)).await;
                timers.tick();
            }
            assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        });
    }

    #[test]
    fn a_shorter_limit_is_not_kept_waiting_by_a_longer_one() {
        in_runtime(async || {
            let timers = Timers::new();
            let (client, _peer) = stream();
            let watch = timers.watch(&client, Duration::from_secs(3600), Expiry::Both);
            watch.restart(Duration::from_millis(100), Expiry::Both);
            tick_until(&timers, || watch.fired() == Fired::TimedOut).await;
        });
    }

    #[test]
    fn what_is_dropped_leaves_the_others_in_their_places() {
        in_runtime(async || {
            let timers = Timers::new();
            let (client, _peer) = stream();
            let watch = || timers.watch(&client, Duration::from_millis(100), Expiry::Read);
            let mut watches: Vec<_> = (0..50).map(|_| Some(watch())).collect();
            let stalls: Vec<_> = watches.iter().flatten().map(Watch::stall).collect();
            drop(stalls);
            for index in [0, 49, 7, 8, 25, 1] {
                watches[index] = None;
            }
            let fired = || watches.iter().flatten().all(|watch| watch.fired() != Fired::No);
            tick_until(&timers, fired).await;
        });
    }

    #[test]
    fn a_drain_ends_what_is_idle_and_a_stop_ends_everything() {
        in_runtime(async || {
            let timers = Timers::new();
            let ((idle, _a), (busy, _b)) = (stream(), stream());
            let hour = Duration::from_secs(3600);
            let idle = timers.watch(&idle, hour, Expiry::Read);
            let busy = timers.watch(&busy, hour, Expiry::Both);
            idle.set_idle(true);
            timers.end_idle();
            assert_eq!((idle.fired(), busy.fired()), (Fired::Drained, Fired::No));
            timers.end_all();
            assert_eq!((idle.fired(), busy.fired()), (Fired::Drained, Fired::Drained));
        });
    }
}

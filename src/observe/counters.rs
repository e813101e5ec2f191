//! What a worker counts of one listener. The worker that a cell belongs to is the only one that
//! writes to it; the control plane may read it at any time.
//!
//! A count is written by a load and a store, which need no locked instruction because there is one
//! writer. Counters belong to the name of a listener ([`Registry`]), so that they outlast a change
//! of its configuration.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Histogram, Times};
use super::hosts::HostRegistry;
use super::live::Direction;
use super::outcome::{Copied, End, Outcome, Relay};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, less: u64) {
        self.0.store(self.get().wrapping_sub(less), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// How many of one kind have begun, and how many are open.
#[derive(Debug, Default)]
pub struct Gauge {
    begun: Count,
    open: Count,
}

impl Gauge {
    /// Counts one that begins.
    pub fn begin(&self) {
        self.begun.add(1);
        self.open.add(1);
    }

    /// Counts the end of one that was begun.
    pub fn end(&self) {
        self.open.subtract(1);
    }

    /// Counts one that begins, and its end when the guard is dropped.
    pub fn guard(&self) -> Counted<'_> {
        self.begin();
        Counted(self)
    }

    /// Those that have begun.
    pub fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Those that have begun and not ended.
    pub fn open(&self) -> u64 {
        self.open.get()
    }

    /// Sets how many have begun, all of which have ended or belong to another process.
    pub(super) fn set_begun(&self, begun: u64) {
        self.begun.set(begun);
    }
}

/// One that is counted as open.
#[derive(Debug)]
pub struct Counted<'a>(&'a Gauge);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The counts of one listener on one worker, since a listener has this name. On cache lines of
/// their own, and not beside those of another worker, which processors fetch in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    /// Connections, also those that are tunnels.
    pub connections: Gauge,
    /// Upgrades, and connections of L4 and of TLS that is passed on, from the begin of their relay
    /// to its end.
    pub tunnels: Gauge,
    /// UDP sessions.
    pub sessions: Gauge,
    /// By [`Direction`].
    pub(super) bytes: [Count; 2],
    /// Bytes that are in `bytes` although they could not be sent: see [`Counters::add`].
    ahead: [Count; 2],
    /// Bytes to the upstream and to the client by their [`Relay`].
    pub(super) relayed: [[Count; 2]; Relay::COUNT],
    /// Relays that were copied, by the reason.
    pub(super) copied: [Count; Copied::COUNT],
    /// Outcomes by their [`End`].
    pub(super) ends: [Count; End::COUNT],
    /// Handshakes of TLS that ends here.
    pub tls: TlsCounters,
}

/// Handshakes by their result.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// Full handshakes of TLS 1.2 and 1.3, then resumed ones.
    pub(super) done: [Count; 4],
    pub(super) failed: Count,
    pub(super) times: Histogram,
}

impl TlsCounters {
    /// Counts a handshake that is done, and the time from the accept of the connection to it.
    pub fn add(&self, version: &str, is_resumed: bool, time: Duration) {
        self.times.record(time);
        self.done[2 * usize::from(is_resumed) + usize::from(version == "1.3")].add(1);
    }

    /// Counts a handshake that has failed.
    pub fn add_failure(&self) {
        self.failed.add(1);
    }

    /// Handshakes with this version, "1.2" or "1.3", that were full or resumed.
    pub fn done(&self, version: &str, is_resumed: bool) -> u64 {
        self.done[2 * usize::from(is_resumed) + usize::from(version == "1.3")].get()
    }

    /// The times of those that are done.
    pub fn times(&self) -> Times {
        self.times.times()
    }

    /// Handshakes that have failed.
    pub fn failed(&self) -> u64 {
        self.failed.get()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            connections: Gauge::default(),
            tunnels: Gauge::default(),
            sessions: Gauge::default(),
            bytes: Default::default(),
            ahead: Default::default(),
            relayed: Default::default(),
            copied: Default::default(),
            ends: std::array::from_fn(|_| Count::default()),
            tls: TlsCounters::default(),
        }
    }
}

impl Counters {
    /// Counts how something went, and those of its bytes that are not counted yet.
    ///
    /// Bytes in the outbox are counted before they are sent. Those that could not be sent are
    /// taken off what is counted next, because a counter must never become less.
    pub fn add(&self, outcome: &Outcome) {
        if let Some(used) = &outcome.used {
            used.add(outcome);
        }
        let [up, down] = &self.relayed[outcome.relay as usize];
        up.add(outcome.bytes_up);
        down.add(outcome.bytes_down);
        if let Some(copied) = outcome.copied {
            self.copied[copied as usize].add(1);
        }
        let all = [outcome.bytes_up, outcome.bytes_down];
        for direction in [Direction::Up, Direction::Down] {
            let (all, counted) = (all[direction as usize], outcome.counted[direction as usize]);
            self.ahead[direction as usize].add(counted.saturating_sub(all));
            self.count_bytes(direction, all.saturating_sub(counted));
        }
        self.ends[outcome.end as usize].add(1);
    }

    /// Counts bytes while they move.
    pub fn count_bytes(&self, direction: Direction, bytes: u64) {
        let ahead = &self.ahead[direction as usize];
        let known = ahead.get().min(bytes);
        if known > 0 {
            ahead.subtract(known);
        }
        self.bytes[direction as usize].add(bytes - known);
    }

    /// Bytes from clients and to clients.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes[0].get(), self.bytes[1].get())
    }

    /// Bytes from clients and to clients that were moved in this way.
    pub fn relayed_by(&self, relay: Relay) -> (u64, u64) {
        let [up, down] = &self.relayed[relay as usize];
        (up.get(), down.get())
    }

    /// Relays that were copied for this reason.
    pub fn copied_for(&self, copied: Copied) -> u64 {
        self.copied[copied as usize].get()
    }

    /// Outcomes with this end.
    pub fn ended_by(&self, end: End) -> u64 {
        self.ends[end as usize].get()
    }

    /// What is open.
    pub fn open(&self) -> Open {
        let tunnels = self.tunnels.open();
        Open {
            // The gauges are read one after the other, while the worker writes them.
            connections: self.connections.open().saturating_sub(tunnels),
            tunnels,
            sessions: self.sessions.open(),
        }
    }
}

/// What is open, by its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Connections that are no tunnels.
    pub connections: u64,
    /// Upgrades and relays that have begun.
    pub tunnels: u64,
    /// UDP sessions.
    pub sessions: u64,
}

impl Open {
    /// The number of all of them.
    pub fn all(&self) -> u64 {
        self.connections + self.tunnels + self.sessions
    }
}

impl AddAssign for Open {
    fn add_assign(&mut self, other: Open) {
        self.connections += other.connections;
        self.tunnels += other.tunnels;
        self.sessions += other.sessions;
    }
}

/// The counters of one listener: one for each worker, in their order, and then one for what earlier
/// processes have counted.
pub type Cells = Arc<[Arc<Counters>]>;

/// The counters of all listeners by their names.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    listeners: BTreeMap<Arc<str>, Cells>,
    /// The hosts of http listeners.
    pub hosts: HostRegistry,
}

impl Registry {
    /// Makes a registry for a number of workers.
    pub fn new(workers: usize) -> Registry {
        Registry { workers, listeners: BTreeMap::new(), hosts: HostRegistry::new(workers) }
    }

    /// The counters of the listener with this name. They are the same as before if a listener had
    /// this name before.
    pub fn of(&mut self, name: &Arc<str>) -> Cells {
        let cells = || (0..=self.workers).map(|_| Arc::default()).collect();
        Arc::clone(self.listeners.entry(Arc::clone(name)).or_insert_with(cells))
    }

    /// Forgets the counters that no connection uses any more and whose name is not among the
    /// listeners of the configuration.
    pub fn forget_unused(&mut self, is_configured: impl Fn(&str) -> bool) {
        self.hosts.forget_unused();
        self.listeners.retain(|name, cells| {
            is_configured(name) || cells.iter().any(|cell| Arc::strong_count(cell) > 1)
        });
    }

    /// The cell of a listener for what earlier processes have counted.
    pub(super) fn earlier(&self, name: &str) -> Option<&Counters> {
        self.listeners.get(name)?.last().map(|cell| &**cell)
    }

    /// The counters of all listeners, in the order of their names.
    pub fn all(&self) -> Vec<(Arc<str>, Cells)> {
        self.listeners.iter().map(|(name, cells)| (Arc::clone(name), Arc::clone(cells))).collect()
    }

    /// The counters of all listeners without their names.
    pub fn cells(&self) -> Vec<Cells> {
        self.listeners.values().cloned().collect()
    }

    /// What is open of each listener, over all workers, in the order of their names. Also of
    /// listeners that the configuration does not have any more.
    pub fn open(&self) -> impl Iterator<Item = (&str, Open)> {
        self.listeners.iter().map(|(name, cells)| {
            let mut sum = Open::default();
            cells.iter().for_each(|counters| sum += counters.open());
            (&**name, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_not_counted_as_another_connection() {
        let counters = Counters::default();
        counters.connections.begin();
        counters.connections.begin();
        let tunnel = counters.tunnels.guard();
        assert_eq!(counters.open(), Open { connections: 1, tunnels: 1, sessions: 0 });
        drop(tunnel);
        counters.connections.end();
        assert_eq!(counters.open(), Open { connections: 1, tunnels: 0, sessions: 0 });
        assert_eq!((counters.connections.begun(), counters.tunnels.begun()), (2, 1));
    }

    #[test]
    fn bytes_are_counted_once_and_never_become_less() {
        let counters = Counters::default();
        let outcome = |bytes_up, counted| Outcome {
            bytes_up,
            counted: [counted, 0],
            ..Outcome::new(End::Client)
        };
        counters.count_bytes(Direction::Up, 10);
        counters.add(&outcome(15, 10));
        assert_eq!(counters.bytes(), (15, 0));
        // 4 of these bytes could not be sent.
        counters.count_bytes(Direction::Up, 10);
        counters.add(&outcome(6, 10));
        assert_eq!(counters.bytes(), (25, 0));
        counters.count_bytes(Direction::Up, 3);
        assert_eq!(counters.bytes(), (25, 0));
        counters.add(&outcome(5, 3));
        assert_eq!(counters.bytes(), (26, 0));
    }

    #[test]
    fn counters_belong_to_a_name_and_are_summed_over_workers() {
        let mut registry = Registry::new(2);
        let (web, dns): (Arc<str>, Arc<str>) = ("web".into(), "dns".into());
        let cells = registry.of(&web);
        cells[0].connections.begin();
        cells[1].connections.begin();
        registry.of(&dns)[1].sessions.begin();
        assert!(Arc::ptr_eq(&cells, &registry.of(&"web".into())));
        let sessions = Open { sessions: 1, ..Open::default() };
        let connections = Open { connections: 2, ..Open::default() };
        let open = |registry: &Registry| -> Vec<(String, Open)> {
            registry.open().map(|(name, open)| (name.to_owned(), open)).collect()
        };
        assert_eq!(open(&registry), [("dns".into(), sessions), ("web".into(), connections)]);
        // As a connection has it.
        let cell = Arc::clone(&cells[1]);
        registry.forget_unused(|name| name == "dns");
        assert_eq!(open(&registry), [("dns".into(), sessions), ("web".into(), connections)]);
        // A reader of all counters does not keep those of a listener that is gone.
        let _read = registry.all();
        drop((cell, cells));
        registry.forget_unused(|_| false);
        assert_eq!(open(&registry), []);
    }

    #[test]
    fn cells_of_two_workers_share_no_pair_of_cache_lines() {
        assert_eq!((align_of::<Counters>(), size_of::<Counters>() % 128), (128, 0));
    }
}

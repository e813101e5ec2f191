//! What a worker counts of an endpoint and of its cluster. The worker that a cell belongs to is the
//! only one that writes to it, as with the counters of listeners.
//!
//! An endpoint is a cluster's name and an address. So its counters outlast a change of the
//! configuration, and an answer from DNS that has it again. The control plane makes the cells and
//! sends them with the addresses; it forgets those of endpoints that are gone when no connection
//! uses them any more ([`Registry`]).

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::{Count, Gauge};
use super::histogram::{Histogram, Times};
use super::outcome::{End, Outcome};
use crate::sys::Address;

mod state;

pub use state::State;
use state::{Shown, now};

/// The most endpoints whose numbers are shown one by one, over all clusters. Those of further
/// endpoints are in the sums of their clusters alone.
pub const MOST_SHOWN: usize = 1000;

/// Why an attempt at an endpoint has failed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// No answer within `connect_timeout`.
    TimedOut,
    /// The accept queue of a Unix socket stayed full.
    BacklogFull,
    /// The TLS handshake failed.
    Tls,
    /// The endpoint, or the network on the way to it, refused.
    Refused,
    /// This machine has no route to it.
    Unreachable,
    /// The socket was connected to itself.
    OwnPeer,
    /// This machine was short of descriptors, ports or memory.
    Local,
}

impl FailureKind {
    /// The number of kinds.
    pub const COUNT: usize = FailureKind::Local as usize + 1;

    /// All kinds, in the order of their numbers.
    pub const ALL: [FailureKind; FailureKind::COUNT] = [
        FailureKind::TimedOut,
        FailureKind::BacklogFull,
        FailureKind::Tls,
        FailureKind::Refused,
        FailureKind::Unreachable,
        FailureKind::OwnPeer,
        FailureKind::Local,
    ];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::TimedOut => "timed_out",
            FailureKind::BacklogFull => "backlog_full",
            FailureKind::Tls => "tls",
            FailureKind::Refused => "refused",
            FailureKind::Unreachable => "unreachable",
            FailureKind::OwnPeer => "own_peer",
            FailureKind::Local => "local",
        }
    }
}

/// The counts of one endpoint on one worker. On cache lines of their own, and not beside those of
/// another worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointCounters {
    /// Relays, requests and sessions that use it.
    pub uses: Gauge,
    /// Attempts that are under way.
    attempts: Count,
    bytes_up: Count,
    bytes_down: Count,
    /// Failed attempts by their [`FailureKind`].
    failures: [Count; FailureKind::COUNT],
    /// A [`Shown`].
    shown: AtomicU64,
}

/// An attempt at an endpoint that is under way.
#[derive(Debug)]
pub struct Attempting<'a>(&'a Count);

impl Drop for Attempting<'_> {
    fn drop(&mut self) {
        self.0.subtract(1);
    }
}

impl EndpointCounters {
    /// Keeps the counters among those that are shown until the guard is dropped: what the attempt
    /// becomes is counted here.
    pub fn attempt(&self) -> Attempting<'_> {
        self.attempts.add(1);
        Attempting(&self.attempts)
    }

    /// Counts a failed attempt.
    pub fn add_failure(&self, kind: FailureKind) {
        self.failures[kind as usize].add(1);
        match kind {
            FailureKind::Local => {}
            FailureKind::Unreachable => self.set_state(State::Unreachable),
            _ => self.set_state(State::Failing),
        }
    }

    /// Notes that it was connected to.
    pub fn set_up(&self) {
        self.set_state(State::Up);
    }

    fn set_state(&self, state: State) {
        self.show(Shown::new(state, now()));
    }

    fn show(&self, shown: Shown) {
        self.shown.store(shown.0, Ordering::Relaxed);
    }

    fn shown(&self) -> Shown {
        Shown(self.shown.load(Ordering::Relaxed))
    }
}

/// The times of one cluster on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ClusterCounters {
    connect: Histogram,
    first_byte: Histogram,
}

impl ClusterCounters {
    /// Counts a connect that has succeeded, and how long it took. At once, because what it is for
    /// may last for days.
    pub fn add_connect(&self, time: Duration) {
        self.connect.record(time);
    }
}

/// The cells of an endpoint and of its cluster on one worker.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Those of the endpoint.
    pub endpoint: Arc<EndpointCounters>,
    /// Those of the cluster.
    pub cluster: Arc<ClusterCounters>,
}

impl EndpointCells {
    /// Counts what a use has moved, and the time to the first byte.
    pub(super) fn add(&self, outcome: &Outcome) {
        self.endpoint.bytes_up.add(outcome.bytes_up);
        self.endpoint.bytes_down.add(outcome.bytes_down.saturating_sub(outcome.own_down));
        if let Some(time) = outcome.first_byte {
            self.cluster.first_byte.record(time);
            // A response on an idle connection follows no attempt. The clock is read only if it
            // changes what was known.
            let is_known = self.endpoint.shown().state() == State::Up;
            if outcome.end == End::Done && !is_known {
                self.endpoint.set_up();
            }
        }
    }
}

/// One endpoint with its cells.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The address.
    pub address: Address,
    cells: Arc<[Arc<EndpointCounters>]>,
}

/// The endpoints of a cluster, with the cells of all workers.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// All of them.
    pub listed: Vec<Listed>,
    cells: Arc<[Arc<ClusterCounters>]>,
}

impl Endpoints {
    /// The cells of an endpoint on the worker with this index.
    pub fn cells(&self, listed: &Listed, worker: usize) -> Rc<EndpointCells> {
        Rc::new(EndpointCells {
            endpoint: Arc::clone(&listed.cells[worker]),
            cluster: Arc::clone(&self.cells[worker]),
        })
    }

    /// Endpoints with cells that only they have, for so many workers.
    pub fn unshared(addresses: &[Address], workers: usize) -> Endpoints {
        Registry::new(workers).list(&Arc::from(""), addresses, |_| false)
    }
}

/// What was counted of a cluster, without what is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    numbers: Numbers,
    connect: Times,
    first_byte: Times,
}

/// The numbers of an endpoint over all workers, or the sums of several endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Relays, requests and sessions that have begun.
    pub begun: u64,
    /// Those that are open.
    pub open: u64,
    /// Bytes to endpoints.
    pub bytes_up: u64,
    /// Bytes from endpoints.
    pub bytes_down: u64,
    /// Failed attempts by their [`FailureKind`].
    pub failures: [u64; FailureKind::COUNT],
}

impl Numbers {
    fn of(cells: &[Arc<EndpointCounters>]) -> Numbers {
        let mut sum = Numbers::default();
        for cell in cells {
            sum += Numbers {
                // Read first: what begins meanwhile is not open before it has begun.
                open: cell.uses.open(),
                begun: cell.uses.begun(),
                bytes_up: cell.bytes_up.get(),
                bytes_down: cell.bytes_down.get(),
                failures: std::array::from_fn(|kind| cell.failures[kind].get()),
            };
        }
        sum
    }
}

impl AddAssign for Numbers {
    fn add_assign(&mut self, other: Numbers) {
        self.begun += other.begun;
        self.open += other.open;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.failures.iter_mut().zip(other.failures).for_each(|(own, other)| *own += other);
    }
}

/// One endpoint as it is shown.
#[derive(Clone, Debug)]
pub struct EndpointNumbers {
    /// Its address.
    pub address: Address,
    /// False if the cluster does not have it any more, and connections still use it.
    pub is_listed: bool,
    /// True if it gets nothing new.
    pub is_drained: bool,
    /// What the last attempt of all workers has shown.
    pub state: State,
    /// Workers whose last attempt has failed, and after which no other worker had success.
    pub failing_workers: usize,
    /// Its numbers.
    pub numbers: Numbers,
}

/// One cluster as it is shown.
#[derive(Clone, Debug)]
pub struct ClusterNumbers {
    /// Its name.
    pub name: Arc<str>,
    /// Sums over all endpoints that it has or had.
    pub numbers: Numbers,
    /// Its endpoints at present.
    pub listed: usize,
    /// Those of them that get nothing new.
    pub drained: usize,
    /// Those that are not drained, and whose last attempt has failed.
    pub failing: usize,
    /// Those that are not drained, and to which this machine has no route.
    pub unreachable: usize,
    /// Endpoints in the order of their addresses, not more than [`MOST_SHOWN`] over all clusters.
    pub endpoints: Vec<EndpointNumbers>,
    /// Times of connects that have succeeded, retries included.
    pub connect: Times,
    /// Times from the end of a request to the first byte of its response.
    pub first_byte: Times,
}

/// The counters of all clusters and their endpoints.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    clusters: BTreeMap<Arc<str>, Cluster>,
    /// Endpoints that are shown.
    shown: usize,
}

#[derive(Debug)]
pub(super) struct Cluster {
    cells: Arc<[Arc<ClusterCounters>]>,
    /// Sums over endpoints that are forgotten.
    gone: Numbers,
    /// What earlier processes have counted.
    earlier: Sums,
    endpoints: BTreeMap<Address, Entry>,
}

#[derive(Debug)]
struct Entry {
    cells: Arc<[Arc<EndpointCounters>]>,
    is_listed: bool,
    is_drained: bool,
    /// Decided once, so that no series changes its meaning.
    is_shown: bool,
}

impl Entry {
    /// Returns true if something uses it or is about to. A tunnel keeps its cluster, which may be
    /// an earlier one with endpoints that are gone: those have no use.
    fn is_used(&self) -> bool {
        self.cells.iter().any(|cell| cell.uses.open() > 0 || cell.attempts.get() > 0)
    }

    fn show(&self, address: &Address) -> EndpointNumbers {
        // A worker may have tried it long ago. What others have seen since counts.
        let shown = self.cells.iter().map(|cell| cell.shown());
        let (last, success) = (shown.clone().max(), shown.clone().filter(|one| !one.is_failing()));
        let success = success.max().unwrap_or_default();
        EndpointNumbers {
            address: address.clone(),
            is_listed: self.is_listed,
            is_drained: self.is_drained,
            state: last.unwrap_or_default().state(),
            failing_workers: shown.filter(|one| one.is_failing() && *one > success).count(),
            numbers: Numbers::of(&self.cells),
        }
    }
}

impl Registry {
    /// Makes a registry for a number of workers.
    pub fn new(workers: usize) -> Registry {
        Registry { workers, clusters: BTreeMap::new(), shown: 0 }
    }

    /// Notes that a cluster has these endpoints and no others. Returns those that are not drained,
    /// with their counters, which are the same as before for those that it has or had not long ago.
    pub fn list(
        &mut self,
        cluster: &Arc<str>,
        addresses: &[Address],
        is_drained: impl Fn(&Address) -> bool,
    ) -> Endpoints {
        self.forget_unused();
        let Registry { workers, clusters, shown } = self;
        let cluster = clusters.entry(Arc::clone(cluster)).or_insert_with(|| Cluster {
            cells: cells(*workers),
            gone: Numbers::default(),
            earlier: Sums::default(),
            endpoints: BTreeMap::new(),
        });
        cluster.endpoints.values_mut().for_each(|entry| entry.is_listed = false);
        let mut listed = Vec::with_capacity(addresses.len());
        for address in addresses {
            let entry = cluster.endpoints.entry(address.clone()).or_insert_with(|| {
                let is_shown = *shown < MOST_SHOWN;
                *shown += usize::from(is_shown);
                Entry { cells: cells(*workers), is_listed: true, is_drained: false, is_shown }
            });
            entry.is_listed = true;
            entry.is_drained = is_drained(address);
            if !entry.is_drained {
                listed.push(Listed { address: address.clone(), cells: Arc::clone(&entry.cells) });
            }
        }
        Endpoints { listed, cells: Arc::clone(&cluster.cells) }
    }

    /// Notes that there are no other clusters any more than those of the configuration.
    pub fn keep_clusters(&mut self, is_configured: impl Fn(&str) -> bool) {
        for (name, cluster) in &mut self.clusters {
            if !is_configured(name) {
                cluster.endpoints.values_mut().for_each(|entry| entry.is_listed = false);
            }
        }
        self.forget_unused();
        self.clusters.retain(|name, cluster| is_configured(name) || !cluster.endpoints.is_empty());
    }

    /// Forgets endpoints that their clusters do not have any more and no connection uses.
    fn forget_unused(&mut self) {
        for cluster in self.clusters.values_mut() {
            let Cluster { gone, endpoints, .. } = cluster;
            endpoints.retain(|_, entry| {
                let is_kept = entry.is_listed || entry.is_used();
                if !is_kept {
                    *gone += Numbers::of(&entry.cells);
                    self.shown -= usize::from(entry.is_shown);
                }
                is_kept
            });
        }
    }

    /// What was counted of all clusters, for a later process.
    pub(super) fn sums(&self) -> impl Iterator<Item = (&Arc<str>, Sums)> {
        self.clusters.iter().map(|(name, cluster)| {
            let ClusterNumbers { numbers, connect, first_byte, .. } = cluster.show(name);
            let numbers = Numbers { open: 0, ..numbers };
            (name, Sums { numbers, connect, first_byte })
        })
    }

    /// Sets what earlier processes have counted of a cluster, if there is one of this name.
    pub(super) fn set_earlier(&mut self, cluster: &str, sums: Sums) {
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.earlier = sums;
        }
    }

    /// The numbers of all clusters, in the order of their names.
    pub fn show(&mut self) -> Vec<ClusterNumbers> {
        self.forget_unused();
        self.clusters.iter().map(|(name, cluster)| cluster.show(name)).collect()
    }
}

impl Cluster {
    fn show(&self, name: &Arc<str>) -> ClusterNumbers {
        let mut shown = ClusterNumbers {
            name: Arc::clone(name),
            numbers: self.gone,
            connect: self.earlier.connect,
            first_byte: self.earlier.first_byte,
            listed: 0,
            drained: 0,
            failing: 0,
            unreachable: 0,
            endpoints: Vec::new(),
        };
        shown.numbers += self.earlier.numbers;
        for (address, entry) in &self.endpoints {
            let endpoint = entry.show(address);
            shown.numbers += endpoint.numbers;
            shown.listed += usize::from(entry.is_listed);
            shown.drained += usize::from(entry.is_listed && entry.is_drained);
            let is_used = entry.is_listed && !entry.is_drained;
            shown.failing += usize::from(is_used && endpoint.state == State::Failing);
            shown.unreachable += usize::from(is_used && endpoint.state == State::Unreachable);
            if entry.is_shown {
                shown.endpoints.push(endpoint);
            }
        }
        for cell in self.cells.iter() {
            shown.connect += cell.connect.times();
            shown.first_byte += cell.first_byte.times();
        }
        shown
    }
}

fn cells<T: Default>(workers: usize) -> Arc<[Arc<T>]> {
    (0..workers).map(|_| Arc::default()).collect()
}

#[cfg(test)]
mod tests;

//! What a worker counts of the hosts of http listeners. Only hosts of the configuration count, so
//! that clients cannot make series of their own, and at most [`MOST`] of a listener one by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::Count;

/// The most hosts of a listener that are counted one by one. Further ones are counted together.
pub const MOST: usize = 200;
/// The name of those that are counted together.
const OTHER: &str = "other";

/// The counts of one host on one worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct HostCounters {
    pub(super) requests: Count,
}

impl HostCounters {
    /// Counts a request that has found a route of the host.
    pub fn add(&self) {
        self.requests.add(1);
    }
}

/// The counters of one host: one for each worker, in their order, and then one for what earlier
/// processes have counted.
pub type HostCells = Arc<[Arc<HostCounters>]>;

/// One host as it is shown.
#[derive(Clone, Debug)]
pub struct Host {
    /// The listener.
    pub listener: Arc<str>,
    /// The first name of the host, `*` for one without a name.
    pub name: Arc<str>,
    cells: HostCells,
}

impl Host {
    /// Requests that have found a route of it.
    pub fn requests(&self) -> u64 {
        self.cells.iter().map(|cell| cell.requests.get()).sum()
    }
}

/// The counters of all hosts, by listener and name.
#[derive(Debug)]
pub struct HostRegistry {
    workers: usize,
    all: BTreeMap<(Arc<str>, Arc<str>), HostCells>,
}

impl HostRegistry {
    /// Makes a registry for a number of workers.
    pub fn new(workers: usize) -> HostRegistry {
        HostRegistry { workers, all: BTreeMap::new() }
    }

    /// The counters of the hosts of a listener with these names, in their order. They are the same
    /// as before if it had hosts of these names before.
    pub fn of(
        &mut self,
        listener: &Arc<str>,
        names: impl Iterator<Item = String>,
    ) -> Vec<HostCells> {
        let workers = self.workers;
        let mut cells = |(position, name): (usize, String)| {
            let name = if position < MOST { name.as_str() } else { OTHER };
            let cells = || (0..=workers).map(|_| Arc::default()).collect();
            let key = (Arc::clone(listener), Arc::from(name));
            Arc::clone(self.all.entry(key).or_insert_with(cells))
        };
        names.enumerate().map(&mut cells).collect()
    }

    /// Forgets the hosts that no worker serves any more.
    pub fn forget_unused(&mut self) {
        self.all.retain(|_, cells| cells.iter().any(|cell| Arc::strong_count(cell) > 1));
    }

    /// The counter of what earlier processes have counted of a host.
    pub(super) fn earlier(&self, listener: &str, name: &str) -> Option<&HostCounters> {
        let key = (Arc::from(listener), Arc::from(name));
        self.all.get(&key)?.last().map(|cell| &**cell)
    }

    /// All hosts, in the order of their listeners and names.
    pub fn all(&self) -> Vec<Host> {
        let host = |((listener, name), cells): (&(Arc<str>, Arc<str>), &HostCells)| Host {
            listener: Arc::clone(listener),
            name: Arc::clone(name),
            cells: Arc::clone(cells),
        };
        self.all.iter().map(host).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_by_listener_and_name_and_their_number_is_bounded() {
        let mut registry = HostRegistry::new(2);
        let web: Arc<str> = "web".into();
        let names: Vec<String> = (0..MOST + 5).map(|number| format!("{number}.test")).collect();
        let of = |registry: &mut HostRegistry| registry.of(&web, names.iter().cloned());
        let cells = of(&mut registry);
        let used = [&cells[0][0], &cells[0][1], &cells[MOST][0], &cells[MOST + 4][0]];
        let used = used.map(|cell| {
            cell.add();
            Arc::clone(cell)
        });
        assert!(Arc::ptr_eq(&cells[0], &of(&mut registry)[0]));
        let all = registry.all();
        assert_eq!(all.len(), MOST + 1);
        let requests = |all: &[Host], name: &str| {
            all.iter().find(|host| &*host.name == name).map(Host::requests)
        };
        assert_eq!((requests(&all, "0.test"), requests(&all, OTHER)), (Some(2), Some(2)));
        registry.forget_unused();
        assert_eq!(registry.all().len(), 2);
        drop(used);
        registry.forget_unused();
        assert!(registry.all().is_empty());
    }
}

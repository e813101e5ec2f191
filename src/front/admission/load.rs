//! The connections of each worker: how many there are, and how many there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Streams leave 1/`STREAMS_LEAVE` of a worker's places for connections.
const STREAMS_LEAVE: usize = 4;

/// Counts a worker's connections; all workers can read it. It has a cache line of its own, because
/// it changes with every connection.
#[repr(align(128))]
pub struct Load {
    open: AtomicUsize,
    /// The most connections at one time: the worker's share of the descriptors.
    max: AtomicUsize,
}

impl Load {
    /// Stored when the worker has ended: more than any number of connections.
    const CLOSED: usize = usize::MAX / 2;

    /// Makes a counter for at most `max` connections at one time.
    pub fn new(max: usize) -> Load {
        Load { open: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// Changes the most connections. Those that are open stay.
    pub(in crate::front) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The most connections at one time.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Connections at present.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns true when the worker has `max` connections or has ended.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max()
    }

    /// Counts one more connection until the permit is dropped. `None` if the worker is full or has
    /// ended.
    pub fn permit(self: &Arc<Load>) -> Option<Permit> {
        self.count(self.max())
    }

    /// Like [`Load::permit`], but also when the worker is full. `None` if the worker has ended.
    pub fn permit_beyond_limit(self: &Arc<Load>) -> Option<Permit> {
        self.count(Self::CLOSED)
    }

    /// Like [`Load::permit`], for a stream that needs a descriptor of its own. A quarter of the
    /// places is left to connections, so streams cannot keep new clients out.
    pub(in crate::front) fn permit_for_stream(self: &Arc<Load>) -> Option<Permit> {
        let max = self.max();
        self.count(max - max / STREAMS_LEAVE)
    }

    fn count(self: &Arc<Load>, max: usize) -> Option<Permit> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        // If the permit is not returned, dropping it undoes the count.
        let permit = Permit { load: Arc::clone(self) };
        (before < max.min(Self::CLOSED)).then_some(permit)
    }

    /// Ends the worker if it has no connections. Returns true when it has ended: no permit is
    /// given any more.
    pub fn close(&self) -> bool {
        self.open.compare_exchange(0, Self::CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The permission to serve one connection, which is counted until the permit is dropped.
pub struct Permit {
    load: Arc<Load>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.load.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_places_for_connections() {
        let load = Arc::new(Load::new(8));
        let connection = load.permit().unwrap();
        let streams: Vec<_> = std::iter::from_fn(|| load.permit_for_stream()).collect();
        assert_eq!((streams.len(), load.open()), (5, 6));
        let more: Vec<_> = std::iter::from_fn(|| load.permit()).collect();
        assert_eq!((more.len(), load.is_full()), (2, true));
        drop((connection, streams));
        assert!(load.permit_for_stream().is_some());
    }
}

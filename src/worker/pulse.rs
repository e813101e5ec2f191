//! What the control plane sees of a worker's event loop: that it goes on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::ThreadClock;

/// Ticks of one worker, counted. Only the worker writes.
#[derive(Debug, Default)]
pub struct Pulse {
    ticks: AtomicU32,
    clock: OnceLock<ThreadClock>,
    ended: AtomicBool,
}

impl Pulse {
    /// The worker's thread begins to tick.
    pub(super) fn start(&self) {
        if let Some(clock) = ThreadClock::current() {
            // A worker starts once.
            let _ = self.clock.set(clock);
        }
    }

    /// One more tick.
    pub(super) fn beat(&self) {
        self.ticks.store(self.ticks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// There are no more ticks.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Ticks so far. None: the worker has ended.
    pub fn ticks(&self) -> Option<u32> {
        (!self.ended.load(Ordering::Relaxed)).then(|| self.ticks.load(Ordering::Relaxed))
    }

    /// Processor time of the worker's thread so far; 0 where it is not known.
    pub fn used(&self) -> Duration {
        self.clock.get().and_then(|clock| clock.used()).unwrap_or_default()
    }
}

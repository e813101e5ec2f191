//! Shows the control plane that the event loop of a worker makes progress.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::ThreadClock;

/// Counts the ticks of one worker. Only the worker writes it.
#[derive(Debug, Default)]
pub struct Pulse {
    ticks: AtomicU32,
    clock: OnceLock<ThreadClock>,
    ended: AtomicBool,
}

impl Pulse {
    /// Stores the clock of the calling thread, which is the worker's.
    pub(super) fn start(&self) {
        if let Some(clock) = ThreadClock::current() {
            // A worker starts only once, so this cannot fail.
            let _ = self.clock.set(clock);
        }
    }

    /// Counts one more tick.
    pub(super) fn beat(&self) {
        // A load and a store are enough, since no other thread writes.
        self.ticks.store(self.ticks.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Records that the worker has ended.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The number of ticks so far; `None` if the worker has ended.
    pub fn ticks(&self) -> Option<u32> {
        (!self.ended.load(Ordering::Relaxed)).then(|| self.ticks.load(Ordering::Relaxed))
    }

    /// The processor time of the worker's thread so far; 0 if it is not known.
    pub fn used(&self) -> Duration {
        self.clock.get().and_then(|clock| clock.used()).unwrap_or_default()
    }
}

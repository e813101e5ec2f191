//! Shows the control plane that a worker lives, and that its event loop makes progress.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::levels::Levels;
use crate::sys::ThreadClock;

/// What another thread sees of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running {
        /// Ticks so far. They wrap.
        ticks: u32,
        /// Processor time that its thread has used; 0 if it is not known.
        used: Duration,
    },
    /// It has ended.
    Ended,
    /// Its thread is gone, and has not ended the worker before.
    Gone,
}

/// Counts the ticks of one worker. Only the worker writes it.
#[derive(Debug, Default)]
pub struct Pulse {
    ticks: AtomicU32,
    clock: OnceLock<ThreadClock>,
    ended: AtomicBool,
    /// What it has open.
    pub levels: Levels,
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
        self.ended.store(true, Ordering::Release);
    }

    /// What the worker does at present.
    pub fn life(&self) -> Life {
        let ticks = self.ticks.load(Ordering::Relaxed);
        let used = match self.clock.get() {
            None => Some(Duration::ZERO),
            // A thread that is gone has no clock.
            Some(clock) => clock.used(),
        };
        // Asked last: a worker may end meanwhile, and then its thread.
        match used {
            _ if self.ended.load(Ordering::Acquire) => Life::Ended,
            Some(used) => Life::Running { ticks, used },
            None => Life::Gone,
        }
    }
}

//! Gives memory back to the kernel when much of it has become free. The C library keeps what is
//! freed for what comes next, so that the process would stay as large as it ever was.
//!
//! Memory becomes free at three moments: a reload frees the configuration before; the workers free
//! what they had of it, seconds later; and many connections end. A connection keeps the parts of a
//! configuration that it uses, so that only its end frees those.

use std::any::Any;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::MissedTickBehavior;

use super::once;
use crate::observe::counters::{Cells, Open};
use crate::sys;

/// The time between two looks at what is open.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks between two releases. After a reload the workers have freed by then what no connection
/// uses.
const PAUSE: u32 = 8;
/// The fewest connections whose end is worth a release, which holds the workers up if they allocate
/// meanwhile.
const FEW: u64 = 32;

/// Gives memory back while it exists.
pub(super) struct Memory(UnboundedSender<Reloaded>);

/// What a reload has left.
struct Reloaded {
    /// Only for being freed.
    before: Box<dyn Any + Send>,
    counters: Vec<Cells>,
}

impl Memory {
    /// Starts to look at what is open. Must be called within a runtime.
    pub(super) fn start(counters: Vec<Cells>) -> Memory {
        let (sender, reloads) = unbounded_channel();
        drop(tokio::spawn(run(reloads, counters)));
        Memory(sender)
    }

    /// Frees what was made of a configuration that is not used any more. `counters` are those of
    /// all listeners that have connections.
    pub(super) fn free(&self, before: impl Send + 'static, counters: Vec<Cells>) {
        // An error means that the runtime ends.
        let _ = self.0.send(Reloaded { before: Box::new(before), counters });
    }
}

async fn run(mut reloads: UnboundedReceiver<Reloaded>, mut counters: Vec<Cells>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peak = Peak(0);
    // Reading a configuration leaves free memory behind, and the first tick comes at once.
    let (mut is_due, mut pause) = (true, 0);
    loop {
        tokio::select! {
            reloaded = reloads.recv() => {
                let Some(reloaded) = reloaded else { return };
                counters = reloaded.counters;
                (is_due, pause) = (true, PAUSE);
                release(Some(reloaded.before)).await;
            }
            _ = ticks.tick() => {
                let mut open = Open::default();
                counters.iter().flat_map(|cells| cells.iter()).for_each(|cell| open += cell.open());
                is_due |= peak.has_fallen(open.all());
                pause = pause.saturating_sub(1);
                if is_due && pause == 0 {
                    (is_due, pause) = (false, PAUSE);
                    release(None).await;
                }
            }
        }
    }
}

/// Frees something that may be large, and gives memory back.
async fn release(what: Option<Box<dyn Any + Send>>) {
    let work = || {
        let Some(what) = what else { return sys::release_memory() };
        // The allocator gives no block back that it keeps for a thread.
        if let Ok((thread, _)) = once::run("free", || drop(what)) {
            let _ = thread.join();
        }
        sys::release_memory_of_ended_threads();
    };
    // A join error is a panic, which has been reported.
    let _ = tokio::task::spawn_blocking(work).await;
}

/// The most that was open since memory was given back.
struct Peak(u64);

impl Peak {
    /// Returns true if half of them have ended; `open` is the peak from then on.
    fn has_fallen(&mut self, open: u64) -> bool {
        let has_fallen = open <= self.0 / 2 && self.0 - open >= FEW;
        self.0 = if has_fallen { open } else { self.0.max(open) };
        has_fallen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_half_of_many_connections_have_ended() {
        let mut peak = Peak(0);
        let mut falls = |open| peak.has_fallen(open);
        assert!(![0, 31, 0, 200, 150, 101].map(&mut falls).contains(&true));
        assert!(falls(100));
        assert!(![100, 99, 51].map(&mut falls).contains(&true));
        assert!(falls(50));
        // Up again, and down by fewer than matter.
        assert!(![60, 31].map(&mut falls).contains(&true));
        assert!(falls(28));
        assert!(![28, 0].map(&mut falls).contains(&true));
    }
}

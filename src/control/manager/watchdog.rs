//! Beats of the service manager's watchdog. They come from the control plane, and only while all
//! workers tick.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::timers::TICK;
use crate::worker::{Life, Pulse};

/// Calls `beat` at half of the manager's limit, as sd_watchdog_enabled(3) says, until it returns
/// false.
///
/// A beat needs a tick of each worker from the last few milliseconds. A worker that does not tick
/// holds the beats up, for ever if it hangs, and only until it ticks if the whole process was
/// stopped (SIGSTOP).
pub(super) async fn run(limit: Duration, workers: Vec<Arc<Pulse>>, beat: impl Fn() -> bool) {
    let ticks = || -> Vec<Option<u32>> { workers.iter().map(|pulse| ticks(pulse)).collect() };
    while beat() {
        sleep(limit / 2).await;
        let seen = ticks();
        while !all_have_ticked(&seen, &ticks()) {
            sleep(TICK / 2).await;
        }
    }
}

/// The ticks of a worker so far; `None` if it has ended. One whose thread is gone ticks no more.
fn ticks(pulse: &Pulse) -> Option<u32> {
    match pulse.life() {
        Life::Running { ticks, .. } => Some(ticks),
        Life::Gone => Some(0),
        Life::Ended => None,
    }
}

/// Returns true if each worker has ticked since, or has ended.
fn all_have_ticked(seen: &[Option<u32>], now: &[Option<u32>]) -> bool {
    seen.iter().zip(now).all(|(seen, now)| now.is_none() || seen != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_tick_holds_the_beats_up() {
        assert!(all_have_ticked(&[Some(1), Some(5)], &[Some(2), Some(6)]));
        assert!(!all_have_ticked(&[Some(1), Some(5)], &[Some(2), Some(5)]));
        assert!(all_have_ticked(&[Some(u32::MAX)], &[Some(0)]));
    }

    #[test]
    fn a_worker_that_has_ended_holds_up_nothing() {
        assert!(all_have_ticked(&[Some(1), None], &[None, None]));
    }
}

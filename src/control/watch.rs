//! Checks the workers once a second: reports what they cannot serve, and ends the process if the
//! event loop of one has stopped.
//!
//! The runtime of a worker ignores an error of io_uring_enter(2) or epoll_wait(2) and calls again
//! at once. If the call goes on failing, no tick and no task of the worker runs, so the worker
//! cannot notice it. From outside it is a worker that does not tick. That alone proves nothing:
//! other processes may starve a worker. There are two proofs. One is a ring of the control plane
//! that cannot be entered any more, because entering it is the same call. The other is a worker
//! that has used seconds of processor time without a tick; a tick takes milliseconds, however busy
//! the worker is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Driver;
use crate::error::Error;
use crate::sys::{RingRefusal, probe_ring};
use crate::worker::{Pulse, Running};

/// The time between two checks.
const LOOK: Duration = Duration::from_secs(1);
/// If a check comes later than this, the process was stopped, and the workers with it.
const LATE: Duration = Duration::from_secs(2);
/// A worker is suspected after this time without a tick.
const SUSPECT: Duration = Duration::from_secs(3);
/// A worker is given up after this time without a tick, if it uses processor time.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The least processor time, used without a tick, after which a worker is given up.
const GIVE_UP_USED: Duration = Duration::from_secs(3);

/// All workers, with their state at the last check.
pub(super) struct Watch {
    pulses: Vec<Arc<Pulse>>,
    running: Running,
    seen: Vec<Seen>,
    last: Instant,
}

/// The state of a worker at its last tick.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    ticks: u32,
    /// Time without a tick.
    still: Duration,
    /// Processor time that the worker had used at that tick.
    used: Duration,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Fine,
    Suspect(usize),
    /// The worker uses the processor and does not tick.
    Spinning(usize),
}

impl Watch {
    pub(super) fn new(pulses: Vec<Arc<Pulse>>, running: Running) -> Watch {
        let seen = vec![Seen::default(); pulses.len()];
        Watch { pulses, running, seen, last: Instant::now() }
    }

    /// Checks once a second, and calls `report` each time. Returns when a worker has failed for
    /// good. The future may be dropped at any time.
    pub(super) async fn until_one_fails(&mut self, report: impl Fn()) -> Error {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            report();
            let pulses = self.pulses.iter().map(|pulse| Some((pulse.ticks()?, pulse.used())));
            let passed = self.last.elapsed();
            self.last = Instant::now();
            let finding = look(&mut self.seen, pulses, passed);
            if let Some(error) = self.judge(finding) {
                return error;
            }
        }
    }

    fn judge(&self, finding: Finding) -> Option<Error> {
        let (worker, is_spinning) = match finding {
            Finding::Fine => return None,
            Finding::Suspect(worker) => (worker, false),
            Finding::Spinning(worker) => (worker, true),
        };
        let what = format!("worker {worker} has stopped");
        if self.running.driver == Driver::IoUring
            && let Err(RingRefusal { call, error }) = probe_ring(false, Duration::ZERO)
            && call == "io_uring_enter"
            // With these errors the kernel is out of memory for a moment. If that lasts, the worker
            // spins.
            && !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
        {
            return Some(Error::start(format!("{what}: {call} is refused"), error, REFUSED));
        }
        is_spinning.then(|| Error::start(what, "its event loop makes no progress", SPINS))
    }
}

const REFUSED: &str = "a seccomp filter or a fault of the kernel: start ringgate again; \
                       server.driver = \"epoll\" does without io_uring";
const SPINS: &str = "a call that it waits with fails at once, or does not end: start ringgate \
                     again; `strace -f` shows which";

/// Compares with the last check, `passed` ago. Workers that have ended are skipped.
fn look(
    seen: &mut [Seen],
    pulses: impl Iterator<Item = Option<(u32, Duration)>>,
    passed: Duration,
) -> Finding {
    let mut finding = Finding::Fine;
    for (index, (seen, pulse)) in seen.iter_mut().zip(pulses).enumerate() {
        let Some((ticks, used)) = pulse else { continue };
        // The worker has ticked, or the process was stopped: start counting again.
        if ticks != seen.ticks || passed >= LATE {
            *seen = Seen { ticks, still: Duration::ZERO, used };
            continue;
        }
        seen.still += passed;
        if seen.still >= GIVE_UP && used.saturating_sub(seen.used) >= GIVE_UP_USED {
            return Finding::Spinning(index);
        }
        if seen.still >= SUSPECT && finding == Finding::Fine {
            finding = Finding::Suspect(index);
        }
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Makes one check a second of two workers. The second one does not tick, and uses the
    /// processor for `busy` milliseconds of each second.
    fn looks(count: u32, busy: u64, passed: Duration) -> Finding {
        let mut seen = [Seen::default(); 2];
        let mut finding = Finding::Fine;
        for at in 1..=count {
            let used = Duration::from_millis(busy) * at;
            let pulses = [Some((at, SECOND * at)), Some((0, used))];
            finding = look(&mut seen, pulses.into_iter(), passed);
        }
        finding
    }

    #[test]
    fn a_worker_without_ticks_is_suspected_and_a_busy_one_given_up() {
        assert_eq!(looks(2, 1000, SECOND), Finding::Fine);
        assert_eq!(looks(3, 1000, SECOND), Finding::Suspect(1));
        assert_eq!(looks(9, 1000, SECOND), Finding::Suspect(1));
        assert_eq!(looks(10, 1000, SECOND), Finding::Spinning(1));
        assert_eq!(looks(30, 100, SECOND), Finding::Spinning(1));
    }

    #[test]
    fn one_that_does_not_get_the_processor_is_not_given_up() {
        assert_eq!(looks(600, 4, SECOND), Finding::Suspect(1));
    }

    #[test]
    fn the_time_of_a_stopped_process_does_not_count() {
        assert_eq!(looks(100, 1000, Duration::from_secs(60)), Finding::Fine);
    }

    #[test]
    fn one_tick_is_enough_and_one_that_has_ended_needs_none() {
        let mut seen = [Seen::default()];
        for at in 0..100 {
            let pulse = Some((at / 2, SECOND * at));
            assert_eq!(look(&mut seen, [pulse].into_iter(), SECOND), Finding::Fine);
        }
        for _ in 0..100 {
            assert_eq!(look(&mut seen, [None].into_iter(), SECOND), Finding::Fine);
        }
    }
}

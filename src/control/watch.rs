//! Checks the workers once a second: reports what they cannot serve, and ends the process if one is
//! gone or its event loop has stopped.
//!
//! A worker that panics ends the process itself (`panics`). Its thread can also be killed, for
//! example by a seccomp filter: then it has no clock any more.
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
use crate::worker::{Life, Pulse, Running};

/// The time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);
/// If a check comes later than this, the process was stopped, and the workers with it.
const LATE: Duration = Duration::from_secs(2);
/// A worker is suspected after this time without a tick.
const SUSPECT_AFTER: Duration = Duration::from_secs(3);
/// A worker is given up after this time without a tick, if it uses processor time.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// The least processor time, used without a tick, after which a worker is given up.
const MIN_USED: Duration = Duration::from_secs(3);

/// All workers, with their state at the last check.
pub(super) struct Watch {
    pulses: Vec<Arc<Pulse>>,
    running: Running,
    seen: Vec<LastTick>,
    last: Instant,
    /// Whether workers may end: the process drains.
    may_end: bool,
}

/// The state of a worker at its last tick.
#[derive(Clone, Copy, Debug, Default)]
struct LastTick {
    ticks: u32,
    /// Time without a tick.
    silence: Duration,
    /// Processor time that the worker had used at that tick.
    used: Duration,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Every worker ticks, or has not been silent for long.
    Ticking,
    /// This worker has not ticked for a while.
    Suspected(usize),
    /// This worker uses the processor and does not tick.
    Spinning(usize),
    /// This worker has ended by itself.
    Ended(usize),
    /// The thread of this worker is gone.
    Gone(usize),
}

impl Watch {
    pub(super) fn new(pulses: Vec<Arc<Pulse>>, running: Running) -> Watch {
        let seen = vec![LastTick::default(); pulses.len()];
        Watch { pulses, running, seen, last: Instant::now(), may_end: false }
    }

    /// Lets workers end from now on, because the process drains.
    pub(super) fn let_end(&mut self) {
        self.may_end = true;
    }

    /// Checks once a second, and calls `report` each time. Returns when a worker has failed for
    /// good. The future may be dropped at any time.
    pub(super) async fn until_one_fails(&mut self, report: impl Fn()) -> Error {
        let mut checks = tokio::time::interval(INTERVAL);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            report();
            let lives = self.pulses.iter().map(|pulse| pulse.life());
            let passed = self.last.elapsed();
            self.last = Instant::now();
            let finding = compare(&mut self.seen, lives, passed, self.may_end);
            if let Some(error) = self.to_error(finding) {
                return error;
            }
        }
    }

    /// The error that ends the process. `None` if there is no proof that a worker has failed.
    fn to_error(&self, finding: Finding) -> Option<Error> {
        let (worker, is_spinning) = match finding {
            Finding::Ticking => return None,
            Finding::Suspected(worker) => (worker, false),
            Finding::Spinning(worker) => (worker, true),
            Finding::Ended(worker) => {
                let what = format!("worker {worker} has stopped");
                return Some(Error::start(what, "it has ended by itself", ENDED));
            }
            Finding::Gone(worker) => {
                let what = format!("worker {worker} has stopped");
                return Some(Error::start(what, "its thread was killed", KILLED));
            }
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

const REFUSED: &str = "a seccomp filter or a kernel error is the cause: restart ringgate; \
                       server.driver = \"epoll\" does not need io_uring";
const SPINS: &str = "a system call that waits for events fails at once, or a task does not end: \
                     restart ringgate; `strace -f` shows the system calls";

const ENDED: &str = "this is an error of ringgate: report it, and restart ringgate";
const KILLED: &str = "a seccomp filter that kills threads, or a debugger, is the cause: restart \
                      ringgate without it";

/// Compares the workers with the last check, `passed` ago. Workers that have ended are skipped if
/// they `may_end`.
fn compare(
    seen: &mut [LastTick],
    lives: impl Iterator<Item = Life>,
    passed: Duration,
    may_end: bool,
) -> Finding {
    let mut finding = Finding::Ticking;
    for (index, (seen, life)) in seen.iter_mut().zip(lives).enumerate() {
        let (ticks, used) = match life {
            Life::Running { ticks, used } => (ticks, used),
            Life::Ended if may_end => continue,
            Life::Ended => return Finding::Ended(index),
            Life::Gone => return Finding::Gone(index),
        };
        // The worker has ticked, or the process was stopped: start counting again.
        if ticks != seen.ticks || passed >= LATE {
            *seen = LastTick { ticks, silence: Duration::ZERO, used };
            continue;
        }
        seen.silence += passed;
        if seen.silence >= GIVE_UP_AFTER && used.saturating_sub(seen.used) >= MIN_USED {
            return Finding::Spinning(index);
        }
        if seen.silence >= SUSPECT_AFTER && finding == Finding::Ticking {
            finding = Finding::Suspected(index);
        }
    }
    finding
}

#[cfg(test)]
mod tests;

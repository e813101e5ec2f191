//! The runtime of a worker: io_uring with the flags that measured best, or epoll if the kernel
//! refuses io_uring.
//!
//! SINGLE_ISSUER, COOP_TASKRUN and DEFER_TASKRUN together cost a fifth less CPU for a small message
//! than a plain ring, and 9 % less for a short connection. They need Linux 6.1.
//!
//! The rings of a user without CAP_IPC_LOCK are charged to RLIMIT_MEMLOCK, all of them together. So
//! the control plane makes all workers build by the same [`Plan`] before any of them runs: either
//! the rings of all workers fit, or all try smaller ones.

use std::future::Future;
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::config::Driver;
use crate::sched::Outbox;
use crate::sys::{is_out_of_memory, ring_bytes};

/// Completion entries for each submission entry, since all waiting streams may complete at once.
const COMPLETIONS: u32 = 16;
/// The pause between two attempts to make a ring.
const RETRY: Duration = Duration::from_millis(10);

/// What a worker runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// io_uring.
    Ring {
        /// Submission entries of its ring.
        size: u32,
        /// Whether it also has an [`Outbox`], if the kernel knows the flags that it needs.
        outbox: bool,
    },
    /// epoll.
    Epoll,
}

impl Plan {
    /// The plans in the order in which they are tried, the best first. With 512 connections a ring
    /// of 256 is no slower than one of 1,024. The larger ring saves calls when more connections
    /// wait at one time; an outbox saves more than that.
    pub const RINGS: [Plan; 4] = [
        Plan::Ring { size: 1024, outbox: true },
        Plan::Ring { size: 512, outbox: true },
        Plan::Ring { size: 256, outbox: true },
        Plan::Ring { size: 256, outbox: false },
    ];

    /// Bytes of one worker that count as locked memory.
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

/// A plan by which a worker is to build its runtime.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The plan.
    pub plan: Plan,
    /// How long a ring that does not fit is tried again. The kernel frees the memory of closed
    /// rings with a delay.
    pub retry_for: Duration,
}

/// How a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// io_uring or epoll, never auto.
    pub driver: Driver,
    /// Submission entries of the ring; 0 for epoll.
    pub ring_size: u32,
}

impl Running {
    /// The name of the driver in the configuration.
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

/// Builds a runtime by each plan that arrives, on the calling thread, and reports the result, until
/// the sender is dropped. Returns the runtime of the last plan; `None` if that one failed.
pub(super) fn build(plans: &Receiver<Trial>, built: &Sender<io::Result<()>>) -> Option<Runtime> {
    let mut last = None;
    for Trial { plan, retry_for } in plans {
        // The last runtime is closed first, since both may not fit at one time.
        drop(last.take());
        let deadline = Instant::now() + retry_for;
        let result = loop {
            match Runtime::build(plan) {
                Err(error) if is_out_of_memory(&error) && Instant::now() < deadline => {
                    thread::park_timeout(RETRY);
                }
                result => break result,
            }
        };
        // The control plane waits for this result. If it is gone, the process is ending.
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
            // If the kernel does not know the flags, the worker runs without an outbox.
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

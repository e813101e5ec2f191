//! Finds out whether a process may use io_uring on this machine, and computes what rings cost.

use std::io;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Submission entries of rings that are made only for a check.
const SMALL: u32 = 2;
/// The pause between two attempts to make a ring.
const RETRY: Duration = Duration::from_millis(10);
/// The operations that the runtime and the outbox use.
const OPERATIONS: [u8; 7] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::PollAdd::CODE,
    opcode::Read::CODE,
    opcode::Send::CODE,
    opcode::Timeout::CODE,
];

/// A system call that io_uring needs and that is refused.
#[derive(Debug)]
pub struct RingRefusal {
    /// The name of the call.
    pub call: &'static str,
    /// The error that it returned.
    pub error: io::Error,
}

/// Makes a small ring and enters it once. If `checks_operations` is true, also checks that the
/// kernel has all operations that are needed. A seccomp filter may refuse each of these calls
/// alone, and a ring that cannot be entered is useless. A ring that does not fit the limit of
/// locked memory is tried again for `retry_for`.
///
/// # Errors
/// The call that was refused.
pub fn probe_ring(checks_operations: bool, retry_for: Duration) -> Result<(), RingRefusal> {
    let refused = |call| move |error| RingRefusal { call, error };
    let mut ring = small_ring(retry_for).map_err(refused("io_uring_setup"))?;
    if checks_operations {
        let mut probe = Probe::new();
        let register = refused("io_uring_register");
        ring.submitter().register_probe(&mut probe).map_err(register)?;
        if !OPERATIONS.iter().all(|operation| probe.is_supported(*operation)) {
            return Err(register(io::ErrorKind::Unsupported.into()));
        }
    }
    // SAFETY: the entry refers to nothing.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }
        .expect("a new ring has room for one entry");
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(refused("io_uring_enter")(error)),
        }
    }
}

fn small_ring(retry_for: Duration) -> io::Result<IoUring> {
    let deadline = Instant::now() + retry_for;
    loop {
        match IoUring::new(SMALL) {
            Err(error) if is_out_of_memory(&error) && Instant::now() < deadline => {
                std::thread::park_timeout(RETRY);
            }
            made => return made,
        }
    }
}

/// Returns true if the error means that a ring does not fit the limit of locked memory.
pub fn is_out_of_memory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
}

/// Returns true if rings of this process count as locked memory. They do not for a user with
/// CAP_IPC_LOCK, nor with kernels that count them by cgroup. For this check the limit is 0 for a
/// moment.
pub fn rings_are_charged() -> bool {
    let limit = getrlimit(Resource::Memlock);
    let none = Rlimit { current: Some(0), maximum: limit.maximum };
    if setrlimit(Resource::Memlock, none).is_err() {
        return true;
    }
    let made = IoUring::new(SMALL);
    // Restores the limit. The kernel never refuses the value that it had before.
    let _ = setrlimit(Resource::Memlock, limit);
    made.is_err_and(|error| is_out_of_memory(&error))
}

/// Bytes that a ring is charged where rings count against RLIMIT_MEMLOCK: its two areas, in whole
/// pages (rings_size and io_allocate_scq_urings of Linux).
pub fn ring_bytes(entries: u32, completions: u32) -> u64 {
    const PAGE: u64 = 4096;
    const HEAD: u64 = 320;
    let (entries, completions) = (u64::from(entries), u64::from(completions));
    let rings = HEAD + completions * 16 + entries * 4;
    rings.next_multiple_of(PAGE) + (entries * 64).next_multiple_of(PAGE)
}

/// The limit of locked memory (getrlimit(2), RLIMIT_MEMLOCK); `u64::MAX` if there is none.
pub fn memlock_limit() -> u64 {
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted with Linux 6.18: this many rings fit 8 MiB, and one more does not.
    #[test]
    fn rings_cost_what_the_kernel_charges() {
        for (entries, completions, fit) in
            [(1024, 16_384, 24), (512, 8192, 49), (256, 4096, 97), (128, 256, 512)]
        {
            assert_eq!(8 * 1024 * 1024 / ring_bytes(entries, completions), fit, "{entries}");
        }
    }
}

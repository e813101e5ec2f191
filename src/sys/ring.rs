//! Whether this machine lets a process use io_uring, and what rings cost.

use std::io;

use io_uring::{IoUring, opcode};
use rustix::process::{Resource, getrlimit};

/// A call that io_uring needs and that is refused.
#[derive(Debug)]
pub struct RingRefusal {
    /// Its name.
    pub call: &'static str,
    /// Why.
    pub error: io::Error,
}

/// Makes a small ring and enters it once. A seccomp filter may refuse either call alone, and a ring
/// that cannot be entered serves nothing.
///
/// # Errors
/// The call that is refused.
pub fn probe_ring() -> Result<(), RingRefusal> {
    let refused = |call| move |error| RingRefusal { call, error };
    let mut ring = IoUring::new(2).map_err(refused("io_uring_setup"))?;
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

/// Bytes that a ring is charged with where rings count against RLIMIT_MEMLOCK: its two areas, in
/// whole pages (rings_size and io_allocate_scq_urings of Linux).
pub fn ring_bytes(entries: u32, completions: u32) -> u64 {
    const PAGE: u64 = 4096;
    const HEAD: u64 = 320;
    let (entries, completions) = (u64::from(entries), u64::from(completions));
    let rings = HEAD + completions * 16 + entries * 4;
    rings.next_multiple_of(PAGE) + (entries * 64).next_multiple_of(PAGE)
}

/// The limit of locked memory (getrlimit(2), RLIMIT_MEMLOCK); `u64::MAX` where there is none.
pub fn memlock_limit() -> u64 {
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As counted: so many rings fit 8 MiB, and one more does not (Linux 6.18).
    #[test]
    fn rings_cost_what_the_kernel_charges() {
        for (entries, completions, fit) in
            [(1024, 16_384, 24), (512, 8192, 49), (256, 4096, 97), (128, 256, 512)]
        {
            assert_eq!(8 * 1024 * 1024 / ring_bytes(entries, completions), fit, "{entries}");
        }
    }
}

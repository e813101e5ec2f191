//! Random bytes from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills `bytes` with random data. It may be used to look random and to spread load, not for
/// secrets: if the kernel has none (getrandom(2), before Linux 3.17), `bytes` stay unchanged.
pub fn random_bytes(bytes: &mut [u8]) {
    // getrandom(2) returns up to 256 bytes whole.
    debug_assert!(bytes.len() <= 256);
    let _ = getrandom(bytes, GetRandomFlags::empty());
}

//! Random bytes of the kernel.

use rustix::rand::{GetRandomFlags, getrandom};

/// Fills the bytes. They are for looks and for spreading load, not for secrets: where the kernel
/// has none to give (getrandom(2), before Linux 3.17) they stay as they are.
pub fn random_bytes(bytes: &mut [u8]) {
    // Up to 256 bytes are given whole.
    debug_assert!(bytes.len() <= 256);
    let _ = getrandom(bytes, GetRandomFlags::empty());
}

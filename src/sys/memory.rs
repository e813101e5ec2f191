//! The memory that the allocator keeps.

/// Blocks of this many bytes and more have a mapping of their own, which goes back to the kernel
/// when they are freed. It is the allocator's default at the start of a process.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 * 1024;
/// Free bytes at the end of a heap beyond which they go back to the kernel.
#[cfg(target_env = "gnu")]
const MOST_AT_THE_END: libc::c_int = 2 * 1024 * 1024;

/// Keeps the allocator from raising its thresholds (mallopt(3)). It raises them when a large block
/// is freed: after a reload with a large configuration, further ones would lie among small blocks,
/// and the heap would never shrink again. Should be called before other threads exist. Does nothing
/// where the C library has no such call.
pub fn keep_thresholds() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_AT_THE_END);
    }
}

/// Returns free memory to the kernel, for example after a large configuration was freed. Does
/// nothing where the C library has no such call. Other threads that allocate at the same time may
/// wait for some milliseconds.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers and may be made at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

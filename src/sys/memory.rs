//! The memory that the allocator keeps.

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

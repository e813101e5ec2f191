//! The memory that the allocator keeps.

/// Blocks of this many bytes and more have a mapping of their own, which goes back to the kernel
/// when they are freed. It is the allocator's default at the start of a process.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 * 1024;
/// Free bytes at the end of a heap beyond which they go back to the kernel.
#[cfg(target_env = "gnu")]
const MOST_AT_THE_END: libc::c_int = 256 * 1024;
/// The most arenas: more than there are threads. An arena is address space until it is used.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 4096;

/// Sets up the allocator (mallopt(3)). It does not raise its thresholds: otherwise it does when a
/// large block is freed, and after a reload with a large configuration further blocks lie among
/// small ones, so that the heap never shrinks again. Each thread allocates in an arena of its own:
/// what reading a configuration leaves free is not held by what others allocate in between. Should
/// be called before other threads exist. Does nothing where the C library has no such call.
pub fn set_up_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MOST_AT_THE_END);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
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

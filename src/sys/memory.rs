//! The memory that the allocator keeps.

use std::hint::black_box;
use std::thread::Builder;

/// Blocks of this many bytes and more have a mapping of their own, which goes back to the kernel
/// when they are freed. It is the allocator's default at the start of a process.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 * 1024;
/// Free bytes at the end of a heap beyond which they go back to the kernel.
#[cfg(target_env = "gnu")]
const MOST_AT_THE_END: libc::c_int = 256 * 1024;
/// Bytes that stay when the end of a heap goes back. By default it is 128 KiB of each arena.
#[cfg(target_env = "gnu")]
const LEFT_AT_THE_END: libc::c_int = 0;
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
        libc::mallopt(libc::M_TOP_PAD, LEFT_AT_THE_END);
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

/// As [`release_memory`], and also what threads have left that were large and have ended. Blocks
/// until threads that it starts have ended.
pub fn release_memory_of_ended_threads() {
    release_memory();
    #[cfg(target_env = "gnu")]
    release_ends(UNUSED_ARENAS);
}

/// The most arenas of threads that have ended and were large.
#[cfg(target_env = "gnu")]
const UNUSED_ARENAS: usize = 8;
/// A block whose freeing makes the allocator look at the end of its heap: 64 KiB or more
/// (FASTBIN_CONSOLIDATION_THRESHOLD of glibc), and too small for a mapping of its own.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK: usize = 96 * 1024;

/// Returns what is free at the ends of arenas whose threads have ended, which malloc_trim(3) does
/// not. A thread takes an unused arena with its first allocation, so threads that exist at the same
/// time see different ones.
#[cfg(target_env = "gnu")]
fn release_ends(arenas: usize) {
    let next = move || {
        let block = black_box(Vec::<u8>::with_capacity(LARGE_BLOCK));
        release_ends(arenas - 1);
        drop(block);
    };
    // Without a thread the memory stays as it is.
    if arenas > 0
        && let Ok(thread) = Builder::new().name("memory".into()).stack_size(LARGE_BLOCK).spawn(next)
    {
        let _ = thread.join();
    }
}

//! Counts allocations of single threads.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, which tells the counter of the calling thread. Growing is allocating, by
/// the default of the trait.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNTER: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// Counts the calling thread's allocations from now on.
pub(crate) fn count_into(counter: &'static AtomicU64) {
    COUNTER.set(Some(counter));
}

// SAFETY: both calls go to the system's allocator as they came. The counter allocates nothing: it
// is a constant without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(counter) = COUNTER.get() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(memory, layout) }
    }
}

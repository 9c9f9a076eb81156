//! The allocator of the targets: it counts what is in use, and ends the process when that is too much.
//!
//! libFuzzer's own limits look at the process once a second, and miss memory that is asked for and never touched.

#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What one process may have in use at a time: an input is 4 KiB, and what a cluster holds is small.
const BYTES_MAX: usize = 512 << 20;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// The system's allocator, counted.
pub(crate) struct Counted;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        claim(layout.size());
        // SAFETY: the caller's promises are the system's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        claim(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while it copies.
        claim(size);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(at, layout, size) };
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        moved
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

fn claim(size: usize) {
    let in_use = IN_USE.fetch_add(size, Ordering::Relaxed).saturating_add(size);
    if in_use > BYTES_MAX && !IS_ENDING.swap(true, Ordering::Relaxed) {
        eprintln!("finding: {size} bytes more would make {in_use} in use, above {BYTES_MAX}");
        eprintln!("{}", Backtrace::force_capture());
        std::process::abort();
    }
}

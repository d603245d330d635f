//! Zeroed memory for a table, aligned to huge pages and advised to use them.
//!
//! A look-up in a table of megabytes misses the TLB with 4 KiB pages.

#![expect(unsafe_code, reason = "an allocation with an alignment of its own, and advice to the kernel")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// A type for which zeroed memory is a value.
///
/// # Safety
/// All bytes zero are a valid value of the type.
pub(super) unsafe trait Zeroable: Copy {}

/// A slice of fixed length that begins zeroed.
#[derive(Debug)]
pub(super) struct Table<T: Zeroable> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: the table owns its memory as a box does.
unsafe impl<T: Zeroable + Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroable + Sync> Sync for Table<T> {}

impl<T: Zeroable> Table<T> {
    /// A zeroed table of `length` elements, at least one.
    pub(super) fn new(length: usize) -> Self {
        let layout = Self::layout(length);
        // Not `alloc_zeroed`: with an alignment of its own it writes the zeros itself, and pages are small once written.
        // SAFETY: the layout's size is not zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.size() >= HUGE_PAGE {
            // SAFETY: the range is the allocation made above; the advice changes no content. A refusal costs speed only.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the range is the allocation made above.
        unsafe { start.as_ptr().write_bytes(0, layout.size()) };
        Self { start: start.cast(), length }
    }

    fn layout(length: usize) -> Layout {
        let layout = Layout::array::<T>(length.max(1)).expect("a table is smaller than the address space");
        let align = if layout.size() >= HUGE_PAGE { HUGE_PAGE } else { layout.align().max(64) };
        layout.align_to(align).expect("an alignment of at most 2 MiB")
    }
}

impl<T: Zeroable> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout; the elements are `Copy`, so nothing is to be dropped.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.length)) };
    }
}

impl<T: Zeroable> Deref for Table<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `length` elements were allocated and zeroed, and zero is a value of `T`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Zeroable> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; `&mut self` is the only way to the memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

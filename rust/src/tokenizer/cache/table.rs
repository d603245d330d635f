//! Zeroed memory for a table, aligned to huge pages and advised to use them.
//!
//! A look-up in a table of megabytes misses the TLB with 4 KiB pages.

#![expect(unsafe_code, reason = "an allocation with an alignment of its own, and advice to the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
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
    /// What the allocator gave, with room to align in.
    allocation: NonNull<u8>,
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
        let (layout, align) = Self::layout(length);
        // Zeroed memory of this size comes from the kernel and is not touched before it is used: so pages can still be huge.
        // SAFETY: the layout's size is not zero.
        let allocation = NonNull::new(unsafe { alloc_zeroed(layout) });
        let allocation = allocation.unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the layout has `align` bytes to spare.
        let start = unsafe { allocation.add(allocation.align_offset(align)) };
        #[cfg(target_os = "linux")]
        if align == HUGE_PAGE {
            // SAFETY: the range is inside of the allocation made above; the advice changes no content. A refusal costs speed
            // only.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size() - align, libc::MADV_HUGEPAGE) };
        }
        Self { allocation, start: start.cast(), length }
    }

    /// The layout to allocate, and the alignment that it has room for.
    fn layout(length: usize) -> (Layout, usize) {
        let elements = Layout::array::<T>(length.max(1)).expect("a table is smaller than the address space");
        let align = if elements.size() >= HUGE_PAGE { HUGE_PAGE } else { elements.align().max(64) };
        // An alignment of its own would make the allocator write the zeros itself.
        let layout = Layout::from_size_align(elements.size() + align, 8);
        (layout.expect("a table is smaller than the address space"), align)
    }
}

impl<T: Zeroable> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout; the elements are `Copy`, so nothing is to be dropped.
        unsafe { dealloc(self.allocation.as_ptr(), Self::layout(self.length).0) };
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

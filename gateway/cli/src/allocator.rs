//! The allocator of the program: mimalloc, which is asked for an alignment only where its blocks do
//! not have it anyway.
//!
//! The crate `mimalloc` names the alignment each time. For more than 1 KiB mimalloc then takes a
//! larger block to align within it, and frees all blocks of such a page on a slower path. But every
//! block of at least [`BLOCK_ALIGNMENT`] bytes begins at a multiple of that (`MI_MAX_ALIGN_SIZE`).

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// What every block of at least as many bytes is aligned to.
const BLOCK_ALIGNMENT: usize = 16;

pub struct ProgramAllocator;

/// Whether every block of this size is aligned as `layout` asks.
#[inline]
fn suits(layout: Layout, size: usize) -> bool {
    layout.align() <= BLOCK_ALIGNMENT && layout.align() <= size
}

// SAFETY: the functions of mimalloc keep the contract of `GlobalAlloc`: they return null or a block
// of at least this size, and a block of any of them may be given to any other. Its alignment is
// what was asked for, or that of every block of its size, which `suits` has compared. A block keeps
// its content when it is resized.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for ProgramAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        match suits(layout, size) {
            true => unsafe { mi_malloc(size) }.cast(),
            false => unsafe { mi_malloc_aligned(size, layout.align()) }.cast(),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        match suits(layout, size) {
            true => unsafe { mi_zalloc(size) }.cast(),
            false => unsafe { mi_zalloc_aligned(size, layout.align()) }.cast(),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match suits(layout, size) {
            true => unsafe { mi_realloc(block.cast(), size) }.cast(),
            false => unsafe { mi_realloc_aligned(block.cast(), size, layout.align()) }.cast(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against a mimalloc that aligns its blocks to less.
    #[test]
    #[allow(unsafe_code)]
    fn every_block_is_aligned_as_it_was_asked_for() {
        let sizes = (1..300).chain([511, 1000, 1024, 1025, 1249, 4095, 70_000, 3 << 20]);
        let mut held = Vec::new();
        for size in sizes {
            for align in [1, 2, 4, 8, 16, 32, 128, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: no size is 0, and each block is freed below with the layout that it has
                // in the end.
                let grown = unsafe {
                    let zeroed = ProgramAllocator.alloc_zeroed(layout);
                    assert!(is_aligned(zeroed, align) && *zeroed == 0, "{layout:?}");
                    held.push((zeroed, layout));
                    let block = ProgramAllocator.alloc(layout);
                    assert!(is_aligned(block, align), "{layout:?}");
                    *block = 7;
                    let grown = ProgramAllocator.realloc(block, layout, 2 * size + 1);
                    assert!(is_aligned(grown, align) && *grown == 7, "{layout:?}");
                    grown
                };
                held.push((grown, Layout::from_size_align(2 * size + 1, align).unwrap()));
            }
        }
        for (block, layout) in held {
            // SAFETY: see above.
            unsafe { ProgramAllocator.dealloc(block, layout) }
        }
    }

    fn is_aligned(block: *mut u8, align: usize) -> bool {
        !block.is_null() && block.addr().is_multiple_of(align)
    }
}

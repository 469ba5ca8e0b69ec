//! Telling the processor which lines come next.
#![expect(unsafe_code, reason = "prefetch instructions are intrinsics")]
// UNSAFETY: a prefetch faults on no address and changes nothing.

/// The line at `p` will be read.
#[inline(always)]
pub(crate) fn for_reading(p: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, valid for any address; SSE is part of x86_64.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

/// The line at `p` will be written.
#[inline(always)]
pub(crate) fn for_writing(p: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, valid for any address; processors without PREFETCHW treat it as a no-op.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

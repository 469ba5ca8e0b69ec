//! Telling the processor which lines come next.
#![expect(unsafe_code, reason = "prefetch instructions are intrinsics")]
// UNSAFETY: a prefetch faults on no address and changes nothing.

/// The line at `p` will be read. As assembly, lest the compiler unrolls what loops over few lines.
#[inline(always)]
pub fn for_reading(p: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, valid for any address.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

/// The line at `p` will be written: it is taken from the core that has it.
#[inline(always)]
pub fn for_writing(p: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, valid for any address; processors without PREFETCHW treat it as a no-op.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = p;
}

//! The one routine that moves bytes from, to and between memory that others write at the same time.
#![expect(unsafe_code, reason = "raw copies of memory that no reference may name")]
// UNSAFETY: inline assembly moves the bytes, so the compiler can neither assume that the source holds still nor read it
// a second time in place of the copy (it may do both with `ptr::copy_nonoverlapping`). Callers vouch for the bounds.

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Copies `len` bytes from `src` to `dst`. Either side may be written by others meanwhile; each byte that arrives is one
/// that stood there at some moment.
///
/// # Safety
/// `src..src+len` must be mapped for reading and `dst..dst+len` for writing (foreign memory: or be registered as a
/// [`ForeignMapping`](super::ForeignMapping), so that a vanished page is replaced). They must not overlap, and at least
/// one of them must be no object of this program that others hold a reference to.
#[inline(always)]
pub unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's contract is the one of each of these.
    unsafe {
        if len >= LONG {
            imp::long(dst, src, len);
        } else if len >= 16 {
            imp::medium(dst, src, len);
        } else {
            imp::short(dst, src, len);
        }
    }
}

/// From this many bytes on the processor's own string copy wins.
const LONG: usize = 512;

/// Loads a little-endian 16-bit word that others write: one aligned load, never torn.
///
/// # Safety
/// `p` must be aligned to 2 and readable as for [`copy`].
#[inline(always)]
#[must_use]
pub unsafe fn load_u16_acquire(p: *const u16) -> u16 {
    // SAFETY: aligned and readable by contract; atomics are made for memory that others write.
    // ORDERING: the caller names the partner; this is V1 for a vring's avail.idx.
    u16::from_le(unsafe { AtomicU16::from_ptr(p.cast_mut()) }.load(Ordering::Acquire))
}

/// Loads a little-endian 64-bit word that others write: one aligned load, never torn.
///
/// # Safety
/// `p` must be aligned to 8 and readable as for [`copy`].
#[inline(always)]
#[must_use]
pub unsafe fn load_u64(p: *const u64) -> u64 {
    // SAFETY: as for `load_u16_acquire`.
    u64::from_le(unsafe { AtomicU64::from_ptr(p.cast_mut()) }.load(Ordering::Relaxed))
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    use core::arch::asm;
    use core::arch::x86_64::__m128i;

    macro_rules! step {
        ($name:ident, $class:ident, $ty:ty, $load:literal, $store:literal) => {
            #[inline(always)]
            unsafe fn $name(dst: *mut u8, src: *const u8) {
                // SAFETY: one load from `src`, one store to `dst`, of the width that the caller vouches for.
                unsafe {
                    let v: $ty;
                    asm!($load, out($class) v, s = in(reg) src, options(nostack, preserves_flags, readonly));
                    asm!($store, v = in($class) v, d = in(reg) dst, options(nostack, preserves_flags));
                }
            }
        };
    }
    step!(move16, xmm_reg, __m128i, "movdqu {}, [{s}]", "movdqu [{d}], {v}");
    step!(move8, reg, u64, "mov {}, [{s}]", "mov [{d}], {v}");
    step!(move4, reg, u32, "mov {:e}, [{s}]", "mov [{d}], {v:e}");
    step!(move2, reg, u16, "mov {:x}, [{s}]", "mov [{d}], {v:x}");

    #[inline(always)]
    unsafe fn move1(dst: *mut u8, src: *const u8) {
        // SAFETY: one byte each way, by the caller's contract.
        unsafe { dst.write_volatile(src.read_volatile()) }
    }

    /// 0 to 15 bytes: two steps that may overlap.
    #[inline(always)]
    pub(super) unsafe fn short(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: each step ends at or before `len`.
        unsafe {
            if len >= 8 {
                move8(dst, src);
                move8(dst.add(len - 8), src.add(len - 8));
            } else if len >= 4 {
                move4(dst, src);
                move4(dst.add(len - 4), src.add(len - 4));
            } else if len >= 2 {
                move2(dst, src);
                move2(dst.add(len - 2), src.add(len - 2));
            } else if len == 1 {
                move1(dst, src);
            }
        }
    }

    /// 16 bytes and more: whole steps of 16, and a last one that may overlap.
    #[inline(always)]
    pub(super) unsafe fn medium(dst: *mut u8, src: *const u8, len: usize) {
        let mut at = 0;
        // SAFETY: at + 16 <= len in the loop; the last step covers len - 16 .. len.
        unsafe {
            while at + 16 < len {
                move16(dst.add(at), src.add(at));
                at += 16;
            }
            move16(dst.add(len - 16), src.add(len - 16));
        }
    }

    /// Many bytes: the processor's string copy.
    #[inline(always)]
    pub(super) unsafe fn long(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: copies exactly `len` bytes upwards; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") dst => _, inout("rsi") src => _,
                options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod imp {
    /// Any length, a byte at a time: right everywhere, fast nowhere.
    pub(super) unsafe fn short(dst: *mut u8, src: *const u8, len: usize) {
        for i in 0..len {
            // SAFETY: i < len.
            unsafe { dst.add(i).write_volatile(src.add(i).read_volatile()) };
        }
    }
    pub(super) use short as medium;
    pub(super) use short as long;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length_and_nothing_beyond() {
        let src: Vec<u8> = (0..1200u32).map(|i| (i * 7 + 1) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1000, 1199]) {
            for shift in [0, 1, 3] {
                if len + shift > src.len() {
                    continue;
                }
                let mut dst = vec![0u8; 1300];
                // SAFETY: both buffers are longer than shift + len.
                unsafe { copy(dst.as_mut_ptr().add(shift), src.as_ptr().add(shift), len) };
                assert_eq!(dst[shift..shift + len], src[shift..shift + len]);
                assert!(dst[..shift].iter().chain(&dst[shift + len..]).all(|&b| b == 0), "len {len}");
            }
        }
    }
}

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

/// Makes a little-endian 64-bit word that others read and write this one. A word that is it already is left alone: its cache
/// line then stays with all who have it.
///
/// # Safety
/// `p..p+8` must be readable and writable as for [`copy`].
#[inline(always)]
pub unsafe fn update_u64(p: *mut u8, value: u64) {
    // SAFETY: by contract; the value is ours.
    unsafe { imp::update8(p, value.to_le()) };
}

/// The same for 32 bits.
///
/// # Safety
/// `p..p+4` must be readable and writable as for [`copy`].
#[inline(always)]
pub unsafe fn update_u32(p: *mut u8, value: u32) {
    // SAFETY: by contract; the value is ours.
    unsafe { imp::update4(p, value.to_le()) };
}

/// The same for 16 bits.
///
/// # Safety
/// `p..p+2` must be readable and writable as for [`copy`].
#[inline(always)]
pub unsafe fn update_u16(p: *mut u8, value: u16) {
    // SAFETY: by contract; the value is ours.
    unsafe { imp::update2(p, value.to_le()) };
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

    macro_rules! update {
        ($name:ident, $ty:ty, $compare:literal, $store:literal) => {
            #[inline(always)]
            pub(super) unsafe fn $name(p: *mut u8, value: $ty) {
                // SAFETY: one load, and a store if that is not it, of the width that the caller vouches for.
                unsafe { asm!($compare, "je 2f", $store, "2:", p = in(reg) p, v = in(reg) value, options(nostack)) };
            }
        };
    }
    update!(update8, u64, "cmp [{p}], {v}", "mov [{p}], {v}");
    update!(update4, u32, "cmp [{p}], {v:e}", "mov [{p}], {v:e}");
    update!(update2, u16, "cmp [{p}], {v:x}", "mov [{p}], {v:x}");

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

    /// 16 bytes and more: steps of 64, then of 32 and 16 from both ends of the rest, which may overlap.
    #[inline(always)]
    pub(super) unsafe fn medium(mut dst: *mut u8, mut src: *const u8, mut len: usize) {
        // SAFETY: no step goes beyond what is left, which is 16 bytes at least at first and from the loop on 1 to 64; those
        // that reach back reach into what was copied or is to be.
        unsafe {
            while len > 64 {
                move64(dst, src);
                (dst, src, len) = (dst.add(64), src.add(64), len - 64);
            }
            if len > 32 {
                move32(dst, src);
                move32(dst.add(len).sub(32), src.add(len).sub(32));
            } else if len >= 16 {
                move16(dst, src);
                move16(dst.add(len).sub(16), src.add(len).sub(16));
            } else {
                // Fewer than 16 are left only behind a step of 64.
                move16(dst.add(len).sub(16), src.add(len).sub(16));
            }
        }
    }

    #[inline(always)]
    unsafe fn move32(dst: *mut u8, src: *const u8) {
        // SAFETY: 32 bytes each way, by the caller's contract.
        unsafe {
            let (a, b): (__m128i, __m128i);
            asm!("movdqu {a}, [{s}]", "movdqu {b}, [{s} + 16]", a = out(xmm_reg) a, b = out(xmm_reg) b, s = in(reg) src,
                options(nostack, preserves_flags, readonly));
            asm!("movdqu [{d}], {a}", "movdqu [{d} + 16], {b}", a = in(xmm_reg) a, b = in(xmm_reg) b, d = in(reg) dst,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn move64(dst: *mut u8, src: *const u8) {
        // SAFETY: 64 bytes each way, by the caller's contract.
        unsafe {
            move32(dst, src);
            move32(dst.add(32), src.add(32));
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

    macro_rules! update {
        ($name:ident, $ty:ty) => {
            pub(super) unsafe fn $name(p: *mut u8, value: $ty) {
                let (bytes, mut there) = (value.to_ne_bytes(), [0; size_of::<$ty>()]);
                // SAFETY: as many bytes as the caller vouches for.
                unsafe {
                    short(there.as_mut_ptr(), p, bytes.len());
                    if there != bytes {
                        short(p, bytes.as_ptr(), bytes.len());
                    }
                }
            }
        };
    }
    update!(update8, u64);
    update!(update4, u32);
    update!(update2, u16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_change_wherever_they_stand() {
        let mut bytes = [0u8; 16];
        // Twice: what is there already stays.
        for _ in 0..2 {
            // SAFETY: all inside the array.
            unsafe {
                update_u64(bytes.as_mut_ptr().add(1), 0x0807_0605_0403_0201);
                update_u32(bytes.as_mut_ptr().add(9), 0x0c0b_0a09);
                update_u16(bytes.as_mut_ptr().add(13), 0x0e0d);
            }
        }
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0]);
    }

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

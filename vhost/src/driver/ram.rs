//! Shared memory that plays the guest's RAM.
#![expect(unsafe_code, reason = "maps memory that the device reads and writes at the same time")]
// UNSAFETY: no reference to a plain byte of the mapping ever exists: words move through atomics, bytes by
// `mbuf::foreign::copy`. A `Span` is cut only from what is mapped, keeps the mapping alive, and checks each access.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mbuf::foreign;
use ring::prefetch;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::wire::message::MemoryRegion;

/// Which pages back a [`GuestRam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RamPages {
    /// 4 KiB.
    #[default]
    Small,
    /// 2 MiB hugepages, or an error.
    Huge,
    /// 2 MiB hugepages if enough are free, else 4 KiB.
    HugeIfAvailable,
}

/// What a [`GuestRam`] is to be.
#[derive(Clone, Copy, Debug)]
pub struct RamConfig {
    /// Bytes; rounded up to whole pages.
    pub bytes: usize,
    /// Its pages.
    pub pages: RamPages,
    /// Guest-physical address of its first byte.
    pub gpa_base: u64,
    /// Whether its size is sealed, as QEMU's memfd back end does by default. Off for tests that take memory away.
    pub sealed: bool,
}

impl Default for RamConfig {
    fn default() -> Self {
        Self { bytes: 16 << 20, pages: RamPages::Small, gpa_base: 0, sealed: true }
    }
}

/// Why there is no such RAM.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The memory could not be made.
    #[error(
        "cannot make {bytes} bytes of guest RAM ({pages:?} pages): {source}; for hugepages, write a larger number to /proc/sys/vm/nr_hugepages"
    )]
    Make {
        /// Bytes asked for.
        bytes: usize,
        /// Pages asked for.
        pages: RamPages,
        /// What the system said.
        source: io::Error,
    },
    /// All of it is given away.
    #[error("guest RAM is full: {asked} more bytes asked for, {free} of {total} left; make it larger")]
    Full {
        /// Bytes asked for.
        asked: usize,
        /// Bytes left.
        free: usize,
        /// Bytes of it all.
        total: usize,
    },
}

const SMALL_PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
    gpa_base: u64,
    fd: OwnedFd,
    taken: AtomicUsize,
    pages: RamPages,
}

// SAFETY: the mapping belongs to nobody's thread; its bytes are reached only as the head note says.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the very mapping that `map` made; every `Span` into it holds this `Mapping`, so none is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// Memory that plays a guest's RAM: one memfd, mapped once, handed out from the front to the back and never taken back.
/// Clones name the same memory.
#[derive(Clone, Debug)]
pub struct GuestRam {
    map: Arc<Mapping>,
}

impl GuestRam {
    /// Makes zeroed memory and maps it, each page touched.
    ///
    /// # Errors
    /// [`RamError::Make`].
    pub fn new(config: RamConfig) -> Result<Self, RamError> {
        let wrap = |source| RamError::Make { bytes: config.bytes, pages: config.pages, source };
        let map = match config.pages {
            RamPages::HugeIfAvailable => {
                map(config, RamPages::Huge).or_else(|_| map(config, RamPages::Small))
            }
            pages => map(config, pages),
        };
        Ok(Self { map: Arc::new(map.map_err(wrap)?) })
    }

    /// Hands out the next `bytes` (more than 0) at an address that is a multiple of `align` (a power of two).
    ///
    /// # Errors
    /// [`RamError::Full`].
    pub fn alloc(&self, bytes: usize, align: usize) -> Result<Span, RamError> {
        assert!(bytes > 0 && align.is_power_of_two(), "alloc({bytes}, {align})");
        let map = &self.map;
        let start_after = |taken: usize| taken.next_multiple_of(align);
        let fit = |taken| start_after(taken).checked_add(bytes).filter(|&end| end <= map.len);
        let taken = map.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fit).map_err(|taken| {
            RamError::Full { asked: bytes, free: map.len - taken.min(map.len), total: map.len }
        })?;
        Ok(self.span(start_after(taken), bytes))
    }

    /// The `len` bytes at `offset`, whoever they were handed out to.
    ///
    /// # Panics
    /// When they are not all inside.
    #[must_use]
    pub fn span(&self, offset: usize, len: usize) -> Span {
        assert!(
            offset <= self.map.len && len <= self.map.len - offset,
            "span {offset}+{len} outside of the RAM"
        );
        // SAFETY: offset <= len of the mapping, so the result points into it or just behind it.
        let start = unsafe { self.map.start.add(offset) };
        Span { start, len, map: Arc::clone(&self.map) }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.map.len
    }

    /// Which pages it got: `Small` or `Huge`.
    #[must_use]
    pub fn pages(&self) -> RamPages {
        self.map.pages
    }

    /// Its row in a memory table.
    #[must_use]
    pub fn region(&self) -> MemoryRegion {
        let map = &self.map;
        let va = map.start.as_ptr().addr() as u64;
        MemoryRegion { gpa: map.gpa_base, size: map.len as u64, va, mmap_offset: 0 }
    }
}

impl AsFd for GuestRam {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd.as_fd()
    }
}

fn map(config: RamConfig, pages: RamPages) -> io::Result<Mapping> {
    let (page, huge) = match pages {
        RamPages::Small => (SMALL_PAGE, MemfdFlags::empty()),
        _ => (HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB),
    };
    let len = config.bytes.max(1).checked_next_multiple_of(page).ok_or(io::ErrorKind::InvalidInput)?;
    let fd = memfd_create("polder-driver-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | huge)?;
    ftruncate(&fd, len as u64)?;
    if config.sealed {
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    }
    // SAFETY: a new shared mapping of `len` bytes of a file of `len` bytes, where the kernel finds room.
    let start = unsafe {
        mmap(
            ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::POPULATE,
            &fd,
            0,
        )
    }?;
    let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Mapping { start, len, gpa_base: config.gpa_base, fd, taken: AtomicUsize::new(0), pages })
}

/// The atomics that stand in guest RAM.
trait Word {}
impl Word for AtomicU16 {}
impl Word for AtomicU32 {}
impl Word for AtomicU64 {}

/// A range of guest RAM. Others may write it at any time; every access is checked against the range.
#[derive(Clone, Debug)]
pub struct Span {
    start: NonNull<u8>,
    len: usize,
    map: Arc<Mapping>,
}

// SAFETY: as `Mapping`, which it keeps alive and into which `start` points.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Its bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Guest-physical address of its first byte.
    #[must_use]
    pub fn gpa(&self) -> u64 {
        self.map.gpa_base + (self.start.as_ptr().addr() - self.map.start.as_ptr().addr()) as u64
    }

    /// Front-end address of its first byte.
    #[must_use]
    pub fn va(&self) -> u64 {
        self.start.as_ptr().addr() as u64
    }

    /// The address of `size` bytes at `offset`.
    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset <= self.len && size <= self.len - offset, "outside of the span");
        // SAFETY: offset <= len, and the whole span is mapped.
        unsafe { self.start.as_ptr().add(offset) }
    }

    #[inline(always)]
    fn word<W: Word>(&self, offset: usize) -> &W {
        let p = self.at(offset, size_of::<W>()).cast::<W>();
        assert!(p.is_aligned(), "a misaligned word");
        // SAFETY: mapped for as long as `self` (`at`), aligned, and a `Word` is an atomic: made for memory that others
        // write, with no value that it could not hold.
        unsafe { &*p }
    }

    /// Loads the little-endian u16 at `offset`, which must be aligned.
    ///
    /// # Panics
    /// Outside of the span or misaligned; so do the others.
    #[inline(always)]
    #[must_use]
    pub fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        u16::from_le(self.word::<AtomicU16>(offset).load(order))
    }

    /// Stores a little-endian u16.
    #[inline(always)]
    pub fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        self.word::<AtomicU16>(offset).store(value.to_le(), order);
    }

    /// Loads a little-endian u32.
    #[inline(always)]
    #[must_use]
    pub fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.word::<AtomicU32>(offset).load(Ordering::Relaxed))
    }

    /// Stores a little-endian u32.
    #[inline(always)]
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.word::<AtomicU32>(offset).store(value.to_le(), Ordering::Relaxed);
    }

    /// Loads a little-endian u64.
    #[inline(always)]
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.word::<AtomicU64>(offset).load(Ordering::Relaxed))
    }

    /// Stores a little-endian u64.
    #[inline(always)]
    pub fn store_u64(&self, offset: usize, value: u64) {
        self.word::<AtomicU64>(offset).store(value.to_le(), Ordering::Relaxed);
    }

    /// Copies `bytes` to `offset`.
    #[inline(always)]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let dst = self.at(offset, bytes.len());
        // SAFETY: `dst` has bytes.len() mapped bytes, which no reference of this program names; `bytes` is private.
        unsafe { foreign::copy(dst, bytes.as_ptr(), bytes.len()) };
    }

    /// Copies what stands at `offset` to `bytes`.
    #[inline(always)]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let src = self.at(offset, bytes.len());
        // SAFETY: as for `write`, the other way.
        unsafe { foreign::copy(bytes.as_mut_ptr(), src, bytes.len()) };
    }

    /// Says that the line at `offset` will be read.
    #[inline(always)]
    pub(super) fn will_read(&self, offset: usize) {
        prefetch::for_reading(self.start.as_ptr().wrapping_add(offset));
    }

    /// Says that the line at `offset` will be written.
    #[inline(always)]
    pub(super) fn will_write(&self, offset: usize) {
        prefetch::for_writing(self.start.as_ptr().wrapping_add(offset));
    }

    /// Sets `len` bytes at `offset` to `value`.
    pub fn fill(&self, offset: usize, len: usize, value: u8) {
        let chunk = [value; 64];
        for at in (0..len).step_by(chunk.len()) {
            self.write(offset + at, &chunk[..chunk.len().min(len - at)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(bytes: usize) -> GuestRam {
        GuestRam::new(RamConfig { bytes, gpa_base: 0x10_0000, ..RamConfig::default() }).unwrap()
    }

    #[test]
    fn spans_are_apart_aligned_and_end() {
        let ram = small(8192);
        let a = ram.alloc(10, 1).unwrap();
        let b = ram.alloc(100, 4096).unwrap();
        assert_eq!((a.gpa(), b.gpa()), (0x10_0000, 0x10_1000));
        assert_eq!(b.va() - ram.region().va, 4096);
        assert!(matches!(ram.alloc(4096, 1), Err(RamError::Full { free: 3996, .. })));
        assert!(ram.alloc(3996, 1).is_ok());
        assert!(matches!(ram.alloc(1, 1), Err(RamError::Full { free: 0, .. })));
        assert!(ram.alloc(usize::MAX - 8200, 4096).is_err());
    }

    #[test]
    fn words_are_little_endian_and_bytes_come_back() {
        let span = small(4096).alloc(64, 64).unwrap();
        span.store_u16(2, 0x1234, Ordering::Relaxed);
        span.store_u32(4, 0x5678_9abc);
        span.store_u64(8, 0x0102_0304_0506_0708);
        let mut bytes = [0; 16];
        span.read(0, &mut bytes);
        assert_eq!(bytes, [0, 0, 0x34, 0x12, 0xbc, 0x9a, 0x78, 0x56, 8, 7, 6, 5, 4, 3, 2, 1]);
        span.fill(1, 63, 0xee);
        span.read(0, &mut bytes[..2]);
        assert_eq!(bytes[..2], [0, 0xee]);
        assert_eq!(span.load_u16(62, Ordering::Relaxed), 0xeeee);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn a_span_ends_where_it_ends() {
        let ram = small(4096);
        let span = ram.alloc(64, 64).unwrap();
        span.write(60, &[0; 5]);
    }

    #[test]
    fn its_size_is_sealed_unless_told() {
        let sealed = small(4096);
        assert!(ftruncate(sealed.as_fd(), 0).is_err());
        let open = GuestRam::new(RamConfig { bytes: 4096, sealed: false, ..RamConfig::default() }).unwrap();
        ftruncate(open.as_fd(), 8192).unwrap();
    }
}

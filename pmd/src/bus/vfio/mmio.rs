//! A BAR's registers, mapped.
#![expect(unsafe_code, reason = "loads and stores of device registers")]
// UNSAFETY: every access lies, aligned, in a mapping that lives as long as the `Mmio`; the bytes are never named by a
// reference, and any value of them is valid. Registers that vanish are replaced by `ForeignMapping`.

use core::ptr::NonNull;
use std::os::fd::AsFd;
use std::sync::Arc;

use mbuf::foreign::{ForeignMapping, Watch};

use super::answer::Region;
use crate::bus::Registers;

/// The registers behind one BAR. What of it can be mapped is mapped, and reached by plain loads and stores; the rest, by
/// system calls (where the kernel keeps a page to itself: the MSI-X table's, which drivers have no business in).
///
/// A BAR whose pages vanish while it is in use (the device is unplugged, or its memory decoding switched off) reads as all
/// ones from then on, and [`is_gone`](Registers::is_gone) tells (N3).
pub struct Mmio {
    /// The first area: as a rule the only one.
    base: NonNull<u8>,
    start: usize,
    len: usize,
    areas: Vec<Area>,
    size: usize,
    watch: Watch,
    /// The device, for what is not mapped.
    device: Arc<dyn AsFd + Send + Sync>,
    offset: u64,
}

/// A part of the BAR that is mapped.
struct Area {
    start: usize,
    mapping: ForeignMapping,
}

// SAFETY: `base` points into the first area's mapping, which may be used from any thread.
unsafe impl Send for Mmio {}
// SAFETY: as above.
unsafe impl Sync for Mmio {}

impl core::fmt::Debug for Mmio {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mmio")
            .field("size", &self.size)
            .field("gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

/// `N` bytes as from a device that is not there.
const fn ones<const N: usize>() -> [u8; N] {
    [0xff; N]
}

impl Mmio {
    /// Maps a region of the device. An area that cannot be mapped is reached by system calls instead, and that is said.
    pub(super) fn new(device: Arc<dyn AsFd + Send + Sync>, region: &Region) -> Self {
        let watch = Watch::new();
        let mut areas: Vec<Area> = Vec::new();
        // A store to what is mapped for reading only would be the end of us.
        let mappable = region.mappable.iter().filter(|_| region.writable);
        for range in mappable {
            let (start, len) = (range.start as usize, (range.end - range.start) as usize);
            let at = region.offset + range.start;
            match ForeignMapping::map_device(device.as_fd().as_fd(), at, len, true, &watch) {
                Ok(mapping) => areas.push(Area { start, mapping }),
                Err(error) => {
                    tracing::warn!(%error, start, len, "registers cannot be mapped: each access is a call");
                }
            }
        }
        let (base, start, len) = areas
            .first()
            .map_or((NonNull::dangling(), 0, 0), |a| (a.mapping.base(), a.start, a.mapping.len()));
        Self { base, start, len, areas, size: region.size as usize, watch, device, offset: region.offset }
    }

    /// Where a register of this type is mapped, in the first area.
    #[inline(always)]
    fn place<T>(&self, offset: usize) -> Option<NonNull<T>> {
        place(self.base, self.start, self.len, offset)
    }

    /// The same, in the others.
    fn other_place<T>(&self, offset: usize) -> Option<NonNull<T>> {
        self.areas.iter().find_map(|a| place(a.mapping.base(), a.start, a.mapping.len(), offset))
    }

    fn is_inside(&self, offset: usize, bytes: usize) -> bool {
        offset.checked_add(bytes).is_some_and(|end| end <= self.size)
    }

    #[cold]
    fn read_elsewhere<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = ones();
        if !self.is_inside(offset, N) {
            return bytes;
        }
        let at = self.offset + offset as u64;
        match rustix::io::pread(self.device.as_fd(), &mut bytes, at) {
            Ok(n) if n == N => bytes,
            _ => ones(),
        }
    }

    #[cold]
    fn write_elsewhere(&self, offset: usize, bytes: &[u8]) {
        if self.is_inside(offset, bytes.len()) {
            // As to a device that is gone: there is nobody to tell.
            let _ = rustix::io::pwrite(self.device.as_fd(), bytes, self.offset + offset as u64);
        }
    }
}

/// Where the register of this type at `offset` is, if it lies, aligned and whole, in `start .. start + len`.
#[inline(always)]
fn place<T>(base: NonNull<u8>, start: usize, len: usize, offset: usize) -> Option<NonNull<T>> {
    let at = offset.wrapping_sub(start);
    let whole = at < len && len - at >= size_of::<T>();
    // SAFETY: at < len: inside the mapping.
    let place = whole.then(|| unsafe { base.add(at) })?.cast::<T>();
    place.is_aligned().then_some(place)
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        #[inline]
        fn $read(&self, offset: usize) -> $type {
            match self.place::<$type>(offset).or_else(|| self.other_place(offset)) {
                // SAFETY: mapped and aligned, by `place`.
                Some(at) => <$type>::from_le(unsafe { at.read_volatile() }),
                None => <$type>::from_le_bytes(self.read_elsewhere(offset)),
            }
        }

        #[inline]
        fn $write(&self, offset: usize, value: $type) {
            match self.place::<$type>(offset).or_else(|| self.other_place(offset)) {
                // SAFETY: mapped for writing and aligned, by `place`.
                Some(at) => unsafe { at.write_volatile(value.to_le()) },
                None => self.write_elsewhere(offset, &value.to_le_bytes()),
            }
        }
    };
}

impl Registers for Mmio {
    fn size(&self) -> usize {
        self.size
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);

    fn is_gone(&self) -> bool {
        self.watch.is_gone()
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    const PAGE: u64 = 4096;

    /// A BAR of four pages, one page into a file of five, with these parts of it mapped.
    fn bar(mappable: &[core::ops::Range<u64>]) -> (Arc<std::os::fd::OwnedFd>, Mmio) {
        let file = Arc::new(memfd_create("bar", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, 5 * PAGE).unwrap();
        let region = Region { size: 4 * PAGE, offset: PAGE, writable: true, mappable: mappable.to_vec() };
        (Arc::clone(&file), Mmio::new(file, &region))
    }

    #[test]
    fn registers_are_where_they_are_mapped_or_not() {
        for mappable in [&[0..4 * PAGE][..], &[0..PAGE, 2 * PAGE..4 * PAGE], &[2 * PAGE..3 * PAGE], &[]] {
            let (file, bar) = bar(mappable);
            assert_eq!(bar.size(), 0x4000);
            for at in [0, 0xffc, 0x1000, 0x1ffc, 0x2000, 0x3ffc] {
                bar.write32(at, 0x8765_4321 + at as u32);
                assert_eq!(bar.read32(at), 0x8765_4321 + at as u32, "{mappable:?} {at:#x}");
            }
            bar.write8(1, 0xab);
            bar.write16(2, 0xcdef);
            assert_eq!([bar.read8(1).into(), bar.read16(2), bar.read16(0)], [0xab, 0xcdef, 0xab21]);
            let mut bytes = [0; 4];
            rustix::io::pread(&*file, &mut bytes, PAGE).unwrap();
            assert_eq!(bytes, [0x21, 0xab, 0xef, 0xcd], "little-endian, in the device");
            assert!(!bar.is_gone());
        }
    }

    #[test]
    fn n02_nothing_outside_is_touched_and_it_reads_as_ones() {
        for mappable in [&[0..4 * PAGE][..], &[]] {
            let (file, bar) = bar(mappable);
            for at in [0x4000, 0x3ffe, 0x3fff, usize::MAX - 2, usize::MAX] {
                bar.write32(at, 0);
                assert_eq!(bar.read32(at), u32::MAX, "{at:#x}");
            }
            assert_eq!((bar.read8(usize::MAX), bar.read16(0x3fff)), (0xff, 0xffff));
            bar.write8(0x4000, 1);
            assert_eq!(
                rustix::fs::fstat(&*file).unwrap().st_size as u64,
                5 * PAGE,
                "nothing written behind it"
            );
        }
    }

    #[test]
    fn a_register_that_is_not_aligned_is_no_panic() {
        let (_file, bar) = bar(&[0..4 * PAGE]);
        bar.write32(0x101, 0x0403_0201);
        assert_eq!((bar.read32(0x101), bar.read8(0x102)), (0x0403_0201, 2));
    }

    #[test]
    fn n03_registers_that_vanish_read_as_ones() {
        for mappable in [&[0..4 * PAGE][..], &[0..PAGE, 2 * PAGE..4 * PAGE], &[]] {
            let (file, bar) = bar(mappable);
            bar.write32(0, 7);
            ftruncate(&*file, 0).unwrap();
            assert_eq!([bar.read32(0), bar.read32(0x1000), bar.read32(0x3000)], [u32::MAX; 3]);
            assert_eq!(
                bar.is_gone(),
                !mappable.is_empty(),
                "by what is read, where there is nothing to vanish"
            );
            if bar.is_gone() {
                bar.write32(4, 0);
                assert_eq!(bar.read32(0), u32::MAX);
            }
        }
    }
}

//! Memory that a device reads and writes by itself.
#![expect(unsafe_code, reason = "views of a zone as atomics")]
// UNSAFETY: an area's bytes are reached only as atomics, which are made for memory that somebody else (the device) reads and
// writes at any time. The zone is the area's own; the views borrow the area.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
use std::any::Any;

use mbuf::{Iova, Zone, ZoneConfig};

use super::{BusError, PciDevice};

/// A zone that a device may reach, until this is dropped. Keep it as long as the device can master the bus.
pub struct DmaMapping {
    /// What its drop undoes.
    _mapped: Box<dyn Any + Send + Sync>,
    offset: u64,
}

impl core::fmt::Debug for DmaMapping {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DmaMapping").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl DmaMapping {
    /// One that `mapped` undoes when it is dropped. `offset` is what is added (wrapping) to a virtual address to make it the
    /// device's: 0 behind an IOMMU.
    #[must_use]
    pub fn new(mapped: impl Any + Send + Sync, offset: u64) -> Self {
        Self { _mapped: Box::new(mapped), offset }
    }

    /// What is added (wrapping) to a virtual address in the zone to make it the device's.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The device's address of a byte in the zone.
    #[inline(always)]
    #[must_use]
    pub fn iova(&self, at: NonNull<u8>) -> Iova {
        Iova((at.addr().get() as u64).wrapping_add(self.offset))
    }
}

/// A stretch of zeroed memory shared with a device: descriptor rings and the like. Starts at a page, and is reached as
/// atomics only: a relaxed load or store costs what an ordinary one does, and the device may be at it at any time.
#[derive(Debug)]
pub struct DmaArea {
    // Dropped before the memory.
    mapping: DmaMapping,
    zone: Zone,
}

impl DmaArea {
    /// Gets `bytes` of memory, rounded up to whole pages (small ones, as a rule), on the device's node if that has any, and maps them for it.
    ///
    /// # Errors
    /// [`BusError`] if it cannot be had or mapped.
    pub fn new<D: PciDevice>(device: &D, bytes: usize) -> Result<Self, BusError> {
        let name = format!("polder-{}", device.name());
        let at = |numa_node| {
            Zone::new(&ZoneConfig { name: name.clone(), bytes, pages: device.area_pages(), numa_node })
        };
        let zone = match device.numa_node() {
            Some(node) => at(Some(node)).or_else(|_| at(None)),
            None => at(None),
        };
        let zone = zone.map_err(|e| BusError::Missing(e.to_string()))?;
        let mapping = device.map(&zone)?;
        Ok(Self { mapping, zone })
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty area")]
    pub fn len(&self) -> usize {
        self.zone.len()
    }

    /// The device's address of the byte at `offset`.
    ///
    /// # Panics
    /// If `offset` is beyond the end.
    #[must_use]
    pub fn iova(&self, offset: usize) -> Iova {
        self.mapping.iova(self.view(offset, 1, 1))
    }

    /// `count` words of 64 bits from `offset` (a multiple of 8) on.
    ///
    /// # Panics
    /// If they do not lie in the area, or not at such an offset: a bug of the driver.
    #[inline]
    #[must_use]
    pub fn words64(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let start = self.view(offset, count * 8, 8);
        // SAFETY: inside our zone and aligned, by `view`; all bytes are initialised (zeroed); atomics may be shared.
        unsafe { core::slice::from_raw_parts(start.cast().as_ptr(), count) }
    }

    /// `count` words of 32 bits from `offset` (a multiple of 4) on.
    ///
    /// # Panics
    /// As [`words64`](Self::words64).
    #[inline]
    #[must_use]
    pub fn words32(&self, offset: usize, count: usize) -> &[AtomicU32] {
        let start = self.view(offset, count * 4, 4);
        // SAFETY: as in `words64`.
        unsafe { core::slice::from_raw_parts(start.cast().as_ptr(), count) }
    }

    /// `count` words of 16 bits from `offset` (a multiple of 2) on.
    ///
    /// # Panics
    /// As [`words64`](Self::words64).
    #[inline]
    #[must_use]
    pub fn words16(&self, offset: usize, count: usize) -> &[AtomicU16] {
        let start = self.view(offset, count * 2, 2);
        // SAFETY: as in `words64`.
        unsafe { core::slice::from_raw_parts(start.cast().as_ptr(), count) }
    }

    /// Where `bytes` from `offset` on start, after a look at their place.
    #[inline]
    fn view(&self, offset: usize, bytes: usize, align: usize) -> NonNull<u8> {
        let fits = offset <= self.zone.len() && bytes <= self.zone.len() - offset;
        assert!(fits && offset.is_multiple_of(align), "{bytes} bytes at {offset} of {}", self.zone.len());
        // SAFETY: offset <= the zone's length.
        unsafe { self.zone.base().add(offset) }
    }
}

//! The guest's memory as the data plane sees it: addresses turned into pointers, one region at hand.
#![expect(unsafe_code, reason = "turns checked guest addresses into raw pointers")]
// UNSAFETY: a pointer is made only within a region's mapping, which the snapshot beside it keeps.

use core::ptr::NonNull;
use std::sync::Arc;

use crate::memory::{Gpa, GuestMemory, RegionView};

/// A ring's way into guest memory.
#[derive(Debug)]
pub(super) struct View {
    /// The region that was hit last.
    region: RegionView,
    memory: Arc<GuestMemory>,
}

impl View {
    pub(super) fn new(memory: Arc<GuestMemory>) -> Self {
        Self { region: RegionView { gpa: 0, len: 0, host: NonNull::dangling() }, memory }
    }

    /// Whether guest memory was taken away under us.
    #[inline(always)]
    pub(super) fn is_gone(&self) -> bool {
        self.memory.is_gone()
    }

    /// Where `len` bytes from `addr` on lie, if they lie in one region.
    #[inline(always)]
    pub(super) fn translate(&mut self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let off = addr.wrapping_sub(self.region.gpa);
        if off < self.region.len && u64::from(len) <= self.region.len - off {
            // SAFETY: off + len is within the region's mapping.
            return Some(unsafe { self.region.host.add(off as usize) });
        }
        self.translate_elsewhere(addr, len)
    }

    #[cold]
    fn translate_elsewhere(&mut self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let region = self.memory.region_at(Gpa(addr))?;
        self.region = region;
        let off = addr - region.gpa;
        // SAFETY: as above.
        (u64::from(len) <= region.len - off).then(|| unsafe { region.host.add(off as usize) })
    }

    /// The first bytes of the `len` ones at `addr` that lie in one region, and how many they are (at least one).
    pub(super) fn translate_part(&mut self, addr: u64, len: u64) -> Option<(NonNull<u8>, u64)> {
        let off = addr.wrapping_sub(self.region.gpa);
        if off >= self.region.len {
            self.region = self.memory.region_at(Gpa(addr))?;
        }
        let off = addr - self.region.gpa;
        // SAFETY: off < the region's length.
        Some((unsafe { self.region.host.add(off as usize) }, len.min(self.region.len - off)))
    }
}

//! The model's way to memory.
#![expect(unsafe_code, reason = "reads and writes memory as a device does: by its address")]
// UNSAFETY: only addresses inside a mapping are touched. A mapping is entered while its zone lives and taken out by the
// `DmaMapping`'s drop, which comes before the zone's; both under the card's lock, which is held here. Zones are read and written by
// others at the same time, as with any device: descriptors here and there as atomics, buffers by whoever owns them by DD and
// tail.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;

/// A zone that is mapped.
#[derive(Debug)]
struct Mapped {
    len: u64,
    page: u64,
    /// How often.
    times: usize,
}

/// What a VF may reach.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What is mapped, by address.
    mapped: BTreeMap<u64, Mapped>,
    /// Tries to reach something else.
    pub(super) faults: Vec<(u64, usize)>,
}

impl Memory {
    pub(super) fn map(&mut self, start: u64, len: u64, page: u64) {
        self.mapped.entry(start).or_insert(Mapped { len, page, times: 0 }).times += 1;
    }

    /// Whether bytes lie in more than one page.
    pub(super) fn crosses_pages(&self, address: u64, len: usize) -> bool {
        let page = self.mapped.range(..=address).next_back().map_or(1, |(_, mapped)| mapped.page);
        address / page != (address + len as u64 - 1) / page
    }

    pub(super) fn unmap(&mut self, start: u64) {
        if let Some(mapped) = self.mapped.get_mut(&start) {
            mapped.times -= 1;
            if mapped.times == 0 {
                self.mapped.remove(&start);
            }
        }
    }

    /// Whether anything is mapped.
    pub(super) fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    /// Takes a mapping away behind the driver's back (N9).
    pub(super) fn forget(&mut self, address: u64) {
        if let Some((&start, _)) = self.mapped.range(..=address).next_back() {
            self.mapped.remove(&start);
        }
    }

    fn reach(&mut self, address: u64, len: usize) -> Option<*mut u8> {
        let inside = self.mapped.range(..=address).next_back().is_some_and(|(start, mapped)| {
            address.checked_add(len as u64).is_some_and(|end| end <= start + mapped.len)
        });
        if !inside {
            self.faults.push((address, len));
            return None;
        }
        Some(core::ptr::with_exposed_provenance_mut(address as usize))
    }

    fn word(&mut self, address: u64) -> Option<&AtomicU64> {
        let at = self.reach(address, 8)?;
        // SAFETY: eight mapped bytes, aligned as descriptors are; the lock keeps them mapped as long as `self` is borrowed.
        address.is_multiple_of(8).then(|| unsafe { AtomicU64::from_ptr(at.cast()) })
    }

    /// Reads a word of a descriptor.
    pub(super) fn load(&mut self, address: u64) -> Option<u64> {
        // ORDERING: Acquire, pairs with N2: the descriptors in front of a tail are written.
        Some(self.word(address)?.load(Ordering::Acquire))
    }

    /// Writes one.
    pub(super) fn store(&mut self, address: u64, word: u64) {
        if let Some(at) = self.word(address) {
            // ORDERING: Release, pairs with N1: what was written or read before is done.
            at.store(word, Ordering::Release);
        }
    }

    /// Reads a buffer.
    pub(super) fn read(&mut self, address: u64, len: usize) -> Option<Vec<u8>> {
        let at = self.reach(address, len)?;
        let mut bytes = vec![0; len];
        // SAFETY: `len` mapped bytes.
        unsafe { core::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), len) };
        Some(bytes)
    }

    /// Writes one.
    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Some(at) = self.reach(address, bytes.len()) else { return false };
        // SAFETY: as many mapped bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        true
    }
}

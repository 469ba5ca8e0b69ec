//! Memory as a model of a device sees it: only what was mapped for it, by the device's addresses. What it does outside of
//! that is refused and noted down, as an IOMMU would.
#![expect(unsafe_code, reason = "reads and writes mapped zones as a device does")]
// UNSAFETY: an access happens under the lock of the list of mappings, and a mapping is taken off that list before its memory
// goes (`DmaMapping` is dropped first). Index words are atomics; bytes are copied raw, as by a device.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mbuf::{TailSegment, Zone};
use pmd::bus::DmaMapping;

/// An access of the device's that the IOMMU refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaFault {
    pub(crate) iova: u64,
    pub(crate) len: usize,
}

/// One zone of the device's view.
struct Mapped {
    id: u64,
    iova: u64,
    len: usize,
    start: NonNull<u8>,
}

// SAFETY: an address; what is behind it is reached under the list's lock only.
unsafe impl Send for Mapped {}

#[derive(Default)]
struct View {
    mapped: Vec<Mapped>,
    next: u64,
    /// Whether the device may master the bus.
    bus_master: bool,
    faults: Vec<DmaFault>,
}

/// The view. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct DeviceMemory {
    view: Arc<Mutex<View>>,
    /// What the device's addresses are apart from ours.
    offset: u64,
}

impl DeviceMemory {
    /// With nothing mapped, and no bus mastering.
    pub(crate) fn new(offset: u64) -> Self {
        Self { view: Arc::default(), offset }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps a zone until the mapping is dropped.
    pub(crate) fn map(&self, zone: &Zone) -> DmaMapping {
        let mut view = self.view();
        view.next += 1;
        let id = view.next;
        let iova = (zone.base().addr().get() as u64).wrapping_add(self.offset);
        view.mapped.push(Mapped { id, iova, len: zone.len(), start: zone.base() });
        DmaMapping::new(Unmap { memory: self.clone(), id }, self.offset)
    }

    /// How many zones are mapped.
    pub(crate) fn mappings(&self) -> usize {
        self.view().mapped.len()
    }

    pub(crate) fn set_bus_master(&self, on: bool) {
        self.view().bus_master = on;
    }

    /// What was refused so far.
    pub(crate) fn faults(&self) -> Vec<DmaFault> {
        self.view().faults.clone()
    }

    /// Does something with `len` bytes at `iova`, if the device may.
    fn at<A>(&self, iova: u64, len: usize, what: impl FnOnce(NonNull<u8>) -> A) -> Option<A> {
        let mut view = self.view();
        let found = view.mapped.iter().find_map(|m| {
            let offset = usize::try_from(iova.checked_sub(m.iova)?).ok()?;
            // SAFETY: offset is within the zone.
            (offset < m.len && len <= m.len - offset).then(|| unsafe { m.start.add(offset) })
        });
        match found {
            Some(start) if view.bus_master => Some(what(start)),
            _ => {
                view.faults.push(DmaFault { iova, len });
                None
            }
        }
    }

    pub(crate) fn read(&self, iova: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        let into = NonNull::from(bytes.as_mut_slice()).cast();
        // SAFETY: `at` found `len` bytes there, mapped as long as the lock is held.
        self.at(iova, len, |p| unsafe { p.copy_to_nonoverlapping(into, len) })?;
        Some(bytes)
    }

    pub(crate) fn write(&self, iova: u64, bytes: &[u8]) -> bool {
        // SAFETY: as in `read`; an mbuf's or ring's bytes belong to the device while it has them.
        self.at(iova, bytes.len(), |p| unsafe {
            p.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        })
        .is_some()
    }

    pub(crate) fn load16(&self, iova: u64) -> Option<u16> {
        self.word16(iova, |word| u16::from_le(word.load(Ordering::SeqCst)))
    }

    pub(crate) fn store16(&self, iova: u64, value: u16) {
        self.word16(iova, |word| word.store(value.to_le(), Ordering::SeqCst));
    }

    pub(crate) fn load32(&self, iova: u64) -> Option<u32> {
        self.word32(iova, |word| u32::from_le(word.load(Ordering::SeqCst)))
    }

    pub(crate) fn store32(&self, iova: u64, value: u32) {
        self.word32(iova, |word| word.store(value.to_le(), Ordering::SeqCst));
    }

    pub(crate) fn load64(&self, iova: u64) -> Option<u64> {
        self.word64(iova, |word| u64::from_le(word.load(Ordering::SeqCst)))
    }

    pub(crate) fn store64(&self, iova: u64, value: u64) {
        self.word64(iova, |word| word.store(value.to_le(), Ordering::SeqCst));
    }

    fn word16<A>(&self, iova: u64, what: impl FnOnce(&AtomicU16) -> A) -> Option<A> {
        // SAFETY: 2 bytes at an aligned place, mapped as long as the lock is held; everybody reaches them as atomics only.
        self.at(iova, 2, |p| what(unsafe { AtomicU16::from_ptr(aligned(p)) }))
    }

    fn word32<A>(&self, iova: u64, what: impl FnOnce(&AtomicU32) -> A) -> Option<A> {
        // SAFETY: as in `word16`.
        self.at(iova, 4, |p| what(unsafe { AtomicU32::from_ptr(aligned(p)) }))
    }

    fn word64<A>(&self, iova: u64, what: impl FnOnce(&AtomicU64) -> A) -> Option<A> {
        // SAFETY: as in `word16`.
        self.at(iova, 8, |p| what(unsafe { AtomicU64::from_ptr(aligned(p)) }))
    }
}

/// A pointer to a word, which must stand at a multiple of its size.
fn aligned<T>(p: NonNull<u8>) -> *mut T {
    let p = p.cast::<T>();
    assert!(p.is_aligned(), "a word of {} bytes at {p:?}", size_of::<T>());
    p.as_ptr()
}

/// Ends a mapping.
struct Unmap {
    memory: DeviceMemory,
    id: u64,
}

impl Drop for Unmap {
    fn drop(&mut self) {
        self.memory.view().mapped.retain(|m| m.id != self.id);
    }
}

/// A packet's tail in memory that is there for ever.
pub(crate) fn tailed(bytes: &'static [u8]) -> [TailSegment<'static>; 1] {
    // SAFETY: readable for ever.
    [unsafe { TailSegment::new(NonNull::from(bytes).cast(), bytes.len() as u32) }]
}

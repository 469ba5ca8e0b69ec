//! Which address ranges may lose their pages, in a form that a signal handler can read.
//!
//! Writers (control path) take a lock; the reader is the SIGBUS handler, which may have interrupted one of them, so each
//! slot is a seqlock that it reads once, without waiting: a slot that is changing just now cannot be the one that is
//! faulting, because a range is registered before anybody touches it and taken out after everybody has stopped.
//!
//! Slots come in chunks that are made when they are needed and stay for ever: the handler may be reading them at any
//! moment. There is room for as many ranges as the largest switch can have ([`MAX_RANGES`]), so that no port's ranges ever
//! keep another one's out; how many a port may have is its own limit (`vhost`'s budget), and the kernel's
//! (vm.max_map_count) for all of them.

use core::cmp::Reverse;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Slots of a chunk.
const CHUNK: usize = 512;
/// Most chunks.
const MAX_CHUNKS: usize = 2048;
/// Most ranges at a time: 1,024 ports with two full tables of 509 regions each, and the registers of as many cards.
pub(crate) const MAX_RANGES: usize = CHUNK * MAX_CHUNKS;

/// Whether memory of one owner (all mappings of one guest, say) has lost a page. Clones watch the same owner.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Nothing lost yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a page was lost. Ask after the last read of a burst and before anything made of it is published: if this
    /// says no, none of these reads met a replaced page. One load on x86.
    #[inline]
    #[must_use]
    pub fn is_gone(&self) -> bool {
        // ORDERING: G2 Acquire fence, pairs with G1: a read that met a replaced page came after the flag was set, and this
        // keeps the flag's load after the read.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed)
    }
}

/// How to replace what is lost of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Pages can be replaced in units of this (a power of two): a hugepage cannot be replaced in part.
    pub(crate) page: usize,
    pub(crate) writable: bool,
    /// What the replacement reads as.
    pub(crate) fill: Fill,
}

/// What stands in the place of a page that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Memory: what an empty page reads as.
    Zeroes,
    /// Registers: what a bus answers for a device that is not there.
    Ones,
}

struct Slot {
    /// Odd while the rest is changed.
    version: AtomicU32,
    start: AtomicUsize,
    /// Equal to `start` if the slot is free.
    end: AtomicUsize,
    page: AtomicUsize,
    writable: AtomicBool,
    ones: AtomicBool,
    gone: AtomicPtr<AtomicBool>,
}

/// Slots that were made together.
struct Chunk {
    slots: Box<[Slot]>,
    /// How many of them are taken: where none is, nothing is looked for.
    taken: AtomicUsize,
}

/// Chunks, one after the other. Reading one is a load: it is set once, and never taken away.
static CHUNKS: [OnceLock<Chunk>; MAX_CHUNKS] = [const { OnceLock::new() }; MAX_CHUNKS];
static WRITER: Mutex<Free> = Mutex::new(Free { made: 0, slots: BinaryHeap::new() });

/// What the writers know.
struct Free {
    /// Chunks that exist.
    made: usize,
    /// Free slots of theirs, the first ones first: few chunks have any that are taken. It has room for all slots.
    slots: BinaryHeap<Reverse<usize>>,
}

impl Free {
    fn take(&mut self) -> Option<usize> {
        if self.slots.is_empty() {
            self.add_chunk()?;
        }
        self.slots.pop().map(|Reverse(slot)| slot)
    }

    /// Makes one chunk more; `None` if there are as many as there may be, or if there is no memory.
    fn add_chunk(&mut self) -> Option<()> {
        let place = CHUNKS.get(self.made)?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(CHUNK).ok()?;
        slots.extend((0..CHUNK).map(|_| Slot::free()));
        let first = self.made * CHUNK;
        self.slots.try_reserve(first + CHUNK).ok()?;
        let made = place.set(Chunk { slots: slots.into(), taken: AtomicUsize::new(0) });
        debug_assert!(made.is_ok(), "only the writer makes chunks");
        self.made += 1;
        self.slots.extend((first..first + CHUNK).map(Reverse));
        Some(())
    }
}

/// The chunk and the slot of this number, which was handed out.
fn slot(number: usize) -> Option<(&'static Chunk, &'static Slot)> {
    let chunk = CHUNKS[number / CHUNK].get()?;
    Some((chunk, &chunk.slots[number % CHUNK]))
}

impl Slot {
    const fn free() -> Self {
        Self {
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            ones: AtomicBool::new(false),
            gone: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Under `WRITER`.
    fn set(&self, range: Range, gone: *mut AtomicBool) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // ORDERING: Q1 Release fence, pairs with Q4: who reads a new field reads the odd version too.
        fence(Ordering::Release);
        self.start.store(range.start, Ordering::Relaxed);
        self.end.store(range.end, Ordering::Relaxed);
        self.page.store(range.page, Ordering::Relaxed);
        self.writable.store(range.writable, Ordering::Relaxed);
        self.ones.store(range.fill == Fill::Ones, Ordering::Relaxed);
        self.gone.store(gone, Ordering::Relaxed);
        // ORDERING: Q2 Release, pairs with Q3: who reads this version reads these fields or newer ones.
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// The slot's content, if it holds `address` and is not being changed.
    fn holding(&self, address: usize) -> Option<(Range, *mut AtomicBool)> {
        // ORDERING: Q3 Acquire, pairs with Q2.
        let version = self.version.load(Ordering::Acquire);
        let range = Range {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            page: self.page.load(Ordering::Relaxed),
            writable: self.writable.load(Ordering::Relaxed),
            fill: if self.ones.load(Ordering::Relaxed) { Fill::Ones } else { Fill::Zeroes },
        };
        let gone = self.gone.load(Ordering::Relaxed);
        // ORDERING: Q4 Acquire fence, pairs with Q1: if a field was of a later version, the version now differs.
        fence(Ordering::Acquire);
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (whole && (range.start..range.end).contains(&address)).then_some((range, gone))
    }
}

/// The range that `address` lies in, and its flag. Async-signal-safe: loads only, a bounded number of them (`OnceLock::get`
/// is one, too), in proportion to the ranges there are.
pub(crate) fn find(address: usize) -> Option<(Range, *mut AtomicBool)> {
    let chunks = CHUNKS.iter().map_while(OnceLock::get);
    // The range of a fault was counted before anybody touched it.
    let in_use = chunks.filter(|chunk| chunk.taken.load(Ordering::Relaxed) > 0);
    in_use.flat_map(|chunk| chunk.slots.iter()).find_map(|slot| slot.holding(address))
}

/// A range's place in the registry, until drop.
#[derive(Debug)]
pub(crate) struct Registration {
    /// The slot's.
    number: usize,
    /// Keeps the flag alive that the slot points to.
    watch: Watch,
}

impl Registration {
    /// Enters a range; `None` if there is no place left.
    pub(crate) fn new(range: Range, watch: &Watch) -> Option<Self> {
        debug_assert!(range.start < range.end && range.page.is_power_of_two());
        debug_assert!((range.start | range.end).is_multiple_of(range.page), "whole pages");
        let mut writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let number = writer.take()?;
        let (chunk, slot) = slot(number)?;
        slot.set(range, Arc::as_ptr(&watch.0).cast_mut());
        chunk.taken.fetch_add(1, Ordering::Relaxed);
        Some(Self { number, watch: watch.clone() })
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((chunk, slot)) = slot(self.number) else { return };
        let nothing = Range { start: 0, end: 0, page: 1, writable: false, fill: Fill::Zeroes };
        slot.set(nothing, core::ptr::null_mut());
        chunk.taken.fetch_sub(1, Ordering::Relaxed);
        writer.slots.push(Reverse(self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that no mapping of this test program has: the zero page and what follows.
    const LOW: usize = 0x1000;

    #[test]
    fn finds_what_is_in_and_only_that() {
        let range = Range { start: LOW, end: LOW + 0x2000, page: 0x1000, writable: true, fill: Fill::Ones };
        let watch = Watch::new();
        let entry = Registration::new(range, &watch).unwrap();
        assert_eq!(find(LOW).map(|(r, _)| r), Some(range));
        assert_eq!(find(LOW + 0x1fff).map(|(_, gone)| gone.cast_const()), Some(Arc::as_ptr(&watch.0)));
        assert!(find(LOW - 1).is_none() && find(LOW + 0x2000).is_none());
        drop(entry);
        assert!(find(LOW).is_none());
    }

    #[test]
    fn thousands_of_ranges_and_each_is_found() {
        let at = |n: usize| 0x4000_0000 + n * 0x2000;
        let watches: Vec<_> = (0..3).map(|_| Watch::new()).collect();
        let range = |n| Range {
            start: at(n),
            end: at(n) + 0x1000,
            page: 0x1000,
            writable: n % 2 == 0,
            fill: Fill::Zeroes,
        };
        let entries: Vec<_> =
            (0..6000).map(|n| Registration::new(range(n), &watches[n % 3]).unwrap()).collect();
        for n in (0..6000).step_by(7) {
            let (found, gone) = find(at(n) + 0xfff).unwrap();
            assert_eq!((found, gone.cast_const()), (range(n), Arc::as_ptr(&watches[n % 3].0)), "{n}");
            assert!(find(at(n) + 0x1000).is_none(), "{n}");
        }
        drop(entries);
        assert!(find(at(0)).is_none() && find(at(5999)).is_none());
        // Freed slots are taken again, the first ones first.
        let again = Registration::new(range(1), &watches[0]).unwrap();
        assert!(again.number < 6000 && find(at(1)).is_some(), "slot {}", again.number);
    }

    #[test]
    fn a_slot_is_never_read_half_old_half_new() {
        let (a, b) = (0x10_0000..0x10_1000, 0x20_0000..0x20_1000);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let watch = Watch::new();
                for r in [&a, &b].into_iter().cycle().take(20_000) {
                    let range = Range {
                        start: r.start,
                        end: r.end,
                        page: 0x1000,
                        writable: false,
                        fill: Fill::Zeroes,
                    };
                    drop(Registration::new(range, &watch).unwrap());
                }
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                // Between the two ranges: a mix of a's start and b's end would hold it.
                assert!(find(0x18_0000).is_none());
                if let Some((r, _)) = find(0x20_0800) {
                    assert_eq!((r.start, r.end), (b.start, b.end));
                }
            }
        });
    }
}

//! The ring for one producer and one consumer, each of which owns its half.
//!
//! Each half keeps its own index, and the opposite one as last seen, to itself: while there is room by what
//! it has seen, an operation reads nothing that the other core writes.
//!
//! UNSAFETY: the slots are raw memory (see `slots`). Every block here rests on one invariant: the slots from
//! `head` up to `tail` are full and the consumer's, the others are empty and the producer's, and each half
//! moves only its own index, after its copy.
#![expect(unsafe_code, reason = "slots are touched under the ownership that the two indices give")]

use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;

use crate::capacity::{Capacity, Geometry, Left, RingError};
use crate::head_tail::Fit;
use crate::prefetch;
use crate::slots::{Arena, Slots, layout};
use crate::sync::{Arc, AtomicU32};

/// Longest run that is copied without a call, in bytes.
const SHORT: usize = 128;

/// A ring with its slots on the heap, as its two halves.
///
/// # Errors
/// When the capacity is out of range or not of its kind, or memory is short.
pub fn channel<T: Send>(cap: Capacity) -> Result<(Producer<T>, Consumer<T>), RingError> {
    let geometry = cap.geometry()?;
    Ok(halves(geometry, Arena::on_heap(geometry)?, 0))
}

/// A ring with its slots in the caller's memory, of the size and alignment that [`arena_layout`] tells. The
/// memory need not be initialised; the few bytes of the indices are on the heap.
///
/// # Safety
/// `arena` is valid for reads and writes of `len` bytes for as long as one of the halves lives, and nobody
/// else reads or writes these bytes meanwhile. It stays the caller's to free, after both halves are dropped.
///
/// # Errors
/// When the capacity is out of range or not of its kind, or the arena is too short or misaligned.
pub unsafe fn channel_in_arena<T: Send>(
    cap: Capacity,
    arena: NonNull<u8>,
    len: usize,
) -> Result<(Producer<T>, Consumer<T>), RingError> {
    let geometry = cap.geometry()?;
    // SAFETY: validity and exclusiveness are the caller's promise; size and alignment are checked there.
    let arena = unsafe { Arena::in_memory(geometry, arena, len) }?;
    Ok(halves(geometry, arena, 0))
}

/// Size and alignment of the memory that [`channel_in_arena`] needs.
///
/// # Errors
/// When the capacity is out of range or not of its kind.
pub fn arena_layout<T: Send>(cap: Capacity) -> Result<Layout, RingError> {
    layout::<T>(cap.geometry()?)
}

/// What both halves see. Indices count elements since the ring was made and wrap at 2³²;
/// `head <= tail <= head + capacity`.
struct Shared<T> {
    tail: CachePadded<AtomicU32>,
    head: CachePadded<AtomicU32>,
    arena: Arena<T>,
}

impl<T> Shared<T> {
    /// Elements inside, for a half to ask: it knows its own index, and of the opposite one nothing older than
    /// it has seen, so the difference stays within 0 and the capacity without any ordering.
    fn len(&self) -> usize {
        self.tail.load(Relaxed).wrapping_sub(self.head.load(Relaxed)) as usize
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.load(Relaxed), self.tail.load(Relaxed));
        // SAFETY: both halves are gone (the Arc orders what they did before this), so just the slots between
        // head and tail are full and nobody else touches them. The arena is dropped after this.
        unsafe { self.arena.slots().drop_range(head, tail) };
    }
}

/// What one half keeps to itself.
struct Side<T> {
    slots: Slots<T>,
    capacity: u32,
    /// How far this half's index may run ahead of the opposite one: the capacity, or 0 for the consumer.
    lead: u32,
    /// This half's index.
    own: u32,
    /// The opposite index as last seen.
    seen: u32,
}

/// A run of slots that belongs to one half until it publishes them.
struct Run<T> {
    slots: Slots<T>,
    /// Index of the first slot.
    first: u32,
    /// How many slots; 0: there was no room, and nothing is to be published.
    count: u32,
    /// Room behind the run.
    left: u32,
}

impl<T> Side<T> {
    /// As many of `want` slots from `own` on as `fit` says. Looks at the `opposite` index only when what was seen of it does
    /// not suffice.
    #[inline(always)]
    fn claim(&mut self, opposite: &AtomicU32, want: usize, fit: Fit) -> Run<T> {
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let (slots, first, lead) = (self.slots, self.own, self.lead);
        let mut room = self.seen.wrapping_add(lead).wrapping_sub(first);
        if room < want {
            // ORDERING: S2 Acquire, pairs with S1, for the consumer: the elements before it are written. S4
            // Acquire, pairs with S3, for the producer: the slots before it are read and may be written
            // again.
            let seen = opposite.load(Acquire);
            self.seen = seen;
            room = seen.wrapping_add(lead).wrapping_sub(first);
        }
        let count = fit.count(want, room);
        Run { slots, first, count, left: room - count }
    }

    /// Gives a copied run to the other half.
    #[inline(always)]
    fn publish(&mut self, index: &AtomicU32, run: &Run<T>) {
        let own = run.first.wrapping_add(run.count);
        self.own = own;
        // ORDERING: S1 Release, pairs with S2, from the producer: the elements are written. S3 Release, pairs
        // with S4, from the consumer: the slots are read.
        index.store(own, Release);
    }
}

fn halves<T: Send>(geometry: Geometry, arena: Arena<T>, start: u32) -> (Producer<T>, Consumer<T>) {
    let (slots, capacity) = (arena.slots(), geometry.capacity);
    let index = || CachePadded::new(AtomicU32::new(start));
    let shared = Arc::new(Shared { tail: index(), head: index(), arena });
    let side = |lead| CachePadded::new(Side { slots, capacity, lead, own: start, seen: start });
    let producer = Producer { shared: shared.clone(), side: side(capacity) };
    (producer, Consumer { shared, side: side(0) })
}

/// The half that puts elements in. Elements still inside are dropped when both halves are.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    side: CachePadded<Side<T>>,
}

/// The half that takes elements out. Elements still inside are dropped when both halves are.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    side: CachePadded<Side<T>>,
}

/// What can be asked of either half.
macro_rules! counts {
    ($half:ident) => {
        impl<T: Send> $half<T> {
            /// How many elements the ring holds at most.
            pub fn capacity(&self) -> usize {
                self.side.capacity as usize
            }

            /// How many elements are inside. The other half may have changed it by the time the caller reads
            /// it.
            pub fn len(&self) -> usize {
                self.shared.len()
            }

            /// Whether [`len`](Self::len) is 0.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many more elements would fit: [`capacity`](Self::capacity) less [`len`](Self::len).
            pub fn free(&self) -> usize {
                self.capacity() - self.len()
            }
        }

        impl<T: Send> fmt::Debug for $half<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut out = f.debug_struct(stringify!($half));
                out.field("capacity", &self.capacity()).field("len", &self.len()).finish_non_exhaustive()
            }
        }
    };
}

counts!(Producer);
counts!(Consumer);

impl<T: Send> Producer<T> {
    /// Puts one element in.
    ///
    /// # Errors
    /// Gives `v` back when the ring is full.
    #[inline]
    pub fn push(&mut self, v: T) -> Result<(), T> {
        let run = self.side.claim(&self.shared.head, 1, Fit::Bulk);
        if run.count == 0 {
            return Err(v);
        }
        // SAFETY: the slot is empty and the producer's, as there is room for one.
        unsafe { run.slots.write(run.first, v) };
        self.side.publish(&self.shared.tail, &run);
        Ok(())
    }

    /// Puts all of `src` in, or nothing (`None`) when it does not fit. Returns the free slots left, at least.
    #[inline]
    pub fn enqueue_bulk(&mut self, src: &[T]) -> Option<Left>
    where
        T: Copy,
    {
        let (count, left) = self.enqueue_slice(src, Fit::Bulk);
        (count == src.len()).then_some(left)
    }

    /// Puts as many of `src` in as fit, from its front. Returns how many, and the free slots left, at least.
    #[inline]
    pub fn enqueue_burst(&mut self, src: &[T]) -> (usize, Left)
    where
        T: Copy,
    {
        self.enqueue_slice(src, Fit::Burst)
    }

    /// Moves all of `src` in and leaves it empty, or nothing (`None`) when it does not fit. Returns the free
    /// slots left, at least.
    #[inline]
    pub fn enqueue_bulk_from(&mut self, src: &mut Vec<T>) -> Option<Left> {
        let want = src.len();
        let (count, left) = self.enqueue_vec(src, Fit::Bulk);
        (count == want).then_some(left)
    }

    /// Moves as many of `src` in as fit, from its front; the others move up. Returns how many, and the free
    /// slots left, at least.
    #[inline]
    pub fn enqueue_burst_from(&mut self, src: &mut Vec<T>) -> (usize, Left) {
        self.enqueue_vec(src, Fit::Burst)
    }

    #[inline(always)]
    fn enqueue_slice(&mut self, src: &[T], fit: Fit) -> (usize, Left)
    where
        T: Copy,
    {
        self.enqueue(src.len(), fit, |slots, first, count| {
            // SAFETY: `enqueue` gives room for `count` slots from `first` on, at most `src.len()`.
            unsafe { slots.copy_in::<SHORT>(first, src.as_ptr(), count) }
        })
    }

    #[inline(always)]
    fn enqueue_vec(&mut self, src: &mut Vec<T>, fit: Fit) -> (usize, Left) {
        self.enqueue(src.len(), fit, |slots, first, count| {
            // SAFETY: `enqueue` gives room for `count` slots from `first` on, at most `src.len()`.
            unsafe { slots.move_in::<SHORT>(first, src, count) }
        })
    }

    /// Calls `copy` with the first of the slots that are empty and the producer's, and their count, from 1 to
    /// the smaller of `want` and the capacity; then publishes them.
    #[inline(always)]
    fn enqueue(&mut self, want: usize, fit: Fit, copy: impl FnOnce(Slots<T>, u32, usize)) -> (usize, Left) {
        let run = self.side.claim(&self.shared.head, want, fit);
        let count = run.count as usize;
        if count > 0 {
            run.slots.prefetch(run.first, run.count, run.left, prefetch::for_writing);
            copy(run.slots, run.first, count);
            self.side.publish(&self.shared.tail, &run);
        }
        (count, Left(run.left as usize))
    }
}

impl<T: Send> Consumer<T> {
    /// Takes one element out; `None` when the ring is empty.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let run = self.side.claim(&self.shared.tail, 1, Fit::Bulk);
        if run.count == 0 {
            return None;
        }
        // SAFETY: the slot is full and the consumer's, as there is one; publishing gives it back as empty.
        let v = unsafe { run.slots.read(run.first) };
        self.side.publish(&self.shared.head, &run);
        Some(v)
    }

    /// Fills all of `dst`, or nothing of it (`None`) when there are fewer elements. Returns the elements
    /// left, at least.
    ///
    /// What was filled is initialised and the caller's to drop.
    #[inline]
    pub fn dequeue_bulk(&mut self, dst: &mut [MaybeUninit<T>]) -> Option<Left> {
        let (count, left) = self.dequeue_slice(dst, Fit::Bulk);
        (count == dst.len()).then_some(left)
    }

    /// Fills `dst` from its front with as many elements as there are. Returns how many, and the elements
    /// left, at least.
    ///
    /// What was filled is initialised and the caller's to drop.
    #[inline]
    pub fn dequeue_burst(&mut self, dst: &mut [MaybeUninit<T>]) -> (usize, Left) {
        self.dequeue_slice(dst, Fit::Burst)
    }

    /// Appends `count` elements to `dst`, or nothing (`None`) when there are fewer, or when they exceed
    /// `dst`'s spare capacity: it never allocates. Returns the elements left, at least.
    #[inline]
    pub fn dequeue_bulk_into(&mut self, dst: &mut Vec<T>, count: usize) -> Option<Left> {
        if count > dst.capacity() - dst.len() {
            return None;
        }
        let (taken, left) = self.dequeue_vec(dst, count, Fit::Bulk);
        (taken == count).then_some(left)
    }

    /// Appends up to `max` elements to `dst`, within its spare capacity: it never allocates. Returns how
    /// many, and the elements left, at least.
    #[inline]
    pub fn dequeue_burst_into(&mut self, dst: &mut Vec<T>, max: usize) -> (usize, Left) {
        let max = max.min(dst.capacity() - dst.len());
        self.dequeue_vec(dst, max, Fit::Burst)
    }

    #[inline(always)]
    fn dequeue_slice(&mut self, dst: &mut [MaybeUninit<T>], fit: Fit) -> (usize, Left) {
        self.dequeue(dst.len(), fit, |slots, first, count| {
            // SAFETY: `dequeue` gives `count` full slots from `first` on, at most `dst.len()`, to be taken
            // once. The arena is the ring's alone, so `dst` is elsewhere.
            unsafe { slots.copy_out::<SHORT>(first, dst.as_mut_ptr().cast::<T>(), count) }
        })
    }

    /// `want` is at most `dst`'s spare capacity: its two callers see to it.
    #[inline(always)]
    fn dequeue_vec(&mut self, dst: &mut Vec<T>, want: usize, fit: Fit) -> (usize, Left) {
        debug_assert!(want <= dst.capacity() - dst.len(), "dequeue never grows the vector");
        self.dequeue(want, fit, |slots, first, count| {
            // SAFETY: as in `dequeue_slice`, and `count` is at most `want`, the spare capacity at most.
            unsafe { slots.move_out::<SHORT>(first, dst, count) }
        })
    }

    /// Calls `copy` with the first of the slots that are full and the consumer's, and their count, from 1 to
    /// the smaller of `want` and the capacity; then gives them back as empty.
    #[inline(always)]
    fn dequeue(&mut self, want: usize, fit: Fit, copy: impl FnOnce(Slots<T>, u32, usize)) -> (usize, Left) {
        let run = self.side.claim(&self.shared.tail, want, fit);
        let count = run.count as usize;
        if count > 0 {
            run.slots.prefetch(run.first, run.count, run.left, prefetch::for_reading);
            copy(run.slots, run.first, count);
            self.side.publish(&self.shared.head, &run);
        }
        (count, Left(run.left as usize))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn halves_may_move_to_other_threads() {
        fn sendable<T: Send>() {}
        sendable::<Producer<std::cell::Cell<u8>>>();
        sendable::<Consumer<std::cell::Cell<u8>>>();
    }

    #[test]
    fn bulk_is_all_or_nothing_and_burst_what_fits() {
        let (mut tx, mut rx) = channel(Capacity::Exact(3)).unwrap();
        assert_eq!(tx.enqueue_bulk(&[1, 2, 3, 4]), None);
        assert_eq!(tx.enqueue_burst(&[1, 2, 3, 4]), (3, Left(0)));
        assert_eq!(tx.push(5), Err(5));
        let mut out = Vec::with_capacity(2);
        assert_eq!(rx.dequeue_bulk_into(&mut out, 3), None, "never grows the vector");
        assert_eq!(rx.dequeue_burst_into(&mut out, 3), (2, Left(1)));
        assert_eq!((out, tx.free(), rx.len()), (vec![1, 2], 2, 1));
        assert_eq!((rx.pop(), rx.pop()), (Some(3), None));
    }

    #[test]
    fn indices_wrap_at_the_end_of_u32() {
        for cap in [Capacity::PowerOfTwo(4), Capacity::Exact(3)] {
            let geometry = cap.geometry().unwrap();
            let arena = Arena::on_heap(geometry).unwrap();
            let (mut tx, mut rx) = halves(geometry, arena, u32::MAX - 1);
            for round in 0..4 {
                let mut src = vec![Box::new(round), Box::new(10), Box::new(20)];
                assert!(tx.enqueue_bulk_from(&mut src).is_some() && src.is_empty());
                assert_eq!((tx.len(), rx.free()), (3, geometry.capacity as usize - 3));
                let mut out = Vec::with_capacity(3);
                assert_eq!(rx.dequeue_bulk_into(&mut out, 3), Some(Left(0)));
                assert_eq!(out, [Box::new(round), Box::new(10), Box::new(20)]);
            }
            tx.enqueue_burst_from(&mut vec![Box::new(1), Box::new(2)]);
            // Both are dropped with the halves: Miri and the leak check look at that.
        }
    }

    #[test]
    fn arena_is_used() {
        let cap = Capacity::PowerOfTwo(8);
        let size = arena_layout::<u64>(cap).unwrap().size();
        let mut memory = CachePadded::new([0u8; 128]);
        let start = NonNull::from(&mut *memory).cast::<u8>();
        assert!(size <= 128);
        // SAFETY: `memory` outlives both halves and is not used before their end.
        let (mut tx, rx) = unsafe { channel_in_arena::<u64>(cap, start, size) }.unwrap();
        tx.push(7).unwrap();
        drop((tx, rx));
        assert_eq!(memory[..8], 7u64.to_ne_bytes());
    }
}

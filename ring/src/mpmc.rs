//! The ring for any number of producers and consumers.
//!
//! UNSAFETY: the slots are raw memory (see `slots`). Every block here rests on one invariant of `head_tail`:
//! the slots of a claim belong to the thread that made it until it publishes them, a producer's claim covers
//! empty slots only and a consumer's claim full ones only, and no claim exceeds the capacity.
#![expect(unsafe_code, reason = "slots are touched under the ownership that a claim gives")]

use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::capacity::{Capacity, Geometry, Left, RingError};
use crate::head_tail::{Fit, HeadTail};
use crate::prefetch;
use crate::slots::{Arena, Slots, layout};

/// Longest run that is copied without a call, in bytes. Longer ones are left to `memcpy`, whose stores are wider: the next
/// locked instruction waits for each of them.
const SHORT: usize = 63;

/// A ring for many producers and many consumers, shared by reference.
///
/// `rte_ring`'s algorithm: a thread claims a run of slots by moving its side's head with a compare-and-swap,
/// copies, waits for those that claimed before it, and publishes by moving its side's tail. Elements come out
/// in the order in which their slots were claimed. No operation allocates. Beyond `rte_ring`, each side
/// remembers the opposite tail as last seen, and reads the line that the other cores write only when that
/// does not suffice.
///
/// Elements still inside are dropped with the ring.
pub struct Mpmc<T> {
    producers: HeadTail,
    consumers: HeadTail,
    capacity: u32,
    arena: Arena<T>,
}

impl<T: Send> Mpmc<T> {
    /// A ring with its slots on the heap.
    ///
    /// # Errors
    /// When the capacity is out of range or not of its kind, or memory is short.
    pub fn new(cap: Capacity) -> Result<Self, RingError> {
        let geometry = cap.geometry()?;
        Ok(Self::starting_at(geometry, Arena::on_heap(geometry)?, 0))
    }

    /// A ring with its slots in the caller's memory (hugepages of a NUMA node, say), of the size and
    /// alignment that [`arena_layout`](Self::arena_layout) tells. The memory need not be initialised.
    ///
    /// # Safety
    /// `arena` is valid for reads and writes of `len` bytes for as long as the ring lives, and nobody else
    /// reads or writes these bytes meanwhile. It stays the caller's to free, after the ring is dropped.
    ///
    /// # Errors
    /// When the capacity is out of range or not of its kind, or the arena is too short or misaligned.
    pub unsafe fn in_arena(cap: Capacity, arena: NonNull<u8>, len: usize) -> Result<Self, RingError> {
        let geometry = cap.geometry()?;
        // SAFETY: validity and exclusiveness are the caller's promise; size and alignment are checked there.
        let arena = unsafe { Arena::in_memory(geometry, arena, len) }?;
        Ok(Self::starting_at(geometry, arena, 0))
    }

    /// Size and alignment of the memory that [`in_arena`](Self::in_arena) needs.
    ///
    /// # Errors
    /// When the capacity is out of range or not of its kind.
    pub fn arena_layout(cap: Capacity) -> Result<Layout, RingError> {
        layout::<T>(cap.geometry()?)
    }

    /// An empty ring whose indices start at `start`.
    fn starting_at(geometry: Geometry, arena: Arena<T>, start: u32) -> Self {
        Self {
            producers: HeadTail::new(start),
            consumers: HeadTail::new(start),
            capacity: geometry.capacity,
            arena,
        }
    }

    /// How many elements the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// How many elements are inside. Other threads may have changed it by the time the caller reads it.
    pub fn len(&self) -> usize {
        HeadTail::published(&self.producers, &self.consumers).min(self.capacity) as usize
    }

    /// Whether [`len`](Self::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many more elements would fit: [`capacity`](Self::capacity) less [`len`](Self::len).
    pub fn free(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Puts one element in.
    ///
    /// # Errors
    /// Gives `v` back when the ring is full.
    #[inline]
    pub fn push(&self, v: T) -> Result<(), T> {
        let slots = self.arena.slots();
        let claim = self.producers.claim(&self.consumers, self.capacity, 1, Fit::Bulk);
        if claim.count == 0 {
            return Err(v);
        }
        // SAFETY: the slot is empty and this thread's by its claim.
        unsafe { slots.write(claim.first, v) };
        self.producers.publish(&claim);
        Ok(())
    }

    /// Takes one element out; `None` when the ring is empty.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let slots = self.arena.slots();
        let claim = self.consumers.claim(&self.producers, 0, 1, Fit::Bulk);
        if claim.count == 0 {
            return None;
        }
        // SAFETY: the slot is full and this thread's by its claim; publishing gives it back as empty.
        let v = unsafe { slots.read(claim.first) };
        self.consumers.publish(&claim);
        Some(v)
    }

    /// Puts all of `src` in, or nothing (`None`) when it does not fit. Returns the free slots left, at least.
    #[inline]
    pub fn enqueue_bulk(&self, src: &[T]) -> Option<Left>
    where
        T: Copy,
    {
        let (count, left) = self.enqueue_slice(src, Fit::Bulk);
        (count == src.len()).then_some(left)
    }

    /// Puts as many of `src` in as fit, from its front. Returns how many, and the free slots left, at least.
    #[inline]
    pub fn enqueue_burst(&self, src: &[T]) -> (usize, Left)
    where
        T: Copy,
    {
        self.enqueue_slice(src, Fit::Burst)
    }

    /// Fills all of `dst`, or nothing of it (`None`) when there are fewer elements. Returns the elements
    /// left, at least.
    ///
    /// What was filled is initialised and the caller's to drop.
    #[inline]
    pub fn dequeue_bulk(&self, dst: &mut [MaybeUninit<T>]) -> Option<Left> {
        let (count, left) = self.dequeue_slice(dst, Fit::Bulk);
        (count == dst.len()).then_some(left)
    }

    /// Fills `dst` from its front with as many elements as there are. Returns how many, and the elements
    /// left, at least.
    ///
    /// What was filled is initialised and the caller's to drop.
    #[inline]
    pub fn dequeue_burst(&self, dst: &mut [MaybeUninit<T>]) -> (usize, Left) {
        self.dequeue_slice(dst, Fit::Burst)
    }

    /// Moves all of `src` in and leaves it empty, or nothing (`None`) when it does not fit. Returns the free
    /// slots left, at least.
    #[inline]
    pub fn enqueue_bulk_from(&self, src: &mut Vec<T>) -> Option<Left> {
        let want = src.len();
        let (count, left) = self.enqueue_vec(src, Fit::Bulk);
        (count == want).then_some(left)
    }

    /// Moves as many of `src` in as fit, from its front; the others move up. Returns how many, and the free
    /// slots left, at least.
    #[inline]
    pub fn enqueue_burst_from(&self, src: &mut Vec<T>) -> (usize, Left) {
        self.enqueue_vec(src, Fit::Burst)
    }

    /// Appends `count` elements to `dst`, or nothing (`None`) when there are fewer, or when they exceed
    /// `dst`'s spare capacity: it never allocates. Returns the elements left, at least.
    #[inline]
    pub fn dequeue_bulk_into(&self, dst: &mut Vec<T>, count: usize) -> Option<Left> {
        if count > dst.capacity() - dst.len() {
            return None;
        }
        let (taken, left) = self.dequeue_vec(dst, count, Fit::Bulk);
        (taken == count).then_some(left)
    }

    /// Appends up to `max` elements to `dst`, within its spare capacity: it never allocates. Returns how
    /// many, and the elements left, at least.
    #[inline]
    pub fn dequeue_burst_into(&self, dst: &mut Vec<T>, max: usize) -> (usize, Left) {
        let max = max.min(dst.capacity() - dst.len());
        self.dequeue_vec(dst, max, Fit::Burst)
    }

    #[inline(always)]
    fn enqueue_slice(&self, src: &[T], fit: Fit) -> (usize, Left)
    where
        T: Copy,
    {
        self.enqueue(src.len(), fit, |slots, first, count| {
            // SAFETY: the slots are empty and this thread's by its claim, which is at most the capacity and
            // `src.len()`.
            unsafe { slots.copy_in::<SHORT>(first, src.as_ptr(), count) }
        })
    }

    #[inline(always)]
    fn dequeue_slice(&self, dst: &mut [MaybeUninit<T>], fit: Fit) -> (usize, Left) {
        self.dequeue(dst.len(), fit, |slots, first, count| {
            // SAFETY: the slots are full and this thread's by its claim, which is at most the capacity and
            // `dst.len()`; publishing gives them back as empty. The arena is the ring's alone, so `dst` is
            // elsewhere.
            unsafe { slots.copy_out::<SHORT>(first, dst.as_mut_ptr().cast::<T>(), count) }
        })
    }

    #[inline(always)]
    fn enqueue_vec(&self, src: &mut Vec<T>, fit: Fit) -> (usize, Left) {
        self.enqueue(src.len(), fit, |slots, first, count| {
            // SAFETY: as in `enqueue_slice`.
            unsafe { slots.move_in::<SHORT>(first, src, count) }
        })
    }

    /// `want` is at most `dst`'s spare capacity: its two callers see to it.
    #[inline(always)]
    fn dequeue_vec(&self, dst: &mut Vec<T>, want: usize, fit: Fit) -> (usize, Left) {
        debug_assert!(want <= dst.capacity() - dst.len(), "dequeue never grows the vector");
        self.dequeue(want, fit, |slots, first, count| {
            // SAFETY: as in `dequeue_slice`, and `count` is at most `want`, the spare capacity at most.
            unsafe { slots.move_out::<SHORT>(first, dst, count) }
        })
    }

    /// Claims, copies, publishes. `copy` gets the slots, the first one's index and the count, at least 1, and does not panic.
    #[inline(always)]
    fn enqueue(&self, want: usize, fit: Fit, copy: impl FnOnce(Slots<T>, u32, usize)) -> (usize, Left) {
        let slots = self.arena.slots();
        let claim = self.producers.claim(&self.consumers, self.capacity, clamp(want), fit);
        let count = claim.count as usize;
        if count > 0 {
            slots.prefetch(claim.first, claim.count, claim.left, prefetch::for_writing);
            copy(slots, claim.first, count);
            self.producers.publish(&claim);
        }
        (count, Left(claim.left.min(self.capacity) as usize))
    }

    /// As [`enqueue`](Self::enqueue), on the other side.
    #[inline(always)]
    fn dequeue(&self, want: usize, fit: Fit, copy: impl FnOnce(Slots<T>, u32, usize)) -> (usize, Left) {
        let slots = self.arena.slots();
        let claim = self.consumers.claim(&self.producers, 0, clamp(want), fit);
        let count = claim.count as usize;
        if count > 0 {
            slots.prefetch(claim.first, claim.count, claim.left, prefetch::for_reading);
            copy(slots, claim.first, count);
            self.consumers.publish(&claim);
        }
        (count, Left(claim.left.min(self.capacity) as usize))
    }
}

/// A count as an index difference; above every capacity when it does not fit.
#[inline(always)]
fn clamp(want: usize) -> u32 {
    u32::try_from(want).unwrap_or(u32::MAX)
}

impl<T> Drop for Mpmc<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.consumers.tail_exclusive(), self.producers.tail_exclusive());
        // SAFETY: `&mut self` says that no operation is under way: all claims are published, so just the
        // slots between the two tails are full, and nobody else touches them. The arena is dropped after
        // this.
        unsafe { self.arena.slots().drop_range(head, tail) };
    }
}

impl<T: Send> fmt::Debug for Mpmc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpmc")
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crossbeam_utils::CachePadded;

    use super::*;

    /// A ring whose indices wrap after two elements.
    fn near_wrap<T: Send>(cap: Capacity) -> Mpmc<T> {
        let geometry = cap.geometry().unwrap();
        Mpmc::starting_at(geometry, Arena::on_heap(geometry).unwrap(), u32::MAX - 1)
    }

    #[test]
    fn bulk_is_all_or_nothing_and_burst_what_fits() {
        let ring = Mpmc::new(Capacity::Exact(5)).unwrap();
        assert_eq!(ring.enqueue_bulk(&[0; 6]), None);
        assert_eq!(ring.enqueue_bulk(&[1, 2, 3]), Some(Left(2)));
        assert_eq!(ring.enqueue_bulk(&[4, 5, 6]), None);
        assert_eq!(ring.enqueue_burst(&[4, 5, 6]), (2, Left(0)));
        assert_eq!(ring.push(7), Err(7));
        let mut out = Vec::with_capacity(4);
        assert_eq!(ring.dequeue_bulk_into(&mut out, 5), None, "never grows the vector");
        assert_eq!(ring.dequeue_bulk_into(&mut out, 2), Some(Left(3)));
        assert_eq!(ring.dequeue_burst_into(&mut out, 9), (2, Left(1)));
        assert_eq!(out, [1, 2, 3, 4]);
        assert_eq!((ring.pop(), ring.pop()), (Some(5), None));
    }

    #[test]
    fn nothing_is_always_possible() {
        let ring = Mpmc::new(Capacity::PowerOfTwo(1)).unwrap();
        assert_eq!(ring.enqueue_bulk(&[]), Some(Left(1)));
        assert_eq!(ring.dequeue_bulk(&mut []), Some(Left(0)));
        ring.push(1u8).unwrap();
        assert_eq!(ring.enqueue_bulk(&[]), Some(Left(0)));
        assert_eq!(
            ring.dequeue_burst(&mut []),
            (0, Left(0)),
            "a lower bound: nothing asked, nothing looked up"
        );
    }

    #[test]
    fn indices_wrap_at_the_end_of_u32() {
        for cap in [Capacity::PowerOfTwo(4), Capacity::Exact(3)] {
            let ring = near_wrap(cap);
            for round in 0..4 {
                assert_eq!(ring.enqueue_bulk(&[round, 10, 20]), Some(Left(ring.capacity() - 3)));
                assert_eq!((ring.len(), ring.free()), (3, ring.capacity() - 3));
                let mut out = [MaybeUninit::uninit(); 3];
                assert_eq!(ring.dequeue_bulk(&mut out), Some(Left(0)));
                // SAFETY: `dequeue_bulk` has filled all of it.
                assert_eq!(out.map(|v| unsafe { v.assume_init() }), [round, 10, 20]);
            }
        }
    }

    #[test]
    fn vectors_keep_what_did_not_fit() {
        let ring = near_wrap(Capacity::Exact(3));
        let mut src: Vec<Box<u32>> = (0..5).map(Box::new).collect();
        assert_eq!(ring.enqueue_bulk_from(&mut src), None);
        assert_eq!(ring.enqueue_burst_from(&mut src), (3, Left(0)));
        assert_eq!(src, [Box::new(3), Box::new(4)]);
        assert_eq!(ring.pop(), Some(Box::new(0)));
        // Boxes 1 and 2 are dropped with the ring, across the wrap: Miri and the leak check look at that.
    }

    #[test]
    fn elements_without_size_need_no_memory() {
        let ring = Mpmc::new(Capacity::Exact(3)).unwrap();
        assert_eq!(Mpmc::<()>::arena_layout(Capacity::Exact(3)).unwrap().size(), 0);
        assert_eq!(ring.enqueue_burst(&[(); 9]), (3, Left(0)));
        assert_eq!((ring.pop(), ring.len()), (Some(()), 2));
    }

    #[test]
    fn arena_is_checked_and_used() {
        let cap = Capacity::PowerOfTwo(8);
        let layout = Mpmc::<u64>::arena_layout(cap).unwrap();
        let mut memory = CachePadded::new([[0u8; 128]; 2]);
        let start = NonNull::from(&mut *memory).cast::<u8>();
        assert!(layout.size() <= 128 && layout.align() <= align_of_val(&memory));
        // SAFETY: refused before any access; the memory is valid for the length in any case.
        let short = unsafe { Mpmc::<u64>::in_arena(cap, start, layout.size() - 1) };
        assert_eq!(
            short.unwrap_err(),
            RingError::ArenaTooShort { need: layout.size(), got: layout.size() - 1 }
        );
        // SAFETY: one byte in is inside `memory`.
        let odd = unsafe { start.add(1) };
        // SAFETY: as for `short`.
        let misaligned = unsafe { Mpmc::<u64>::in_arena(cap, odd, layout.size()) };
        assert_eq!(misaligned.unwrap_err(), RingError::ArenaMisaligned { align: layout.align() });
        // SAFETY: `memory` outlives the ring and is not used before its end.
        let ring = unsafe { Mpmc::<u64>::in_arena(cap, start, layout.size()) }.unwrap();
        assert_eq!(ring.enqueue_bulk(&[7; 8]), Some(Left(0)));
        drop(ring);
        assert_eq!(memory[0][..8], 7u64.to_ne_bytes());
    }

    #[test]
    fn too_many_bytes_is_an_error() {
        let cap = Capacity::PowerOfTwo(1 << 31);
        let refused = Mpmc::<[u64; 1 << 30]>::arena_layout(cap);
        assert!(matches!(refused, Err(RingError::TooLarge { slots: 0x8000_0000, .. })));
    }
}

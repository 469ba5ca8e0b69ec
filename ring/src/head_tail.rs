//! The two indices of one side of an MPMC ring, and the two steps that move them: claim, publish.
//!
//! Indices count elements since the ring was made and wrap at 2³². `head` is how far this side has claimed,
//! `tail` how far it has finished; what lies between is being copied. For both sides of a ring at all times
//!
//! ```text
//! consumers.tail <= consumers.head <= producers.tail <= producers.head <= consumers.tail + capacity
//! ```
//!
//! As in `rte_ring`, a thread that sleeps between reading `head` and its CAS while a multiple of 2³²
//! elements, to the element, passes would not notice; that takes tens of seconds at the highest rates and a
//! hit of one in 2³².

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU32, wait};

/// All or nothing, or as many as fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Bulk,
    Burst,
}

impl Fit {
    /// How many of `want` to move when there is room for `room`.
    #[inline(always)]
    pub(crate) fn count(self, want: u32, room: u32) -> u32 {
        match self {
            _ if want <= room => want,
            Self::Bulk => 0,
            Self::Burst => room,
        }
    }
}

/// A run of slots that belongs to one thread, from its claim until its publication.
#[must_use]
pub(crate) struct Claim {
    /// Index of the first slot.
    pub(crate) first: u32,
    /// How many slots; 0: there was no room, and nothing is to be published.
    pub(crate) count: u32,
    /// Room that remained behind the claim.
    pub(crate) left: u32,
}

/// One side's indices. What this side alone writes and reads shares a line; the tail, for which the opposite
/// side looks, has its own.
pub(crate) struct HeadTail {
    claims: CachePadded<Claims>,
    tail: CachePadded<AtomicU32>,
}

struct Claims {
    head: AtomicU32,
    /// The opposite tail as some thread of this side has last seen it, or as one saw it before.
    seen: AtomicU32,
}

impl HeadTail {
    pub(crate) fn new(start: u32) -> Self {
        let claims = Claims { head: AtomicU32::new(start), seen: AtomicU32::new(start) };
        Self { claims: CachePadded::new(claims), tail: CachePadded::new(AtomicU32::new(start)) }
    }

    /// Claims `want` slots, or what `fit` makes of it.
    ///
    /// `lead` is how far this side's head may run ahead of the opposite tail: the `capacity` for producers, 0
    /// for consumers.
    #[inline(always)]
    pub(crate) fn claim(&self, opposite: &Self, lead: u32, capacity: u32, want: u32, fit: Fit) -> Claim {
        // ORDERING: R1 Acquire, pairs with R2: who moved head to this value had seen an opposite tail that
        // allowed it; from here on this thread sees that tail or a later one, so the room by R3 cannot go
        // below 0.
        let mut first = self.claims.head.load(Acquire);
        loop {
            // ORDERING: R6 Acquire, pairs with R7: the slots before this tail are copied.
            let seen = self.claims.seen.load(Acquire);
            let mut room = seen.wrapping_add(lead).wrapping_sub(first);
            // `seen` may be so old that the room by it is below 0, which as u32 is above any capacity.
            if room < want || room > capacity {
                room = self.look(opposite, seen).wrapping_add(lead).wrapping_sub(first);
            }
            // When `first` has become stale, `room` is too large, and the CAS below fails.
            let count = fit.count(want, room);
            let left = room.wrapping_sub(count);
            if count == 0 {
                return Claim { first, count, left };
            }
            // ORDERING: R2 Release, pairs with R1: passes on the opposite tail that allows this. On failure
            // Acquire: R1.
            match self.claims.head.compare_exchange_weak(first, first.wrapping_add(count), Release, Acquire) {
                Ok(_) => return Claim { first, count, left },
                Err(now) => first = now,
            }
        }
    }

    /// Reads the opposite tail, and keeps it for this side if it has moved.
    #[inline(always)]
    fn look(&self, opposite: &Self, seen: u32) -> u32 {
        // ORDERING: R3 Acquire, pairs with R5 of the opposite side: the slots before this tail are copied.
        let tail = opposite.tail.load(Acquire);
        if tail != seen {
            // ORDERING: R7 Release, pairs with R6: passes on what R3 has acquired. May overwrite a newer one:
            // no harm.
            self.claims.seen.store(tail, Release);
        }
        tail
    }

    /// Gives a claimed and copied run to the opposite side, once all earlier claims of this side are given.
    #[inline(always)]
    pub(crate) fn publish(&self, claim: &Claim) {
        // ORDERING: R4 Acquire, pairs with R5 of the claim before: R5 below passes on that claim's copies
        // too.
        if self.tail.load(Acquire) != claim.first {
            self.wait_for(claim.first);
        }
        // ORDERING: R5 Release, pairs with R3 of the opposite side and R4 of the claim behind: the copy is
        // done.
        self.tail.store(claim.first.wrapping_add(claim.count), Release);
    }

    /// Waits until every claim before `first` is published.
    #[cold]
    fn wait_for(&self, first: u32) {
        let mut turn = 0;
        // ORDERING: R4 Acquire, pairs with R5, as in `publish`.
        while self.tail.load(Acquire) != first {
            wait(&mut turn);
        }
    }

    /// Elements published by `producers` and not yet given back by `consumers`.
    pub(crate) fn published(producers: &Self, consumers: &Self) -> u32 {
        // ORDERING: R3 Acquire, pairs with R5 of the consumers: the producers' tail read next is not older,
        // so the difference cannot go below 0. It may have grown beyond the capacity meanwhile: the caller
        // cuts it.
        let consumed = consumers.tail.load(Acquire);
        producers.tail.load(Relaxed).wrapping_sub(consumed)
    }

    /// The tail, when no other thread can move it.
    pub(crate) fn tail_exclusive(&mut self) -> u32 {
        self.tail.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn claims_stop_at_the_capacity_and_run_over_the_end_of_u32() {
        let (producers, consumers) = (HeadTail::new(u32::MAX), HeadTail::new(u32::MAX));
        let claim = producers.claim(&consumers, 3, 3, 2, Fit::Bulk);
        assert_eq!((claim.first, claim.count, claim.left), (u32::MAX, 2, 1));
        assert_eq!(producers.claim(&consumers, 3, 3, 2, Fit::Bulk).count, 0);
        assert_eq!(consumers.claim(&producers, 0, 3, 2, Fit::Burst).count, 0, "not published yet");
        producers.publish(&claim);
        assert_eq!(HeadTail::published(&producers, &consumers), 2);
        assert_eq!(producers.claim(&consumers, 3, 3, 2, Fit::Burst).first, 1);
        let claim = consumers.claim(&producers, 0, 3, 9, Fit::Burst);
        assert_eq!((claim.first, claim.count, claim.left), (u32::MAX, 2, 0));
    }
}

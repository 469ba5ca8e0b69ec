//! The two indices of one side of an MPMC ring, and the two steps that move them: claim, publish.
//!
//! Indices count elements since the ring was made and wrap at 2³². `head` is how far this side has claimed,
//! `tail` how far it has finished; what lies between is being copied. For both sides of a ring at all times
//!
//! ```text
//! consumers.tail <= consumers.head <= producers.tail <= producers.head <= consumers.tail + capacity
//! ```
//!
//! As in `rte_ring`, a thread that sleeps between reading `head` and its CAS while a multiple of 2³² elements, to the
//! element, passes would not notice; that takes tens of seconds at the highest rates, a hit of one in 2³², and (here) the
//! opposite tail last looked at in the same place too.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, wait};

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
    claims: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU32>,
}

/// This side's head, and the opposite tail that allowed it: one word, so that one CAS moves both, and nobody sees a head
/// together with a tail too old for it. As long as there is room by `seen`, nobody reads the line that the opposite side
/// writes.
#[derive(Clone, Copy)]
struct Claims {
    head: u32,
    seen: u32,
}

impl Claims {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        Self { head: word as u32, seen: (word >> 32) as u32 }
    }

    #[inline(always)]
    fn to_word(self) -> u64 {
        u64::from(self.head) | u64::from(self.seen) << 32
    }

    /// Slots between the head and the furthest that it may go by `seen`.
    #[inline(always)]
    fn room(self, lead: u32) -> u32 {
        self.seen.wrapping_add(lead).wrapping_sub(self.head)
    }
}

impl HeadTail {
    pub(crate) fn new(start: u32) -> Self {
        let claims = AtomicU64::new(Claims { head: start, seen: start }.to_word());
        Self { claims: CachePadded::new(claims), tail: CachePadded::new(AtomicU32::new(start)) }
    }

    /// Claims `want` slots, or what `fit` makes of it.
    ///
    /// `lead` is how far this side's head may run ahead of the opposite tail: the capacity for producers, 0 for
    /// consumers.
    #[inline(always)]
    pub(crate) fn claim(&self, opposite: &Self, lead: u32, want: u32, fit: Fit) -> Claim {
        // ORDERING: R1 Acquire, pairs with R2: passes on the copies before `seen`, which R3 of the thread that stored it
        // has acquired; and R3 below reads no older tail than that one.
        let mut word = self.claims.load(Acquire);
        loop {
            let mut claims = Claims::from_word(word);
            if claims.room(lead) < want {
                // ORDERING: R3 Acquire, pairs with R5 of the opposite side: the slots before this tail are copied.
                claims.seen = opposite.tail.load(Acquire);
            }
            // When the head has become stale, the room is too large, and the CAS below fails.
            let (first, room) = (claims.head, claims.room(lead));
            let count = fit.count(want, room);
            let left = room.wrapping_sub(count);
            if count == 0 {
                return Claim { first, count, left };
            }
            claims.head = first.wrapping_add(count);
            // ORDERING: R2 Release, pairs with R1: passes on what R1 and R3 have acquired. On failure Acquire: R1.
            match self.claims.compare_exchange_weak(word, claims.to_word(), Release, Acquire) {
                Ok(_) => return Claim { first, count, left },
                Err(now) => word = now,
            }
        }
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
        let claim = producers.claim(&consumers, 3, 2, Fit::Bulk);
        assert_eq!((claim.first, claim.count, claim.left), (u32::MAX, 2, 1));
        assert_eq!(producers.claim(&consumers, 3, 2, Fit::Bulk).count, 0);
        assert_eq!(consumers.claim(&producers, 0, 2, Fit::Burst).count, 0, "not published yet");
        producers.publish(&claim);
        assert_eq!(HeadTail::published(&producers, &consumers), 2);
        assert_eq!(producers.claim(&consumers, 3, 2, Fit::Burst).first, 1);
        let claim = consumers.claim(&producers, 0, 9, Fit::Burst);
        assert_eq!((claim.first, claim.count, claim.left), (u32::MAX, 2, 0));
    }
}

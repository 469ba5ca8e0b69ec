//! Slots, which circulate between driver and device.
//!
//! Free and posted slots stand in one circle: those in `next_used..next_avail` are with the device, those from there on, as
//! many as are left, are free. Positions count slots, on for ever.
//!
//! Devices return slots in the order in which they got them. As long as one does, a slot stands where it always stood, and a
//! run of slots is posted or taken back as one ([`run`](Circle::run)).
//!
//! With another [`Order`] than as they came back, free slots are in a pool, and stand in the circle only shortly before they
//! are posted ([`arrange`](Circle::arrange)).

use super::order::{Order, Pool};
use super::ring_config::RingError;

/// The circle, and what each slot says.
#[derive(Debug)]
pub(super) struct Circle {
    slots: u16,
    /// A slot a position; a power of two of them.
    order: Box<[u16]>,
    posted: Box<[bool]>,
    /// Position p holds slot p, modulo their number, as from the start.
    in_place: bool,
    /// The free slots that do not stand in the circle.
    pool: Option<Pool>,
    /// Free slots that stand in the circle, from `next_avail` on, if there is a pool.
    arranged: u16,
    /// Bytes that each slot's descriptors say: header and frame.
    described: Box<[u32]>,
    pub(super) next_avail: u16,
    pub(super) published: u16,
    pub(super) next_used: u16,
}

impl Circle {
    /// `slots` free ones (not 0), of which the first is to be posted at position `base`.
    pub(super) fn new(slots: u16, base: u16, order: Order) -> Self {
        let pool = Pool::new(order, slots);
        let mut circle = Self {
            slots,
            order: vec![0; usize::from(slots).next_power_of_two()].into(),
            posted: vec![false; slots.into()].into(),
            in_place: slots.is_power_of_two() && base.is_multiple_of(slots) && pool.is_none(),
            pool,
            arranged: 0,
            described: vec![0; slots.into()].into(),
            next_avail: base,
            published: base,
            next_used: base,
        };
        for slot in 0..slots {
            match &mut circle.pool {
                Some(pool) => pool.put(slot),
                None => circle.order[usize::from(base.wrapping_add(slot)) & (circle.order.len() - 1)] = slot,
            }
        }
        circle
    }

    /// Has the next `n` free slots stand in the circle; there must be as many.
    #[inline(always)]
    pub(super) fn arrange(&mut self, n: usize) {
        let Some(pool) = &mut self.pool else { return };
        while usize::from(self.arranged) < n {
            let at = usize::from(self.next_avail.wrapping_add(self.arranged)) & (self.order.len() - 1);
            self.order[at] = pool.take();
            self.arranged += 1;
        }
    }

    #[inline(always)]
    fn index(&self, at: u16) -> usize {
        usize::from(at) & (self.order.len() - 1)
    }

    /// The slot that stands at position `at`.
    #[inline(always)]
    pub(super) fn slot_at(&self, at: u16) -> u16 {
        self.order[self.index(at)]
    }

    /// Slots with the device.
    #[inline(always)]
    pub(super) fn in_flight(&self) -> u16 {
        self.next_avail.wrapping_sub(self.next_used)
    }

    /// All slots.
    #[inline(always)]
    pub(super) fn slots(&self) -> u16 {
        self.slots
    }

    /// Bytes that a slot's descriptors say.
    #[inline(always)]
    pub(super) fn described(&self, slot: u16) -> u32 {
        self.described[usize::from(slot)]
    }

    pub(super) fn describe(&mut self, slot: u16, bytes: u32) {
        debug_assert!(!self.posted[usize::from(slot)]);
        self.described[usize::from(slot)] = bytes;
    }

    /// The next free slot, which is now posted.
    #[inline(always)]
    pub(super) fn post(&mut self, slot: u16) {
        self.posted[usize::from(slot)] = true;
        self.next_avail = self.next_avail.wrapping_add(1);
        self.arranged = self.arranged.saturating_sub(1);
    }

    /// Whether a number that the device returned is that of a posted slot.
    #[inline(always)]
    pub(super) fn is_posted(&self, id: u32) -> bool {
        self.posted.get(id as usize).is_some_and(|&posted| posted)
    }

    /// A posted slot is seen to be back; it is not free yet.
    #[inline(always)]
    pub(super) fn unpost(&mut self, slot: u16) {
        self.posted[usize::from(slot)] = false;
    }

    /// The slot is free, as the one posted longest.
    #[inline(always)]
    pub(super) fn release(&mut self, slot: u16) {
        self.posted[usize::from(slot)] = false;
        if let Some(pool) = &mut self.pool {
            pool.put(slot);
            self.next_used = self.next_used.wrapping_add(1);
            return;
        }
        // Behind all that are free.
        let at = self.index(self.next_used.wrapping_add(self.slots));
        self.in_place &= self.order[at] == slot;
        self.order[at] = slot;
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// The slots from position `at` on, up to `most` and to the last one, if all slots are in their places: the first one's
    /// number, and how many.
    #[inline(always)]
    pub(super) fn run(&self, at: u16, most: usize) -> Option<(u16, usize)> {
        let first = at & (self.slots - 1);
        self.in_place.then(|| (first, most.min(usize::from(self.slots - first))))
    }

    /// Posts a run of free slots.
    #[inline(always)]
    pub(super) fn post_run(&mut self, first: u16, n: usize) {
        self.posted[usize::from(first)..][..n].fill(true);
        self.next_avail = self.next_avail.wrapping_add(n as u16);
    }

    /// Takes back a run of posted slots: they stay where they are.
    #[inline(always)]
    pub(super) fn release_run(&mut self, first: u16, n: usize) {
        self.posted[usize::from(first)..][..n].fill(false);
        self.next_used = self.next_used.wrapping_add(n as u16);
    }

    /// §2.7.9, §2.8.9: with IN_ORDER one used descriptor may stand for a batch: it names the batch's last slot, and those
    /// before it count as used whole. How many those are, from position `at` on, of which `most` can be there.
    pub(super) fn skipped(&self, at: u16, most: u16, named: u16) -> Result<u16, RingError> {
        let found = (0..most).find(|&i| self.slot_at(at.wrapping_add(i)) == named);
        found.ok_or(RingError::UsedId { at, id: named.into() })
    }
}

//! Slots on a split ring: a slot's descriptors are written once, and stand where they are. A device that returns slots in
//! order (as all do) finds the available ring as it left it: only the index moves. One that doesn't is followed entry by
//! entry.

use super::circle::Circle;
use super::ram::GuestRam;
use super::ring_config::{RingConfig, RingConfigError, RingError, pieces_of};
use super::slots::Slots;
use super::split::SplitRing;
use crate::wire::net::{F_EVENT_IDX, F_IN_ORDER};
use crate::wire::ring::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, DESC_F_NEXT, Desc, MAX_SIZE, USED_F_NO_NOTIFY, need_event,
};

#[derive(Debug)]
pub(super) struct SplitQueue {
    pub(super) ring: SplitRing,
    /// Descriptors a slot: 1 << shift.
    shift: u32,
    /// The available ring's entries as they stand in memory.
    entries: Box<[u16]>,
    /// They are as they were written at the start.
    entries_in_place: bool,
    /// End and last length of a batch that one used entry stands for (IN_ORDER).
    batch: Option<(u16, u32)>,
    event_idx: bool,
    in_order: bool,
    /// used_event as it stands in memory.
    used_event: u16,
}

impl SplitQueue {
    /// A ring in `ram`, and how many slots go with it.
    pub(super) fn alloc(ram: &GuestRam, config: &RingConfig) -> Result<(Self, u16), RingConfigError> {
        let size = config.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingConfigError::Size(size));
        }
        let pieces = pieces_of(*config)?;
        let descs = if config.indirect { 1 } else { pieces.next_power_of_two() };
        if descs > usize::from(size) {
            return Err(RingConfigError::Pieces { pieces, size });
        }
        let shift = descs.trailing_zeros();
        let slots = size >> shift;
        let ring = SplitRing::alloc(ram, size)?;
        let entries: Box<[u16]> = (0..size).map(|at| (at & (slots - 1)) << shift).collect();
        (0..size).zip(&entries).for_each(|(at, &entry)| ring.set_avail_entry(at, entry));
        ring.set_used_idx(config.base);
        ring.set_avail_idx(config.base);
        let has = |feature| config.features & feature != 0;
        let (event_idx, in_order) = (has(F_EVENT_IDX), has(F_IN_ORDER));
        Ok((
            Self {
                ring,
                shift,
                entries,
                entries_in_place: true,
                batch: None,
                event_idx,
                in_order,
                used_event: 0,
            },
            slots,
        ))
    }

    /// Writes a slot's descriptors.
    pub(super) fn describe(&self, slots: &Slots, slot: u16, bytes: u32) {
        let head = slot << self.shift;
        let desc = |i: u16, addr, len, more, first: u16| {
            let (flags, next) = if more { (DESC_F_NEXT, first + i + 1) } else { (0, 0) };
            Desc { addr, len, flags: slots.direction | flags, next }
        };
        let table = slots.write_table(slot, bytes, |i, piece| {
            let desc = desc(i, piece.addr, piece.len, piece.more, 0);
            (desc.addr, desc.rest_word())
        });
        if let Some((addr, len)) = table {
            self.ring.set_desc(head, Desc { addr, len, flags: DESC_F_INDIRECT, next: 0 });
            return;
        }
        for (i, piece) in (0..).zip(slots.pieces(slot, bytes)) {
            self.ring.set_desc(head + i, desc(i, piece.addr, piece.len, piece.more, head));
        }
    }

    #[inline(always)]
    pub(super) fn stage(&mut self, at: u16, slot: u16) {
        let head = slot << self.shift;
        let entry = usize::from(at & (self.ring.size() - 1));
        if self.entries[entry] != head {
            self.entries[entry] = head;
            self.entries_in_place = false;
            self.ring.set_avail_entry(at, head);
        }
    }

    /// Whether slots in their places find their available entries as they have to be.
    #[inline(always)]
    pub(super) fn stages_itself(&self) -> bool {
        self.entries_in_place
    }

    #[inline(always)]
    pub(super) fn publish(&mut self, circle: &Circle) {
        self.ring.set_avail_idx(circle.next_avail);
        if self.event_idx && circle.next_used.wrapping_sub(self.used_event) > 0x4000 {
            self.silence_calls(circle.next_used);
        }
    }

    #[inline(always)]
    pub(super) fn is_kick_wanted(&self, old: u16, new: u16) -> bool {
        self.ring.fence_before_kick_check();
        if self.event_idx {
            need_event(self.ring.avail_event(), new, old)
        } else {
            self.ring.used_flags() & USED_F_NO_NOTIFY == 0
        }
    }

    /// How many slots came back.
    #[inline(always)]
    pub(super) fn ready(&self, circle: &Circle) -> Result<u16, RingError> {
        let (idx, next) = (self.ring.used_idx(), circle.next_used);
        let (ready, posted) = (idx.wrapping_sub(next), circle.published.wrapping_sub(next));
        if ready > posted { Err(RingError::UsedIdx { idx, next, posted }) } else { Ok(ready) }
    }

    #[inline(always)]
    pub(super) fn take_back(
        &mut self,
        circle: &mut Circle,
        ready: u16,
        with_len: bool,
    ) -> Result<(u16, u32), RingError> {
        if self.in_order {
            return self.take_back_in_order(circle, ready);
        }
        let at = circle.next_used;
        let id = self.ring.used_id(at);
        let len = if with_len { self.ring.used_len(at) } else { 0 };
        let slot = self.slot_of(circle, at, id)?;
        circle.release(slot);
        Ok((slot, len))
    }

    /// Whether the used entry at position `at` is `slot`'s.
    #[inline(always)]
    pub(super) fn is_back(&self, at: u16, slot: u16) -> bool {
        self.ring.used_id(at) == u32::from(slot) << self.shift
    }

    /// Whether no batch is at hand, whose one used entry stands for several slots.
    #[inline(always)]
    pub(super) fn is_between_batches(&self) -> bool {
        self.batch.is_none()
    }

    /// The posted slot that a used entry names.
    #[inline(always)]
    fn slot_of(&self, circle: &Circle, at: u16, id: u32) -> Result<u16, RingError> {
        let slot = id >> self.shift;
        if slot << self.shift != id || !circle.is_posted(slot) {
            return Err(RingError::UsedId { at, id });
        }
        Ok(slot as u16)
    }

    /// A batch's one used entry stands at its first position.
    fn take_back_in_order(&mut self, circle: &mut Circle, ready: u16) -> Result<(u16, u32), RingError> {
        let at = circle.next_used;
        let (end, last_len) = match self.batch {
            Some(batch) => batch,
            None => {
                let (id, len) = (self.ring.used_id(at), self.ring.used_len(at));
                let named = self.slot_of(circle, at, id)?;
                let skipped = circle.skipped(at, ready, named).map_err(|_| RingError::UsedId { at, id })?;
                (at.wrapping_add(skipped), len)
            }
        };
        self.batch = if at == end { None } else { Some((end, last_len)) };
        let slot = circle.slot_at(at);
        let len = if at == end { last_len } else { circle.described(slot) };
        circle.release(slot);
        Ok((slot, len))
    }

    /// Asks for no calls: this driver polls.
    #[cold]
    pub(super) fn silence_calls(&mut self, next_used: u16) {
        if self.event_idx {
            // Behind what the device will write next: it has 65,536 entries to go until it gets there.
            self.used_event = next_used.wrapping_sub(1);
            self.ring.set_used_event(self.used_event);
        } else {
            self.ring.set_avail_flags(AVAIL_F_NO_INTERRUPT);
        }
    }

    /// Asks for a call at the next used entry.
    pub(super) fn ask_for_call(&self, next_used: u16) {
        if self.event_idx {
            self.ring.set_used_event(next_used);
        } else {
            self.ring.set_avail_flags(0);
        }
        self.ring.fence_after_arming();
    }

    /// Whether something came back that was not taken yet.
    pub(super) fn is_anything_back(&self, next_used: u16) -> bool {
        self.ring.used_idx() != next_used
    }
}

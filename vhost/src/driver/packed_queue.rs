//! Slots on a packed ring: a slot's number is its buffer's id, and its descriptors are written each time, wherever the ring
//! is then. Used descriptors are read once, as they come.

use super::circle::Circle;
use super::packed::PackedRing;
use super::ram::GuestRam;
use super::ring_config::{RingConfig, RingConfigError, RingError, pieces_of};
use super::slots::Slots;
use crate::wire::net::{F_EVENT_IDX, F_IN_ORDER};
use crate::wire::packed::{
    DESC_F_AVAIL, DESC_F_USED, EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, PackedDesc, Position,
    need_event,
};
use crate::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, MAX_SIZE};

#[derive(Debug)]
pub(super) struct PackedQueue {
    pub(super) ring: PackedRing,
    start: Position,
    /// Where the next descriptor is written.
    next: Position,
    /// Position and flags of the first descriptor that was staged; the device sees none of them before these flags.
    first: Option<(u16, u16)>,
    /// Descriptors written since the device was asked whether it wants a kick.
    moved: u32,
    /// Where the next used descriptor is due.
    due: Position,
    /// Each slot takes one descriptor: as long as slots are in their places, a slot's number is its descriptor's position.
    one_each: bool,
    /// Descriptors that each slot took when it was posted.
    descs: Box<[u16]>,
    /// Slots that came back and were not taken yet, with the bytes used, at the positions of the circle.
    back: Box<[(u16, u32)]>,
    /// The position before which all have come back.
    seen: u16,
    event_idx: bool,
    in_order: bool,
}

impl PackedQueue {
    /// A ring in `ram`, and how many slots go with it.
    pub(super) fn alloc(ram: &GuestRam, config: &RingConfig) -> Result<(Self, u16), RingConfigError> {
        let size = config.size;
        if size == 0 || size > MAX_SIZE {
            return Err(RingConfigError::Size(size));
        }
        let pieces = pieces_of(*config)?;
        let descs = if config.indirect { 1 } else { pieces };
        if descs > usize::from(size) {
            return Err(RingConfigError::Pieces { pieces, size });
        }
        let slots = size / descs as u16;
        let behind = u32::from(config.base) % (2 * u32::from(size));
        let wrap = behind < u32::from(size);
        let start = Position { at: (behind % u32::from(size)) as u16, wrap };
        let ring = PackedRing::alloc(ram, size)?;
        ring.reset(start);
        let has = |feature| config.features & feature != 0;
        let queue = Self {
            ring,
            start,
            next: start,
            first: None,
            moved: 0,
            due: start,
            descs: vec![1; slots.into()].into(),
            one_each: descs == 1 && !config.indirect,
            back: vec![(0, 0); usize::from(slots).next_power_of_two()].into(),
            seen: config.base,
            event_idx: has(F_EVENT_IDX),
            in_order: has(F_IN_ORDER),
        };
        Ok((queue, slots))
    }

    /// What SET_VRING_BASE is to say.
    pub(super) fn base(&self) -> u32 {
        self.start.base()
    }

    /// Writes a slot's table, if it has one. All else is written when it is posted.
    pub(super) fn describe(slots: &Slots, slot: u16, bytes: u32) {
        slots.write_table(slot, bytes, |i, piece| {
            let desc = PackedDesc { addr: piece.addr, len: piece.len, id: i, flags: slots.direction };
            (desc.addr, desc.rest_word())
        });
    }

    #[inline(always)]
    pub(super) fn stage(&mut self, slots: &Slots, slot: u16, bytes: u32) {
        if slots.is_whole(bytes) {
            self.write(slots.addr(slot), bytes, slot, slots.direction);
            self.descs[usize::from(slot)] = 1;
        } else {
            self.stage_pieces(slots, slot, bytes);
        }
    }

    #[cold]
    fn stage_pieces(&mut self, slots: &Slots, slot: u16, bytes: u32) {
        let mut descs = 0;
        if let Some((addr, len)) = slots.table(slot, bytes) {
            self.write(addr, len, slot, DESC_F_INDIRECT);
            descs = 1;
        } else {
            for piece in slots.pieces(slot, bytes) {
                let more = if piece.more { DESC_F_NEXT } else { 0 };
                self.write(piece.addr, piece.len, slot, slots.direction | more);
                descs += 1;
            }
        }
        self.descs[usize::from(slot)] = descs;
    }

    /// Writes the next descriptor. If it is the first that is staged, its flags wait.
    #[inline(always)]
    fn write(&mut self, addr: u64, len: u32, id: u16, flags: u16) {
        let flags = flags | self.next.available_flags();
        let desc = PackedDesc { addr, len, id, flags };
        if self.first.is_none() {
            self.ring.set_desc_but_flags(self.next.at, desc);
            self.first = Some((self.next.at, flags));
        } else {
            self.ring.set_desc(self.next.at, desc);
        }
        self.next = self.next.after(1, self.ring.size());
        self.moved = self.moved.saturating_add(1);
    }

    #[inline(always)]
    pub(super) fn publish(&mut self) {
        if let Some((at, flags)) = self.first.take() {
            self.ring.set_flags(at, flags);
        }
    }

    #[inline(always)]
    pub(super) fn is_kick_wanted(&mut self) -> bool {
        self.ring.fence_before_kick_check();
        let moved = core::mem::take(&mut self.moved);
        match self.ring.device_event() {
            (EVENT_F_DISABLE, _) => false,
            (EVENT_F_DESC, event) if self.event_idx => need_event(event, self.next, moved, self.ring.size()),
            _ => true,
        }
    }

    /// How many slots came back.
    #[inline(always)]
    pub(super) fn ready(&mut self, circle: &mut Circle) -> Result<u16, RingError> {
        let run = self.ready_run(circle);
        if run > 0 {
            return Ok(run);
        }
        while self.seen != circle.published && self.is_used() {
            self.see(circle)?;
        }
        Ok(self.seen.wrapping_sub(circle.next_used))
    }

    /// How many slots came back in a row, each in its place.
    #[inline(always)]
    fn ready_run(&self, circle: &Circle) -> u16 {
        let posted = circle.published.wrapping_sub(circle.next_used);
        let Some((first, n)) = circle.run(circle.next_used, posted.into()) else { return 0 };
        if !self.gives_run_at(circle, first) {
            return 0;
        }
        let back =
            |first, n, due| (first..).take(n).take_while(|&slot| self.back_at(slot, due).is_some()).count();
        let (rest, mut ready) = (usize::from(posted) - n, back(first, n, self.due));
        if ready == n && rest > 0 {
            ready += back(0, rest, self.due.after(n as u16, self.ring.size()));
        }
        ready as u16
    }

    /// Whether `slot`'s descriptor is the next one to be written, and each slot's descriptor stands where its number says.
    #[inline(always)]
    pub(super) fn takes_run_at(&self, slot: u16) -> bool {
        self.one_each && self.next.at == slot
    }

    /// Whether `slot`'s descriptor is the next one to come back, and all that came back before was taken.
    #[inline(always)]
    pub(super) fn gives_run_at(&self, circle: &Circle, slot: u16) -> bool {
        self.one_each && self.due.at == slot && self.seen == circle.next_used
    }

    /// The bytes used of `slot`, if it came back by itself, in its place of a run that stands at `due`.
    #[inline(always)]
    pub(super) fn back_at(&self, slot: u16, due: Position) -> Option<u32> {
        let used = self.ring.flags(slot) & (DESC_F_AVAIL | DESC_F_USED) == due.used_flags();
        let (id, len) = self.ring.id_and_len(slot);
        (used && id == slot).then_some(len)
    }

    /// Where the next used descriptor is due.
    #[inline(always)]
    pub(super) fn due(&self) -> Position {
        self.due
    }

    /// Passes over so many of a run, which were taken.
    #[inline(always)]
    pub(super) fn pass(&mut self, n: u16) {
        self.seen = self.seen.wrapping_add(n);
        self.due = self.due.after(n, self.ring.size());
    }

    /// Writes the descriptors of a run, which [`takes_run_at`](Self::takes_run_at) its first slot.
    #[inline(always)]
    pub(super) fn stage_run(&mut self, slots: &Slots, circle: &Circle, first: u16, n: u16) {
        let flags = slots.direction | self.next.available_flags();
        let desc = |slot| PackedDesc { addr: slots.addr(slot), len: circle.described(slot), id: slot, flags };
        let mut rest = first..first + n;
        if self.first.is_none() {
            self.ring.set_desc_but_flags(first, desc(first));
            self.first = Some((first, flags));
            rest.start += 1;
        }
        rest.for_each(|slot| self.ring.set_desc(slot, desc(slot)));
        self.next = self.next.after(n, self.ring.size());
        self.moved = self.moved.saturating_add(u32::from(n));
    }

    #[inline(always)]
    fn is_used(&self) -> bool {
        self.ring.flags(self.due.at) & (DESC_F_AVAIL | DESC_F_USED) == self.due.used_flags()
    }

    /// Reads the used descriptor that is there: one slot, or all of a batch.
    #[inline(always)]
    fn see(&mut self, circle: &mut Circle) -> Result<(), RingError> {
        let (id, len) = self.ring.id_and_len(self.due.at);
        if !circle.is_posted(id.into()) {
            return Err(RingError::UsedId { at: self.seen, id: id.into() });
        }
        if self.in_order {
            let skipped = circle.skipped(self.seen, circle.published.wrapping_sub(self.seen), id)?;
            for _ in 0..skipped {
                let slot = circle.slot_at(self.seen);
                self.note(circle, slot, circle.described(slot));
            }
        }
        self.note(circle, id, len);
        Ok(())
    }

    #[inline(always)]
    fn note(&mut self, circle: &mut Circle, slot: u16, len: u32) {
        circle.unpost(slot);
        let at = usize::from(self.seen) & (self.back.len() - 1);
        self.back[at] = (slot, len);
        self.seen = self.seen.wrapping_add(1);
        self.due = self.due.after(self.descs[usize::from(slot)], self.ring.size());
    }

    #[inline(always)]
    pub(super) fn take_back(&mut self, circle: &mut Circle) -> Result<(u16, u32), RingError> {
        if self.seen == circle.next_used {
            self.see(circle)?;
        }
        let (slot, len) = self.back[usize::from(circle.next_used) & (self.back.len() - 1)];
        circle.release(slot);
        Ok((slot, len))
    }

    /// Asks for no calls: this driver polls.
    pub(super) fn silence_calls(&self) {
        self.ring.set_driver_event(EVENT_F_DISABLE, self.due);
    }

    /// Asks for a call at the next used descriptor.
    pub(super) fn ask_for_call(&self) {
        let how = if self.event_idx { EVENT_F_DESC } else { EVENT_F_ENABLE };
        self.ring.set_driver_event(how, self.due);
        self.ring.fence_after_arming();
    }

    /// Whether something came back that was not taken yet.
    pub(super) fn is_anything_back(&self, next_used: u16) -> bool {
        self.seen != next_used || self.is_used()
    }
}

//! What both of a driver's rings are made of: slots, which circulate between driver and device.
//!
//! A slot is one buffer and the descriptors that name it, written once. Free and posted slots stand in one circle,
//! `order`: those in `next_used..next_avail` are with the device, the others are free. A device that returns them in order
//! (as all do) finds the available ring as it left it: only the index moves. One that doesn't is followed entry by entry.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use super::ram::{GuestRam, RamError, Span};
use super::split::SplitRing;
use crate::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, hdr_len};
use crate::wire::ring::{
    AVAIL_F_NO_INTERRUPT, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, Desc, MAX_SIZE,
    USED_F_NO_NOTIFY, need_event,
};

/// Into which pieces a slot's buffer (header, then frame) is cut: a descriptor each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// All in one.
    #[default]
    Whole,
    /// The header, and the frame.
    HeaderApart,
    /// A piece of `first` bytes, then pieces of `rest` bytes; neither may be 0.
    Pieces {
        /// Bytes of the first.
        first: u32,
        /// Bytes of each other.
        rest: u32,
    },
}

impl Cut {
    const fn sizes(self, hdr_len: u32) -> (u32, u32) {
        match self {
            Self::Whole => (u32::MAX, u32::MAX),
            Self::HeaderApart => (hdr_len, u32::MAX),
            Self::Pieces { first, rest } => (first, rest),
        }
    }
}

/// When to kick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kicks {
    /// When the device asks for it (§2.7.10): a fence and a look at its wish each time something is published.
    #[default]
    AsAsked,
    /// Never: for a device that polls, and figures that count each cycle.
    Never,
    /// Each time.
    Always,
}

/// What a ring is to be.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Descriptors: a power of two, 1 to 32,768.
    pub size: u16,
    /// Bytes of each slot's buffer, the virtio-net header included.
    pub buffer_bytes: u32,
    /// How the buffer is cut into descriptors. With k pieces and no indirect tables a ring has size / k slots, k rounded
    /// up to a power of two.
    pub cut: Cut,
    /// The pieces stand in an indirect table (§2.7.5.3). Takes F_INDIRECT_DESC.
    pub indirect: bool,
    /// The first available and used position (SET_VRING_BASE).
    pub base: u16,
    /// When to kick.
    pub kicks: Kicks,
    /// Negotiated features.
    pub features: u64,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            size: 256,
            buffer_bytes: 2048,
            cut: Cut::Whole,
            indirect: false,
            base: 0,
            kicks: Kicks::AsAsked,
            features: 0,
        }
    }
}

/// Why a ring cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RingConfigError {
    /// No split ring has this size.
    #[error("ring size {0}: a power of two from 1 to 32768 is needed")]
    Size(u16),
    /// The pieces of one buffer don't fit.
    #[error(
        "a buffer of {pieces} descriptors does not fit into a ring of {size}: larger pieces, a larger ring or indirect tables are needed"
    )]
    Pieces {
        /// Descriptors of one buffer.
        pieces: usize,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A piece, or what is left after the header, would be empty.
    #[error(
        "buffers of {buffer_bytes} bytes cut as {cut:?}: no piece may be empty, and a header of {hdr_len} must fit with room to spare"
    )]
    Empty {
        /// As asked.
        buffer_bytes: u32,
        /// As asked.
        cut: Cut,
        /// By the features.
        hdr_len: usize,
    },
    /// Indirect tables without the feature.
    #[error("indirect tables take the feature INDIRECT_DESC, which was not negotiated")]
    Indirect,
    /// No room.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// No eventfd.
    #[error("eventfd: {0}")]
    Eventfd(#[source] std::io::Error),
}

/// What a device did that no device may. Latched: the ring answers nothing else from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// used.idx moved past what was posted.
    #[error("used.idx is {idx}: {posted} slots were posted from {next} on")]
    UsedIdx {
        /// What it is.
        idx: u16,
        /// Where it was.
        next: u16,
        /// Most that it could have moved.
        posted: u16,
    },
    /// A used entry names no posted slot: made up, or returned twice.
    #[error("used entry at {at} returns {id}, which is not posted")]
    UsedId {
        /// The entry's position.
        at: u16,
        /// What it names.
        id: u32,
    },
    /// More bytes used than the buffer has, or less than a header.
    #[error("used entry at {at} says {len} bytes of a buffer of {room}")]
    UsedLen {
        /// The entry's position.
        at: u16,
        /// What it says.
        len: u32,
        /// What would have been possible.
        room: u32,
    },
    /// A packet says more buffers than were returned with it, or none.
    #[error("packet at {at} says {num_buffers} buffers, {there} are there")]
    NumBuffers {
        /// The first entry's position.
        at: u16,
        /// What its header says.
        num_buffers: u16,
        /// Used entries from there on.
        there: u16,
    },
}

/// The state behind a [`TxRing`](super::TxRing) or an [`RxRing`](super::RxRing).
#[derive(Debug)]
pub struct Queue {
    ring: SplitRing,
    /// All slots' buffers, `stride` apart.
    pub(super) buffers: Span,
    /// All slots' indirect tables.
    tables: Option<Span>,
    config: RingConfig,
    pub(super) hdr_len: usize,
    stride: usize,
    /// Descriptors a slot: 1 << shift.
    shift: u32,
    slots: u16,
    /// `DESC_F_WRITE` on a receive ring.
    direction: u16,

    /// The circle of slots.
    order: Box<[u16]>,
    posted: Box<[bool]>,
    /// Bytes that each slot's descriptors say: header and frame.
    described: Box<[u32]>,
    /// The available ring's entries as they stand in memory.
    entries: Box<[u16]>,
    next_avail: u16,
    published: u16,
    next_used: u16,
    /// End and last length of a batch that one used entry stands for (IN_ORDER).
    batch: Option<(u16, u32)>,
    event_idx: bool,
    in_order: bool,
    pub(super) mergeable: bool,
    /// used_event as it stands in memory.
    used_event: u16,
    broken: Option<RingError>,

    kick: OwnedFd,
    call: OwnedFd,
    kicks_sent: u64,
}

/// Which way a queue's buffers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    DeviceReads,
    DeviceWrites,
}

impl Queue {
    pub(super) fn new(
        ram: &GuestRam,
        config: RingConfig,
        direction: Direction,
    ) -> Result<Self, RingConfigError> {
        let size = config.size;
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(RingConfigError::Size(size));
        }
        if config.indirect && config.features & F_INDIRECT_DESC == 0 {
            return Err(RingConfigError::Indirect);
        }
        let pieces = pieces_of(config)?;
        let descs = if config.indirect { 1 } else { pieces.next_power_of_two() };
        if descs > usize::from(size) {
            return Err(RingConfigError::Pieces { pieces, size });
        }
        let shift = descs.trailing_zeros();
        let slots = size >> shift;
        let stride = stride(config.buffer_bytes);
        let ring = SplitRing::alloc(ram, size)?;
        let buffers = ram.alloc(usize::from(slots) * stride, 64)?;
        let tables = match config.indirect {
            true => Some(ram.alloc(usize::from(slots) * pieces * DESC_SIZE, 64)?),
            false => None,
        };
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let has = |feature| config.features & feature != 0;
        let mut queue = Self {
            ring,
            buffers,
            tables,
            config,
            hdr_len: hdr_len(config.features),
            stride,
            shift,
            slots,
            direction: if direction == Direction::DeviceWrites { DESC_F_WRITE } else { 0 },
            order: (0..slots).collect(),
            posted: vec![false; slots.into()].into(),
            described: vec![0; slots.into()].into(),
            entries: (0..size).map(|at| (at & (slots - 1)) << shift).collect(),
            next_avail: config.base,
            published: config.base,
            next_used: config.base,
            batch: None,
            event_idx: has(F_EVENT_IDX),
            in_order: has(F_IN_ORDER),
            mergeable: has(F_MRG_RXBUF),
            used_event: 0,
            broken: None,
            kick: event().map_err(|e| RingConfigError::Eventfd(e.into()))?,
            call: event().map_err(|e| RingConfigError::Eventfd(e.into()))?,
            kicks_sent: 0,
        };
        queue.lay_out();
        Ok(queue)
    }

    /// Writes everything that stays: addresses, entries, indices.
    fn lay_out(&mut self) {
        for at in 0..self.config.size {
            self.ring.set_avail_entry(at, self.entries[usize::from(at)]);
        }
        for slot in 0..self.slots {
            self.describe(slot, self.config.buffer_bytes);
        }
        self.ring.set_used_idx(self.config.base);
        self.ring.set_avail_idx(self.config.base);
        self.silence_calls();
    }

    /// The slot's descriptors from now on say `bytes`: header and frame. Not of a posted slot.
    #[cold]
    pub(super) fn describe(&mut self, slot: u16, bytes: u32) {
        debug_assert!(!self.posted[usize::from(slot)] && bytes <= self.config.buffer_bytes);
        self.described[usize::from(slot)] = bytes;
        let buffer = self.buffers.gpa() + self.buffer(slot) as u64;
        let (first, rest) = self.config.cut.sizes(self.hdr_len as u32);
        let head = slot << self.shift;
        let (mut done, mut i) = (0, 0u16);
        while done < bytes {
            let len = if i == 0 { first } else { rest }.min(bytes - done);
            let more = if done + len < bytes { DESC_F_NEXT } else { 0 };
            let next = if more == 0 { 0 } else { i + 1 };
            let desc = Desc { addr: buffer + u64::from(done), len, flags: self.direction | more, next };
            self.set_piece(slot, i, desc);
            (done, i) = (done + len, i + 1);
        }
        if let Some(tables) = &self.tables {
            let addr = tables.gpa() + self.table(slot) as u64;
            let len = u32::from(i) * DESC_SIZE as u32;
            self.ring.set_desc(head, Desc { addr, len, flags: DESC_F_INDIRECT, next: 0 });
        }
    }

    /// Writes piece `i` of a slot, whose `next` counts from the slot's first.
    fn set_piece(&self, slot: u16, i: u16, desc: Desc) {
        match &self.tables {
            Some(tables) => {
                let at = self.table(slot) + usize::from(i) * DESC_SIZE;
                tables.store_u64(at, desc.addr);
                tables.store_u64(at + 8, desc.rest_word());
            }
            None => {
                let head = slot << self.shift;
                let next = if desc.flags & DESC_F_NEXT != 0 { head + desc.next } else { 0 };
                self.ring.set_desc(head + i, Desc { next, ..desc });
            }
        }
    }

    /// Where a slot's indirect table starts in `tables`.
    fn table(&self, slot: u16) -> usize {
        let tables = self.tables.as_ref().map_or(0, Span::len);
        usize::from(slot) * (tables / usize::from(self.slots))
    }

    /// Where a slot's buffer starts in `buffers`.
    #[inline(always)]
    pub(super) fn buffer(&self, slot: u16) -> usize {
        usize::from(slot) * self.stride
    }

    /// Bytes that a slot's descriptors say.
    #[inline(always)]
    pub(super) fn described(&self, slot: u16) -> u32 {
        self.described[usize::from(slot)]
    }

    #[inline(always)]
    fn circle(&self, at: u16) -> usize {
        usize::from(at & (self.slots - 1))
    }

    /// The slot that stands at position `at` of the circle.
    #[inline(always)]
    pub(super) fn slot_at(&self, at: u16) -> u16 {
        self.order[self.circle(at)]
    }

    /// Slots with the device.
    #[inline(always)]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::from(self.next_avail.wrapping_sub(self.next_used))
    }

    /// Free slots.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        usize::from(self.slots) - self.in_flight()
    }

    /// All slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.into()
    }

    /// The next position to post at.
    #[inline(always)]
    #[must_use]
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// The next position to take back from.
    #[inline(always)]
    #[must_use]
    pub fn next_used(&self) -> u16 {
        self.next_used
    }

    /// The ring in memory.
    #[must_use]
    pub fn ring(&self) -> &SplitRing {
        &self.ring
    }

    /// What it was made of.
    #[must_use]
    pub fn config(&self) -> &RingConfig {
        &self.config
    }

    /// The device is kicked here.
    #[must_use]
    pub fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The device calls here.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Kicks sent so far.
    #[must_use]
    pub fn kicks_sent(&self) -> u64 {
        self.kicks_sent
    }

    /// Stages the next free slot; there must be one. It is with the device once published.
    #[inline(always)]
    pub(super) fn stage(&mut self, slot: u16) {
        let at = self.next_avail;
        self.posted[usize::from(slot)] = true;
        let head = slot << self.shift;
        let entry = usize::from(at & (self.config.size - 1));
        if self.entries[entry] != head {
            self.entries[entry] = head;
            self.ring.set_avail_entry(at, head);
        }
        self.next_avail = at.wrapping_add(1);
    }

    /// Publishes what was staged, and kicks if the device asks for it. Returns whether it kicked.
    #[inline(always)]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_avail);
        if old == new {
            return false;
        }
        self.ring.set_avail_idx(new);
        self.published = new;
        if self.event_idx && self.next_used.wrapping_sub(self.used_event) > 0x4000 {
            self.silence_calls();
        }
        let kick = match self.config.kicks {
            Kicks::Never => false,
            Kicks::Always => true,
            Kicks::AsAsked => self.is_kick_wanted(old, new),
        };
        if kick {
            self.kick();
        }
        kick
    }

    #[inline(always)]
    fn is_kick_wanted(&self, old: u16, new: u16) -> bool {
        self.ring.fence_before_kick_check();
        if self.event_idx {
            need_event(self.ring.avail_event(), new, old)
        } else {
            self.ring.used_flags() & USED_F_NO_NOTIFY == 0
        }
    }

    /// Kicks, asked or not.
    #[cold]
    pub fn kick(&mut self) {
        self.kicks_sent += 1;
        // EAGAIN: the counter is full, so the device has been told often enough.
        let _ = write(&self.kick, &1u64.to_ne_bytes());
    }

    /// How many slots came back.
    #[inline(always)]
    pub(super) fn ready(&mut self) -> Result<u16, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let (idx, next) = (self.ring.used_idx(), self.next_used);
        let (ready, posted) = (idx.wrapping_sub(next), self.published.wrapping_sub(next));
        if ready > posted {
            return Err(self.latch(RingError::UsedIdx { idx, next, posted }));
        }
        Ok(ready)
    }

    /// Takes back the next slot of the used ring, which must be one of `ready`, and says how many bytes the device used if
    /// `with_len`.
    #[inline(always)]
    pub(super) fn take_back(&mut self, ready: u16, with_len: bool) -> Result<(u16, u32), RingError> {
        if self.in_order {
            return self.take_back_in_order(ready);
        }
        let at = self.next_used;
        let id = self.ring.used_id(at);
        let len = if with_len { self.ring.used_len(at) } else { 0 };
        let slot = self.slot_of(at, id)?;
        let circle = self.circle(at);
        self.order[circle] = slot;
        self.release(slot);
        Ok((slot, len))
    }

    /// The posted slot that a used entry names.
    #[inline(always)]
    fn slot_of(&mut self, at: u16, id: u32) -> Result<u16, RingError> {
        let slot = id >> self.shift;
        if slot << self.shift != id || !self.posted.get(slot as usize).is_some_and(|&posted| posted) {
            return Err(self.latch(RingError::UsedId { at, id }));
        }
        Ok(slot as u16)
    }

    #[inline(always)]
    fn release(&mut self, slot: u16) {
        self.posted[usize::from(slot)] = false;
        self.next_used = self.next_used.wrapping_add(1);
    }

    /// §2.7.9: one used entry may stand for a batch: it stands at the batch's first position, names its last slot, and the
    /// slots before that one count as used whole.
    fn take_back_in_order(&mut self, ready: u16) -> Result<(u16, u32), RingError> {
        let at = self.next_used;
        let (end, last_len) = match self.batch {
            Some(batch) => batch,
            None => {
                let (id, len) = (self.ring.used_id(at), self.ring.used_len(at));
                let named = self.slot_of(at, id)?;
                let Some(skipped) = (0..ready).find(|&i| self.slot_at(at.wrapping_add(i)) == named) else {
                    return Err(self.latch(RingError::UsedId { at, id }));
                };
                (at.wrapping_add(skipped), len)
            }
        };
        self.batch = if at == end { None } else { Some((end, last_len)) };
        let slot = self.slot_at(at);
        let len = if at == end { last_len } else { self.described(slot) };
        self.release(slot);
        Ok((slot, len))
    }

    #[cold]
    pub(super) fn latch(&mut self, error: RingError) -> RingError {
        *self.broken.get_or_insert(error)
    }

    /// Asks for no calls: this driver polls.
    #[cold]
    fn silence_calls(&mut self) {
        if self.event_idx {
            // Behind what the device will write next: it has 65,536 entries to go until it gets there.
            self.used_event = self.next_used.wrapping_sub(1);
            self.ring.set_used_event(self.used_event);
        } else {
            self.ring.set_avail_flags(AVAIL_F_NO_INTERRUPT);
        }
    }

    /// Asks for a call at the next used entry and waits for it, `timeout` at most. Returns whether there is one, or
    /// whether there was one before.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_used(&mut self, timeout: Duration) -> std::io::Result<bool> {
        if self.event_idx {
            self.ring.set_used_event(self.next_used);
        } else {
            self.ring.set_avail_flags(0);
        }
        self.ring.fence_after_arming();
        let mut there = self.ring.used_idx() != self.next_used;
        if !there && self.wait_call(timeout)? {
            there = self.ring.used_idx() != self.next_used;
        }
        self.silence_calls();
        Ok(there)
    }

    /// Waits for a call, `timeout` at most, and takes all calls that came. Returns whether any did.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_call(&self, timeout: Duration) -> std::io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.call, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => Ok(read(&self.call, &mut [0; 8]).is_ok()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Descriptors of one buffer.
fn pieces_of(config: RingConfig) -> Result<usize, RingConfigError> {
    let hdr_len = hdr_len(config.features);
    let (first, rest) = config.cut.sizes(hdr_len as u32);
    let bytes = config.buffer_bytes;
    if first == 0 || rest == 0 || bytes as usize <= hdr_len {
        return Err(RingConfigError::Empty { buffer_bytes: bytes, cut: config.cut, hdr_len });
    }
    Ok(1 + bytes.saturating_sub(first).div_ceil(rest) as usize)
}

/// Bytes from one buffer to the next: an odd number of cache lines, so that their first lines spread over all of a cache's
/// sets.
const fn stride(buffer_bytes: u32) -> usize {
    (buffer_bytes as usize).div_ceil(64) / 2 * 128 + 64
}

//! What both of a driver's rings are made of: slots, which circulate between driver and device, on a ring of either format.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use super::circle::Circle;
use super::order::Order;
use super::packed::PackedRing;
use super::packed_queue::PackedQueue;
use super::ram::{GuestRam, Span};
use super::ring_config::{Kicks, RingConfig, RingConfigError, RingError};
use super::slots::Slots;
use super::split::SplitRing;
use super::split_queue::SplitQueue;
use crate::wire::message::VringAddr;
use crate::wire::net::{F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_RING_PACKED, hdr_len};
use crate::wire::ring::DESC_F_WRITE;

/// The state behind a [`TxRing`](super::TxRing) or an [`RxRing`](super::RxRing).
#[derive(Debug)]
pub struct Queue {
    ring: Ring,
    slots: Slots,
    circle: Circle,
    config: RingConfig,
    pub(super) hdr_len: usize,
    pub(super) mergeable: bool,
    broken: Option<RingError>,
    kick: OwnedFd,
    call: OwnedFd,
    kicks_sent: u64,
}

/// The ring, of one format or the other.
#[derive(Debug)]
enum Ring {
    Split(SplitQueue),
    Packed(PackedQueue),
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
        if config.indirect && config.features & F_INDIRECT_DESC == 0 {
            return Err(RingConfigError::Indirect);
        }
        if config.order != Order::Same && config.features & F_IN_ORDER != 0 {
            return Err(RingConfigError::Order);
        }
        let (ring, slots) = if config.features & F_RING_PACKED != 0 {
            let (ring, slots) = PackedQueue::alloc(ram, &config)?;
            (Ring::Packed(ring), slots)
        } else {
            let (ring, slots) = SplitQueue::alloc(ram, &config)?;
            (Ring::Split(ring), slots)
        };
        let direction = if direction == Direction::DeviceWrites { DESC_F_WRITE } else { 0 };
        let event = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let mut queue = Self {
            ring,
            slots: Slots::alloc(ram, &config, slots, direction)?,
            circle: Circle::new(slots, config.base, config.order),
            config,
            hdr_len: hdr_len(config.features),
            mergeable: config.features & F_MRG_RXBUF != 0,
            broken: None,
            kick: event().map_err(|e| RingConfigError::Eventfd(e.into()))?,
            call: event().map_err(|e| RingConfigError::Eventfd(e.into()))?,
            kicks_sent: 0,
        };
        (0..slots).for_each(|slot| queue.describe(slot, config.buffer_bytes));
        queue.silence_calls();
        Ok(queue)
    }

    /// The slot's descriptors from now on say `bytes`: header and frame. Not of a posted slot.
    #[cold]
    pub(super) fn describe(&mut self, slot: u16, bytes: u32) {
        debug_assert!(bytes <= self.config.buffer_bytes);
        self.circle.describe(slot, bytes);
        match &self.ring {
            Ring::Split(ring) => ring.describe(&self.slots, slot, bytes),
            Ring::Packed(_) => PackedQueue::describe(&self.slots, slot, bytes),
        }
    }

    /// All slots' buffers.
    #[inline(always)]
    pub(super) fn buffers(&self) -> &Span {
        &self.slots.buffers
    }

    /// Where a slot's buffer starts in them.
    #[inline(always)]
    pub(super) fn buffer(&self, slot: u16) -> usize {
        self.slots.buffer(slot)
    }

    /// Bytes that a slot's descriptors say.
    #[inline(always)]
    pub(super) fn described(&self, slot: u16) -> u32 {
        self.circle.described(slot)
    }

    /// The slot that stands at position `at` of the circle.
    #[inline(always)]
    pub(super) fn slot_at(&self, at: u16) -> u16 {
        self.circle.slot_at(at)
    }

    /// Slots with the device.
    #[inline(always)]
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.circle.in_flight().into()
    }

    /// Free slots.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        (self.circle.slots() - self.circle.in_flight()).into()
    }

    /// All slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.circle.slots().into()
    }

    /// The next position to post at, counted in slots.
    #[inline(always)]
    #[must_use]
    pub fn next_avail(&self) -> u16 {
        self.circle.next_avail
    }

    /// The next position to take back from, counted in slots.
    #[inline(always)]
    #[must_use]
    pub fn next_used(&self) -> u16 {
        self.circle.next_used
    }

    /// The ring in memory, if it is a split one.
    #[must_use]
    pub fn split_ring(&self) -> Option<&SplitRing> {
        if let Ring::Split(queue) = &self.ring { Some(&queue.ring) } else { None }
    }

    /// The ring in memory, if it is a packed one.
    #[must_use]
    pub fn packed_ring(&self) -> Option<&PackedRing> {
        if let Ring::Packed(queue) = &self.ring { Some(&queue.ring) } else { None }
    }

    /// What SET_VRING_ADDR is to say of it.
    #[must_use]
    pub fn addr(&self, index: u32) -> VringAddr {
        match &self.ring {
            Ring::Split(queue) => queue.ring.addr(index),
            Ring::Packed(queue) => queue.ring.addr(index),
        }
    }

    /// What SET_VRING_BASE is to say of it.
    #[must_use]
    pub fn base(&self) -> u32 {
        match &self.ring {
            Ring::Split(_) => self.config.base.into(),
            Ring::Packed(queue) => queue.base(),
        }
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
        match &mut self.ring {
            Ring::Split(ring) => ring.stage(self.circle.next_avail, slot),
            Ring::Packed(ring) => ring.stage(&self.slots, slot, self.circle.described(slot)),
        }
        self.circle.post(slot);
    }

    /// Has the next `n` free slots stand at their positions of the circle; there must be as many.
    #[inline(always)]
    pub(super) fn arrange(&mut self, n: usize) {
        self.circle.arrange(n);
    }

    /// Stages the next `n` free slots, each after `touch` has seen it; there must be as many.
    #[inline(always)]
    pub(super) fn stage_next(&mut self, n: usize, mut touch: impl FnMut(&Self, u16)) {
        self.arrange(n);
        let mut left = n;
        while left > 0 {
            let (first, run) = self.free_run(left);
            if run == 0 {
                let slot = self.slot_at(self.circle.next_avail);
                touch(self, slot);
                self.stage(slot);
                left -= 1;
                continue;
            }
            (first..first + run as u16).for_each(|slot| touch(self, slot));
            self.stage_run(first, run);
            left -= run;
        }
    }

    /// A run of up to `most` free slots that need no staging one by one: the first one's number, and how many; none if they
    /// do.
    #[inline(always)]
    fn free_run(&self, most: usize) -> (u16, usize) {
        let run = self.circle.run(self.circle.next_avail, most);
        run.filter(|run| match &self.ring {
            Ring::Split(ring) => ring.stages_itself(),
            Ring::Packed(ring) => ring.takes_run_at(run.0),
        })
        .unwrap_or_default()
    }

    #[inline(always)]
    fn stage_run(&mut self, first: u16, n: usize) {
        if let Ring::Packed(ring) = &mut self.ring {
            ring.stage_run(&self.slots, &self.circle, first, n as u16);
        }
        self.circle.post_run(first, n);
    }

    /// Says that the buffers of the next `n` free slots will be written.
    #[inline(always)]
    pub(super) fn will_fill(&self, n: usize) {
        self.buffers_from(self.circle.next_avail, n).for_each(|buffer| self.slots.buffers.will_write(buffer));
    }

    /// Says that the buffers of the next `n` slots that come back will be read.
    #[inline(always)]
    pub(super) fn will_look_at(&self, n: usize) {
        self.buffers_from(self.circle.next_used, n).for_each(|buffer| self.slots.buffers.will_read(buffer));
    }

    /// Where the buffers start of the `n` slots from position `at` of the circle on.
    #[inline(always)]
    fn buffers_from(&self, at: u16, n: usize) -> impl Iterator<Item = usize> {
        (0..n).map(move |i| self.buffer(self.slot_at(at.wrapping_add(i as u16))))
    }

    /// Takes back slots in a row, `ready` at most, as long as `each` agrees, which gets a slot and, if `with_len`, the bytes
    /// that the device used; returns how many. The rest is for [`take_back`](Self::take_back).
    #[inline(always)]
    pub(super) fn take_run(
        &mut self,
        ready: usize,
        with_len: bool,
        mut each: impl FnMut(&Self, u16, u32) -> bool,
    ) -> usize {
        let at = self.circle.next_used;
        let Some((first, n)) = self.circle.run(at, ready) else { return 0 };
        let slots = (first..).take(n);
        let taken = match &self.ring {
            Ring::Split(ring) if ring.is_between_batches() => slots
                .zip(0u16..)
                .take_while(|&(slot, i)| {
                    let at = at.wrapping_add(i);
                    let len = if with_len { ring.ring.used_len(at) } else { 0 };
                    ring.is_back(at, slot) && each(self, slot, len)
                })
                .count(),
            Ring::Packed(ring) if ring.gives_run_at(&self.circle, first) => {
                let due = ring.due();
                slots
                    .take_while(|&slot| ring.back_at(slot, due).is_some_and(|len| each(self, slot, len)))
                    .count()
            }
            _ => 0,
        };
        if let Ring::Packed(ring) = &mut self.ring {
            ring.pass(taken as u16);
        }
        self.circle.release_run(first, taken);
        taken
    }

    /// Publishes what was staged, and kicks if the device asks for it. Returns whether it kicked.
    #[inline(always)]
    pub(super) fn publish(&mut self) -> bool {
        let (old, new) = (self.circle.published, self.circle.next_avail);
        if old == new {
            return false;
        }
        match &mut self.ring {
            Ring::Split(ring) => ring.publish(&self.circle),
            Ring::Packed(ring) => ring.publish(),
        }
        self.circle.published = new;
        let kick = match self.config.kicks {
            Kicks::Never => false,
            Kicks::Always => true,
            Kicks::AsAsked => match &mut self.ring {
                Ring::Split(ring) => ring.is_kick_wanted(old, new),
                Ring::Packed(ring) => ring.is_kick_wanted(),
            },
        };
        if kick {
            self.kick();
        }
        kick
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
        let ready = match &mut self.ring {
            Ring::Split(ring) => ring.ready(&self.circle),
            Ring::Packed(ring) => ring.ready(&mut self.circle),
        };
        ready.map_err(|error| self.latch(error))
    }

    /// Takes back the next slot that the device returned, which must be one of `ready`, and says how many bytes the device
    /// used if `with_len`.
    #[inline(always)]
    pub(super) fn take_back(&mut self, ready: u16, with_len: bool) -> Result<(u16, u32), RingError> {
        let taken = match &mut self.ring {
            Ring::Split(ring) => ring.take_back(&mut self.circle, ready, with_len),
            Ring::Packed(ring) => ring.take_back(&mut self.circle),
        };
        taken.map_err(|error| self.latch(error))
    }

    #[cold]
    pub(super) fn latch(&mut self, error: RingError) -> RingError {
        *self.broken.get_or_insert(error)
    }

    /// Asks for no calls: this driver polls.
    #[cold]
    fn silence_calls(&mut self) {
        match &mut self.ring {
            Ring::Split(ring) => ring.silence_calls(self.circle.next_used),
            Ring::Packed(ring) => ring.silence_calls(),
        }
    }

    fn is_anything_back(&self) -> bool {
        match &self.ring {
            Ring::Split(ring) => ring.is_anything_back(self.circle.next_used),
            Ring::Packed(ring) => ring.is_anything_back(self.circle.next_used),
        }
    }

    /// Asks for a call at the next used entry and waits for it, `timeout` at most. Returns whether there is one, or
    /// whether there was one before.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait_used(&mut self, timeout: Duration) -> std::io::Result<bool> {
        match &self.ring {
            Ring::Split(ring) => ring.ask_for_call(self.circle.next_used),
            Ring::Packed(ring) => ring.ask_for_call(),
        }
        let mut there = self.is_anything_back();
        if !there && self.wait_call(timeout)? {
            there = self.is_anything_back();
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

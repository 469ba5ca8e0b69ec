//! A packed ring (§2.8): its descriptors in guest memory, the two event suppression structures, and our place in it.
#![expect(unsafe_code, reason = "reads and writes ring memory that the guest shares")]
// UNSAFETY: the three windows were translated with their full length when the ring was set up, and the vring that holds
// this keeps their mappings. Every access below is at a position less than the ring's size: `Position::after` keeps it so.
// What the guest writes is loaded once, by one aligned atomic load a word, and only the copy is used.

use core::num::NonZeroU16;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use std::collections::TryReserveError;

use mbuf::foreign;

use crate::vring::format::{Available, Buffer, Format, Head, Long, Used};
use crate::vring::{Fault, VringSetup, hook, room};
use crate::wire::net;
use crate::wire::packed::{
    DESC_F_AVAIL, DESC_F_USED, DESC_FLAGS_OFFSET, DESC_ID_OFFSET, DESC_LEN_OFFSET, EVENT_F_DESC,
    EVENT_F_DISABLE, EVENT_F_ENABLE, EVENT_F_MASK, EVENT_SIZE, PackedDesc, Position, desc_bytes, need_event,
};
use crate::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc};

/// A packed ring that runs. Everything before `done` is back with the guest.
#[derive(Debug)]
pub(super) struct Packed {
    desc: NonNull<u64>,
    /// What the driver says of calls.
    driver: NonNull<u32>,
    /// What we say of kicks.
    device: NonNull<u32>,
    size: u16,
    done: Position,
    /// Buffers that are filled and not given back yet: unlike a used ring, the descriptors are no place to note them.
    staged: Box<[Staged]>,
    /// A bit for each id that comes back in the burst at hand. Clear between bursts.
    ids: Box<[u64]>,
    /// Descriptors given back since the guest was last asked whether it wants a call.
    moved: u32,
    /// Whether it was asked since the start.
    asked: bool,
    event_idx: bool,
}

/// A buffer on its way back.
#[derive(Clone, Copy, Debug)]
struct Staged {
    buffer: Buffer,
    len: u32,
}

/// A position, and how many descriptors of the round are left from it on. It goes down only, to 0 at the least: what is
/// ahead of the first descriptor that is not given back is never more than the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    position: Position,
    left: u16,
}

// SAFETY: the pointers go into mappings that any thread may use and that the vring keeps; one thread at a time has it.
unsafe impl Send for Packed {}

impl Packed {
    pub(super) fn new(setup: &VringSetup) -> Result<Self, TryReserveError> {
        let (size, done) = (setup.size, Position::of_base(setup.base));
        assert!(setup.desc.len >= desc_bytes(size), "the windows were translated for this size");
        assert!(setup.avail.len >= EVENT_SIZE && setup.used.len >= EVENT_SIZE);
        assert!(size > 0 && done.at < size, "the control plane checks SET_VRING_BASE");
        let ring = Self {
            desc: setup.desc.start.cast(),
            driver: setup.avail.start.cast(),
            device: setup.used.start.cast(),
            size,
            done,
            staged: room::filled(Staged { buffer: Buffer::NONE, len: 0 }, size.into())?,
            ids: room::filled(0, usize::from(size).div_ceil(64))?,
            moved: 0,
            asked: false,
            event_idx: setup.features & net::F_EVENT_IDX != 0,
        };
        ring.disarm();
        Ok(ring)
    }

    /// Says when a kick is wanted (§2.8.10).
    fn ask_for_kick(&self, flags: u16) {
        let word = u32::from(self.done.to_bits()) | u32::from(flags) << 16;
        // SAFETY: the device's event suppression structure, aligned to 4.
        unsafe { AtomicU32::from_ptr(self.device.as_ptr()) }.store(word.to_le(), Ordering::Relaxed);
    }

    /// A private copy of the descriptor at `position`, if it is available. Of its flags are left those that a split
    /// descriptor has, too; its id stands in `next`.
    #[inline(always)]
    fn desc(&self, position: Position) -> Option<Desc> {
        // SAFETY: position.at < size: a descriptor of the ring, which is aligned to 16.
        unsafe {
            let p = self.desc.as_ptr().add(usize::from(position.at) * 2);
            // ORDERING: V1 (Acquire inside), pairs with the driver's store of these flags, after address, length and id.
            let flags = foreign::load_u16_acquire(p.byte_add(DESC_FLAGS_OFFSET).cast());
            if flags & (DESC_F_AVAIL | DESC_F_USED) != position.available_flags() {
                return None;
            }
            // The flags are those that were looked at, not what stands beside the id by now.
            let PackedDesc { addr, len, id, .. } =
                PackedDesc::from_words(foreign::load_u64(p), foreign::load_u64(p.add(1)));
            let flags = flags & (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT);
            hook::read(Desc { addr, len, flags, next: id });
            Some(Desc { addr, len, flags, next: id })
        }
    }

    /// How many of the first `n` staged buffers have ids that did not come before among them.
    fn distinct(&mut self, n: usize) -> usize {
        if are_in_a_row(&self.staged[..n]) {
            return n;
        }
        let mut distinct = n;
        for (i, staged) in self.staged[..n].iter().enumerate() {
            let (word, bit) = word_and_bit(staged.buffer.id);
            if self.ids[word] & bit != 0 {
                distinct = i;
                break;
            }
            self.ids[word] |= bit;
        }
        for staged in &self.staged[..n] {
            self.ids[word_and_bit(staged.buffer.id).0] = 0;
        }
        distinct
    }

    /// Writes a used descriptor. The driver sees it only behind the one that [`write_first`](Self::write_first) writes.
    #[inline(always)]
    fn write_used(&self, position: Position, staged: Staged) {
        let word = used(position, staged).rest_word();
        // SAFETY: the second word of a descriptor of the ring, aligned to 8.
        let to = unsafe { AtomicU64::from_ptr(self.desc.as_ptr().add(usize::from(position.at) * 2 + 1)) };
        to.store(word.to_le(), Ordering::Relaxed);
    }

    /// Writes the used descriptor that the driver is waiting for, its flags last.
    #[inline(always)]
    fn write_first(&self, position: Position, staged: Staged) {
        let PackedDesc { len, id, flags, .. } = used(position, staged);
        // SAFETY: length, id and flags of a descriptor of the ring, each aligned to its size.
        let (to_len, to_id, to_flags) = unsafe {
            let p = self.desc.as_ptr().add(usize::from(position.at) * 2).cast::<u8>();
            (
                AtomicU32::from_ptr(p.add(DESC_LEN_OFFSET).cast()),
                AtomicU16::from_ptr(p.add(DESC_ID_OFFSET).cast()),
                AtomicU16::from_ptr(p.add(DESC_FLAGS_OFFSET).cast()),
            )
        };
        to_len.store(len.to_le(), Ordering::Relaxed);
        to_id.store(id.to_le(), Ordering::Relaxed);
        // ORDERING: V2 Release, pairs with the driver's load of these flags: payload, length, id, and all used descriptors
        // behind this one are written before.
        to_flags.store(flags.to_le(), Ordering::Release);
    }
}

/// The used descriptor of a buffer at `position` (§2.8.8: WRITE says that `len` means something).
#[inline(always)]
fn used(position: Position, Staged { buffer, len }: Staged) -> PackedDesc {
    let written = if len > 0 { DESC_F_WRITE } else { 0 };
    PackedDesc { addr: 0, len, id: buffer.id, flags: position.used_flags() | written }
}

/// Whether ids go up, or down, by equal steps, and so come once each. As drivers hand out ids they mostly do.
#[inline(always)]
fn are_in_a_row(staged: &[Staged]) -> bool {
    let [first, second, ..] = staged else { return true };
    // Ids are less than 2^15: no two steps lead round.
    let step = second.buffer.id.wrapping_sub(first.buffer.id);
    step != 0 && staged.windows(2).all(|two| two[1].buffer.id.wrapping_sub(two[0].buffer.id) == step)
}

#[inline(always)]
fn word_and_bit(id: u16) -> (usize, u64) {
    (usize::from(id / 64), 1 << (id % 64))
}

impl Available for Packed {
    type Place = Place;

    const CHAINS_ARE_RUNS: bool = true;

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn first(&self) -> Place {
        Place { position: self.done, left: self.size }
    }

    #[inline(always)]
    fn beyond(&self, at: Place, slots: u16) -> Place {
        let slots = slots.min(at.left);
        Place { position: at.position.after(slots, self.size), left: at.left - slots }
    }

    fn distance(&self, from: Place, to: Place) -> u16 {
        from.left.saturating_sub(to.left)
    }

    /// Only the descriptors themselves say how many: at most as many as are left of the round.
    #[inline(always)]
    fn ready(&mut self, at: Place, wanted: usize) -> Result<usize, Fault> {
        Ok(wanted.min(at.left.into()))
    }

    /// They stand beside each other: the processor sees for itself where this leads. Asked for before they are available, their
    /// lines would be taken from who is writing them.
    #[inline(always)]
    fn will_read(&self, _: Place, _: usize) {}

    #[inline(always)]
    fn head(&self, at: Place) -> Result<Option<Head>, Fault> {
        // A whole round ahead is what we hold ourselves, whatever its flags may say.
        if at.left == 0 {
            return Ok(None);
        }
        Ok(self.desc(at.position).map(|desc| Head { desc, number: 0 }))
    }

    fn follow(&self, at: Place, walked: u16, _: Desc) -> Result<Desc, Fault> {
        if walked >= at.left {
            return Err(Fault::ChainTooLong);
        }
        // The driver makes a chain's first descriptor available last (§2.8.6).
        self.desc(at.position.after(walked, self.size)).ok_or(Fault::ChainBroken)
    }

    #[inline(always)]
    fn buffer(&self, _: &Head, walked: NonZeroU16, last: Desc) -> Result<Buffer, Fault> {
        let id = last.next;
        if id < self.size { Ok(Buffer { id, slots: walked }) } else { Err(Fault::BufferId) }
    }

    /// However long the chain: each descriptor of the ring is in one chain only, so all chains of a round together are no
    /// longer than the ring. It ends: `follow` goes no further than the ring is long.
    fn skip(&self, at: Place, long: Long, steps: u16) -> Result<Result<Buffer, Long>, Fault> {
        let Long { head, mut walked, mut desc } = long;
        for _ in 0..steps {
            if desc.flags & DESC_F_NEXT == 0 {
                break;
            }
            desc = self.follow(at, walked, desc)?;
            walked += 1;
        }
        if desc.flags & DESC_F_NEXT != 0 {
            return Ok(Err(Long { head, walked, desc }));
        }
        self.buffer(&head, NonZeroU16::new(walked).unwrap_or(NonZeroU16::MIN), desc).map(Ok)
    }

    #[inline(always)]
    fn after(&self, at: Place, buffer: Buffer) -> Place {
        self.beyond(at, buffer.slots.get())
    }

    #[inline(always)]
    fn entry(addr: u64, rest: u64) -> Desc {
        let PackedDesc { addr, len, id, flags } = PackedDesc::from_words(addr, rest);
        Desc { addr, len, flags, next: id }
    }
}

impl Used for Packed {
    #[inline(always)]
    fn stage(&mut self, i: usize, buffer: Buffer, len: u32) {
        // Each buffer takes a descriptor at least, and all of them a round at most: there is an entry for each.
        if let Some(staged) = self.staged.get_mut(i) {
            *staged = Staged { buffer, len };
        }
    }

    fn publish(&mut self, n: usize) -> Result<(), Fault> {
        let n = n.min(self.staged.len());
        let distinct = self.distinct(n);
        let [first, behind @ ..] = &self.staged[..distinct] else { return Ok(()) };
        let mut at = self.after(self.first(), first.buffer);
        for &staged in behind {
            self.write_used(at.position, staged);
            at = self.after(at, staged.buffer);
        }
        let slots = self.distance(self.first(), at);
        hook::published(n, slots.into(), self.size);
        self.write_first(self.done, *first);
        self.done = at.position;
        self.moved = self.moved.saturating_add(slots.into());
        if distinct < n { Err(Fault::BufferId) } else { Ok(()) }
    }
}

impl Format for Packed {
    #[inline]
    fn wants_call(&mut self) -> bool {
        // ORDERING: V3, pairs with the driver's fence between storing its event suppression and reading used descriptors.
        fence(Ordering::SeqCst);
        let moved = core::mem::take(&mut self.moved);
        let asked = core::mem::replace(&mut self.asked, true);
        // SAFETY: the driver's event suppression structure, aligned to 4.
        let word = unsafe { AtomicU32::from_ptr(self.driver.as_ptr()) };
        let word = u32::from_le(word.load(Ordering::Relaxed));
        let (off_wrap, flags) = (word as u16, (word >> 16) as u16);
        match flags & EVENT_F_MASK {
            EVENT_F_DISABLE => false,
            EVENT_F_DESC if self.event_idx => {
                !asked || need_event(Position::from_bits(off_wrap), self.done, moved, self.size)
            }
            // Enabled, or what means nothing: a call too many does no harm.
            _ => !asked || moved > 0,
        }
    }

    fn forget_calls(&mut self) {
        self.asked = false;
    }

    fn arm(&self) -> bool {
        self.ask_for_kick(if self.event_idx { EVENT_F_DESC } else { EVENT_F_ENABLE });
        // ORDERING: V4, pairs with the driver's fence between storing flags and reading our event suppression (D3).
        fence(Ordering::SeqCst);
        self.desc(self.done).is_none()
    }

    fn disarm(&self) {
        self.ask_for_kick(EVENT_F_DISABLE);
    }

    fn base(&self) -> u32 {
        self.done.base()
    }
}

#[cfg(test)]
mod tests;

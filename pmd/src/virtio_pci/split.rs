//! The split virtqueue, driver's side (virtio 1.3 §2.7).

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering, fence};

use super::features::Features;
use super::ids::Ids;
use super::virtqueue::{Piece, QueueAddresses, RingFault, Used, Virtqueue, WHOLE, need_event};
use crate::bus::{BusError, DmaArea, PciDevice};

/// Descriptor flags (§2.7.5), where they stand in a descriptor's second word, and where `next` stands.
const DESC_NEXT: u64 = 1 << 32;
const DESC_WRITE: u64 = 2 << 32;
const NEXT_SHIFT: u32 = 48;
/// The driver wants no notifications (§2.7.7), the device wants none (§2.7.10); both without EVENT_IDX.
const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;
const CACHE_LINE: usize = 64;

/// A split virtqueue.
#[derive(Debug)]
pub(super) struct Split {
    ring: Words,
    ids: Ids,
    /// By descriptor: the one behind it in its buffer.
    next: Box<[u16]>,
    /// By a buffer's first descriptor: how many it has; 0 if the device does not have it.
    pieces: Box<[u16]>,
    /// Buffers with the device.
    outstanding: u16,
    /// The next avail.idx, as of the last `publish` and as of the last `wants_kick`.
    avail: u16,
    published: u16,
    asked: u16,
    /// The next used entry, and used.idx as last seen.
    used: u16,
    seen: u16,
    /// With IN_ORDER: the last buffer of the batch that is being taken.
    batch: Option<Used>,
    in_order: bool,
    event_idx: bool,
}

impl Virtqueue for Split {
    fn new<D: PciDevice>(device: &D, size: u16, features: Features) -> Result<Self, BusError> {
        let mut queue = Self {
            ring: Words::new(device, size)?,
            ids: Ids::new(size),
            next: vec![0; usize::from(size)].into(),
            pieces: vec![0; usize::from(size)].into(),
            outstanding: 0,
            avail: 0,
            published: 0,
            asked: 0,
            used: 0,
            seen: 0,
            batch: None,
            in_order: features.has(Features::IN_ORDER),
            event_idx: features.has(Features::EVENT_IDX),
        };
        queue.disarm();
        Ok(queue)
    }

    fn addresses(&self) -> QueueAddresses {
        self.ring.addresses()
    }

    fn size(&self) -> u16 {
        self.ring.size
    }

    #[inline(always)]
    fn free(&self) -> usize {
        usize::from(self.ids.free())
    }

    #[inline(always)]
    fn next_id(&self) -> u16 {
        self.ids.next(0)
    }

    #[inline]
    fn post(&mut self, pieces: &[Piece]) -> u16 {
        let (head, count) = (self.ids.next(0), pieces.len() as u16);
        assert!(count > 0 && usize::from(count) == pieces.len(), "a buffer of {} pieces", pieces.len());
        for (i, piece) in (0..count).zip(pieces) {
            let is_last = i + 1 == count;
            let (this, next) = (self.ids.next(i), if is_last { 0 } else { self.ids.next(i + 1) });
            self.next[usize::from(this)] = next;
            let [addr, rest] = self.ring.desc(this);
            let more = if is_last { 0 } else { DESC_NEXT | u64::from(next) << NEXT_SHIFT };
            let write = if piece.writable { DESC_WRITE } else { 0 };
            addr.store(piece.addr.0.to_le(), Ordering::Relaxed);
            rest.store((u64::from(piece.len) | write | more).to_le(), Ordering::Relaxed);
        }
        self.ids.take(count);
        self.pieces[usize::from(head)] = count;
        self.ring.avail_entry(self.avail).store(head.to_le(), Ordering::Relaxed);
        self.avail = self.avail.wrapping_add(1);
        self.outstanding += 1;
        head
    }

    #[inline]
    fn post_each(&mut self, pieces: &[Piece], ids: &mut [u16]) {
        for (i, (piece, id)) in (0..).zip(pieces.iter().zip(ids)) {
            let this = self.ids.next(i);
            let [addr, rest] = self.ring.desc(this);
            let write = if piece.writable { DESC_WRITE } else { 0 };
            addr.store(piece.addr.0.to_le(), Ordering::Relaxed);
            rest.store((u64::from(piece.len) | write).to_le(), Ordering::Relaxed);
            self.ring.avail_entry(self.avail.wrapping_add(i)).store(this.to_le(), Ordering::Relaxed);
            self.pieces[usize::from(this)] = 1;
            *id = this;
        }
        let count = pieces.len() as u16;
        self.ids.take(count);
        self.avail = self.avail.wrapping_add(count);
        self.outstanding += count;
    }

    #[inline]
    fn publish(&mut self) {
        if self.published != self.avail {
            self.published = self.avail;
            // ORDERING: N2 Release, pairs with the device's load of avail.idx (its V1): §2.7.13.3.1, entries before idx.
            self.ring.avail_idx().store(self.avail.to_le(), Ordering::Release);
        }
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        let old = core::mem::replace(&mut self.asked, self.published);
        if old == self.published {
            return false;
        }
        // ORDERING: N3 full fence, pairs with the device's (its V4) between asking for kicks and looking at avail.idx once
        // more: §2.7.13.4.1.
        fence(Ordering::SeqCst);
        if self.event_idx {
            need_event(u16::from_le(self.ring.avail_event().load(Ordering::Relaxed)), self.published, old)
        } else {
            u16::from_le(self.ring.used_flags().load(Ordering::Relaxed)) & USED_NO_NOTIFY == 0
        }
    }

    #[inline]
    fn take_used(&mut self, into: &mut [Used]) -> Result<usize, RingFault> {
        let known = self.look(into.len())?;
        for (n, place) in into[..known].iter_mut().enumerate() {
            match self.take_next() {
                Ok(used) => *place = used,
                // It is found again when its turn comes.
                Err(_) if n > 0 => return Ok(n),
                Err(fault) => return Err(fault),
            }
        }
        Ok(known)
    }

    fn arm(&mut self) -> bool {
        if self.seen != self.used {
            return false;
        }
        if self.event_idx {
            self.ring.used_event().store(self.used.to_le(), Ordering::Relaxed);
        } else {
            self.ring.avail_flags().store(0, Ordering::Relaxed);
        }
        // ORDERING: N4 full fence, pairs with the device's (its V3) between publishing used.idx and reading what is asked
        // here: §2.7.14.
        fence(Ordering::SeqCst);
        if u16::from_le(self.ring.used_idx().load(Ordering::Relaxed)) == self.used {
            return true;
        }
        self.disarm();
        false
    }

    fn disarm(&mut self) {
        if self.event_idx {
            // An index that was passed just now: nothing for the next 65,535 buffers.
            self.ring.used_event().store(self.used.wrapping_sub(1).to_le(), Ordering::Relaxed);
        } else {
            self.ring.avail_flags().store(AVAIL_NO_INTERRUPT.to_le(), Ordering::Relaxed);
        }
    }
}

impl Split {
    /// How many used buffers there are, at most `wanted`; looks again only if fewer are known.
    #[inline(always)]
    fn look(&mut self, wanted: usize) -> Result<usize, RingFault> {
        let known = usize::from(self.seen.wrapping_sub(self.used));
        if known >= wanted {
            return Ok(wanted);
        }
        // ORDERING: N1 Acquire, pairs with the device's store of used.idx (its V2): entries and buffers after idx.
        let idx = u16::from_le(self.ring.used_idx().load(Ordering::Acquire));
        let fresh = idx.wrapping_sub(self.used);
        if fresh > self.outstanding {
            return Err(RingFault::UsedIndex);
        }
        if fresh == 0 && self.batch.is_some() {
            // It ended before the buffer that it named.
            return Err(RingFault::UsedId);
        }
        self.seen = idx;
        Ok(wanted.min(usize::from(fresh)))
    }

    /// The next used buffer, which there is.
    #[inline(always)]
    fn take_next(&mut self) -> Result<Used, RingFault> {
        let used = if self.in_order { self.take_in_order()? } else { self.entry()? };
        self.used = self.used.wrapping_add(1);
        self.take_back(used.id);
        Ok(used)
    }

    /// The next used entry, read once, of a buffer that the device has.
    #[inline(always)]
    fn entry(&self) -> Result<Used, RingFault> {
        let entry = u64::from_le(self.ring.used_entry(self.used).load(Ordering::Relaxed));
        let (id, len) = (entry as u32, (entry >> 32) as u32);
        match self.pieces.get(id as usize) {
            Some(&count) if count != 0 => Ok(Used { id: id as u16, len }),
            _ => Err(RingFault::UsedId),
        }
    }

    /// With IN_ORDER one entry stands for all buffers up to the one that it names (§2.7.9).
    fn take_in_order(&mut self) -> Result<Used, RingFault> {
        let last = match self.batch {
            Some(last) => last,
            None => self.entry()?,
        };
        let id = self.ids.oldest();
        if id == last.id {
            self.batch = None;
            return Ok(last);
        }
        if self.pieces[usize::from(id)] == 0 {
            return Err(RingFault::UsedId);
        }
        self.batch = Some(last);
        Ok(Used { id, len: WHOLE })
    }

    /// Frees a buffer's descriptors.
    #[inline(always)]
    fn take_back(&mut self, head: u16) {
        let count = core::mem::take(&mut self.pieces[usize::from(head)]);
        self.outstanding -= 1;
        self.ids.give_back(head);
        let mut at = head;
        for _ in 1..count {
            at = self.next[usize::from(at)];
            self.ids.give_back(at);
        }
    }
}

/// The words of the three parts, in one area.
#[derive(Debug)]
struct Words {
    area: DmaArea,
    size: u16,
    mask: u16,
    avail: usize,
    used: usize,
}

impl Words {
    fn new<D: PciDevice>(device: &D, size: u16) -> Result<Self, BusError> {
        let n = usize::from(size);
        let avail = 16 * n;
        // The used ring (aligned to 4) starts so that each entry of 8 bytes is loaded by one aligned load.
        let used = (avail + 6 + 2 * n).next_multiple_of(CACHE_LINE) + 4;
        let area = DmaArea::new(device, used + 6 + 8 * n)?;
        Ok(Self { area, size, mask: size - 1, avail, used })
    }

    fn addresses(&self) -> QueueAddresses {
        let [desc, driver, device] = [0, self.avail, self.used].map(|offset| self.area.iova(offset));
        QueueAddresses { desc, driver, device }
    }

    /// A descriptor: its address; its length, flags and next.
    #[inline(always)]
    fn desc(&self, i: u16) -> &[AtomicU64; 2] {
        &self.area.words64(0, 2 * usize::from(self.size)).as_chunks::<2>().0[usize::from(i & self.mask)]
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU16 {
        &self.area.words16(offset, 1)[0]
    }

    fn avail_flags(&self) -> &AtomicU16 {
        self.word(self.avail)
    }

    #[inline(always)]
    fn avail_idx(&self) -> &AtomicU16 {
        self.word(self.avail + 2)
    }

    #[inline(always)]
    fn avail_entry(&self, i: u16) -> &AtomicU16 {
        self.word(self.avail + 4 + 2 * usize::from(i & self.mask))
    }

    fn used_event(&self) -> &AtomicU16 {
        self.word(self.avail + 4 + 2 * usize::from(self.size))
    }

    fn used_flags(&self) -> &AtomicU16 {
        self.word(self.used)
    }

    #[inline(always)]
    fn used_idx(&self) -> &AtomicU16 {
        self.word(self.used + 2)
    }

    #[inline(always)]
    fn used_entry(&self, i: u16) -> &AtomicU64 {
        &self.area.words64(self.used + 4 + 8 * usize::from(i & self.mask), 1)[0]
    }

    fn avail_event(&self) -> &AtomicU16 {
        self.word(self.used + 4 + 8 * usize::from(self.size))
    }
}

//! The packed virtqueue, driver's side (virtio 1.3 §2.8).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::features::Features;
use super::ids::Ids;
use super::virtqueue::{Piece, QueueAddresses, RingFault, Used, Virtqueue, WHOLE, need_event};
use crate::bus::{BusError, DmaArea, PciDevice};

/// Descriptor flags (§2.8.13, §2.8.1), where they stand in a descriptor's second word, and where the buffer ID stands.
const DESC_NEXT: u64 = 1 << 48;
const DESC_WRITE: u64 = 2 << 48;
const DESC_AVAIL: u64 = 1 << (48 + 7);
const DESC_USED: u64 = 1 << (48 + 15);
const ID_SHIFT: u32 = 32;
/// Event suppression (§2.8.14), where its flags stand in the structure's word.
const EVENT_FLAGS_SHIFT: u32 = 16;
const EVENT_ENABLE: u32 = 0;
const EVENT_DISABLE: u32 = 1;
const EVENT_DESC: u32 = 2;
const EVENT_WRAP: u16 = 1 << 15;
const CACHE_LINE: usize = 64;

/// A place in the ring, and the wrap counter there (§2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: u16,
    wrap: bool,
}

impl Place {
    const START: Self = Self { slot: 0, wrap: true };

    /// The place `n` slots on, in a ring of `size`, which is at least `n`.
    #[inline(always)]
    fn after(self, n: u16, size: u16) -> Self {
        let slot = self.slot + n;
        if slot >= size { Self { slot: slot - size, wrap: !self.wrap } } else { Self { slot, ..self } }
    }
}

/// A packed virtqueue.
#[derive(Debug)]
pub(super) struct Packed {
    ring: Words,
    /// Buffer IDs.
    ids: Ids,
    /// By buffer ID: how many descriptors it has; 0 if the device does not have it.
    pieces: Box<[u16]>,
    /// Free descriptors.
    free: u16,
    /// Where the next buffer is posted, and where the device's next used one will stand.
    avail: Place,
    used: Place,
    /// The first descriptor of what was posted and not published, in the place where it will stand: as long as it is held
    /// back the device sees none of those behind it.
    held_back: Option<(u16, u64)>,
    /// Descriptors published since the device was last asked whether it wants a kick.
    unasked: u16,
    unpublished: u16,
    /// With IN_ORDER: the last buffer of the batch that is being taken.
    batch: Option<Used>,
    in_order: bool,
}

impl Virtqueue for Packed {
    fn new<D: PciDevice>(device: &D, size: u16, features: Features) -> Result<Self, BusError> {
        let mut queue = Self {
            ring: Words::new(device, size)?,
            ids: Ids::new(size),
            pieces: vec![0; usize::from(size)].into(),
            free: size,
            avail: Place::START,
            used: Place::START,
            held_back: None,
            unasked: 0,
            unpublished: 0,
            batch: None,
            in_order: features.has(Features::IN_ORDER),
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
        usize::from(self.free)
    }

    #[inline(always)]
    fn next_id(&self) -> u16 {
        self.ids.next(0)
    }

    #[inline]
    fn post(&mut self, pieces: &[Piece]) -> u16 {
        let (id, count) = (self.ids.next(0), pieces.len() as u16);
        assert!(count > 0 && pieces.len() <= self.free(), "{} pieces in {}", pieces.len(), self.free);
        for (i, piece) in (0..count).zip(pieces) {
            let more = if i + 1 == count { 0 } else { DESC_NEXT };
            self.write(self.avail.after(i, self.ring.size), *piece, id, more);
        }
        self.ids.take(1);
        self.pieces[usize::from(id)] = count;
        self.posted(count);
        id
    }

    #[inline]
    fn post_each(&mut self, pieces: &[Piece], ids: &mut [u16]) {
        let count = pieces.len() as u16;
        assert!(pieces.len() <= self.free(), "{count} buffers in {}", self.free);
        let mut at = self.avail;
        for (i, (piece, id)) in (0..).zip(pieces.iter().zip(ids)) {
            *id = self.ids.next(i);
            self.pieces[usize::from(*id)] = 1;
            self.write(at, *piece, *id, 0);
            at = at.after(1, self.ring.size);
        }
        self.ids.take(count);
        self.posted(count);
    }

    #[inline]
    fn publish(&mut self) {
        if let Some((slot, word)) = self.held_back.take() {
            // ORDERING: N2 Release, pairs with the device's load of this descriptor's flags: all others of the burst, and
            // the packets, are written before (§2.8.21.1).
            self.ring.desc(slot)[1].store(word.to_le(), Ordering::Release);
            self.unasked += core::mem::take(&mut self.unpublished);
        }
    }

    #[inline]
    fn wants_kick(&mut self) -> bool {
        let published = core::mem::take(&mut self.unasked);
        if published == 0 {
            return false;
        }
        // ORDERING: N3 full fence, pairs with the device's between asking for kicks and looking at the next descriptor once
        // more: §2.8.21.3.1.
        fence(Ordering::SeqCst);
        let event = u32::from_le(self.ring.device_event().load(Ordering::Relaxed));
        match event >> EVENT_FLAGS_SHIFT & 3 {
            EVENT_DISABLE => false,
            EVENT_DESC => self.passed(event as u16, published),
            // Also what means nothing: rather once too often.
            _ => true,
        }
    }

    #[inline]
    fn take_used(&mut self, into: &mut [Used]) -> Result<usize, RingFault> {
        for (n, place) in into.iter_mut().enumerate() {
            match self.take_next() {
                Ok(Some(used)) => *place = used,
                Ok(None) => return Ok(n),
                // It is found again when its turn comes.
                Err(_) if n > 0 => return Ok(n),
                Err(fault) => return Err(fault),
            }
        }
        Ok(into.len())
    }

    fn arm(&mut self) -> bool {
        if self.batch.is_some() {
            return false;
        }
        self.ring.driver_event().store((EVENT_ENABLE << EVENT_FLAGS_SHIFT).to_le(), Ordering::Relaxed);
        // ORDERING: N4 full fence, pairs with the device's between writing a used descriptor and reading what is asked here:
        // §2.8.22.
        fence(Ordering::SeqCst);
        let word = u64::from_le(self.ring.desc(self.used.slot)[1].load(Ordering::Relaxed));
        if !self.is_used(word) {
            return true;
        }
        self.disarm();
        false
    }

    fn disarm(&mut self) {
        self.ring.driver_event().store((EVENT_DISABLE << EVENT_FLAGS_SHIFT).to_le(), Ordering::Relaxed);
    }
}

impl Packed {
    /// Writes an available descriptor, or holds it back if it is the first that is not published.
    #[inline(always)]
    fn write(&mut self, at: Place, piece: Piece, id: u16, more: u64) {
        let write = if piece.writable { DESC_WRITE } else { 0 };
        let available = if at.wrap { DESC_AVAIL } else { DESC_USED };
        let word = u64::from(piece.len) | u64::from(id) << ID_SHIFT | more | write | available;
        let [addr, rest] = self.ring.desc(at.slot);
        addr.store(piece.addr.0.to_le(), Ordering::Relaxed);
        if self.held_back.is_none() {
            self.held_back = Some((at.slot, word));
        } else {
            rest.store(word.to_le(), Ordering::Relaxed);
        }
    }

    /// Notes that `count` descriptors were written.
    #[inline(always)]
    fn posted(&mut self, count: u16) {
        self.avail = self.avail.after(count, self.ring.size);
        self.free -= count;
        self.unpublished += count;
    }

    /// The next used buffer, if there is one.
    #[inline(always)]
    fn take_next(&mut self) -> Result<Option<Used>, RingFault> {
        let next = if self.in_order { self.take_in_order()? } else { self.look()? };
        let Some(used) = next else { return Ok(None) };
        let count = core::mem::take(&mut self.pieces[usize::from(used.id)]);
        self.ids.give_back(used.id);
        self.free += count;
        self.used = self.used.after(count, self.ring.size);
        Ok(Some(used))
    }

    /// A descriptor is used if both bits are as the wrap counter is (§2.8.1).
    #[inline(always)]
    fn is_used(&self, word: u64) -> bool {
        let wanted = if self.used.wrap { DESC_AVAIL | DESC_USED } else { 0 };
        word & (DESC_AVAIL | DESC_USED) == wanted
    }

    /// The next used descriptor, if there is one: read once, of a buffer that the device has.
    #[inline(always)]
    fn look(&self) -> Result<Option<Used>, RingFault> {
        // ORDERING: N1 Acquire, pairs with the device's store of the used flags: ID, length and buffer after them. One load
        // has all three.
        let word = u64::from_le(self.ring.desc(self.used.slot)[1].load(Ordering::Acquire));
        if !self.is_used(word) {
            return Ok(None);
        }
        let id = (word >> ID_SHIFT) as u16;
        match self.pieces.get(usize::from(id)) {
            Some(&count) if count != 0 => Ok(Some(Used { id, len: word as u32 })),
            _ => Err(RingFault::UsedId),
        }
    }

    /// With IN_ORDER one used descriptor stands for all buffers up to the one that it names (§2.8.7).
    fn take_in_order(&mut self) -> Result<Option<Used>, RingFault> {
        let Some(last) = self.batch.map_or_else(|| self.look(), |last| Ok(Some(last)))? else {
            return Ok(None);
        };
        let id = self.ids.oldest();
        if id == last.id {
            self.batch = None;
            return Ok(Some(last));
        }
        if self.pieces[usize::from(id)] == 0 {
            return Err(RingFault::UsedId);
        }
        self.batch = Some(last);
        Ok(Some(Used { id, len: WHOLE }))
    }

    /// Whether the last `published` descriptors passed the one that the device wants to be kicked at (§2.8.10).
    fn passed(&self, off_wrap: u16, published: u16) -> bool {
        let (mut event, wrap) = (off_wrap & !EVENT_WRAP, off_wrap & EVENT_WRAP != 0);
        if wrap != self.avail.wrap {
            // Of the round before.
            event = event.wrapping_sub(self.ring.size);
        }
        need_event(event, self.avail.slot, self.avail.slot.wrapping_sub(published))
    }
}

/// The words of the three parts, in one area.
#[derive(Debug)]
struct Words {
    area: DmaArea,
    size: u16,
    driver_event: usize,
    device_event: usize,
}

impl Words {
    fn new<D: PciDevice>(device: &D, size: u16) -> Result<Self, BusError> {
        let driver_event = (16 * usize::from(size)).next_multiple_of(CACHE_LINE);
        let device_event = driver_event + CACHE_LINE;
        let area = DmaArea::new(device, device_event + 4)?;
        Ok(Self { area, size, driver_event, device_event })
    }

    fn addresses(&self) -> QueueAddresses {
        let [desc, driver, device] =
            [0, self.driver_event, self.device_event].map(|offset| self.area.iova(offset));
        QueueAddresses { desc, driver, device }
    }

    /// A descriptor: its address; its length, buffer ID and flags.
    #[inline(always)]
    fn desc(&self, slot: u16) -> &[AtomicU64; 2] {
        &self.area.words64(0, 2 * usize::from(self.size)).as_chunks::<2>().0[usize::from(slot)]
    }

    fn driver_event(&self) -> &AtomicU32 {
        &self.area.words32(self.driver_event, 1)[0]
    }

    fn device_event(&self) -> &AtomicU32 {
        &self.area.words32(self.device_event, 1)[0]
    }
}

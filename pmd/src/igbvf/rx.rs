//! The receive ring.
//!
//! Every slot holds an mbuf, always: what is taken out is replaced first, and where there is nothing to replace it with, the
//! packet is dropped and its mbuf posted again. So the ring neither starves nor leaks.

use core::sync::atomic::{Ordering, fence};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mbuf::{Burst, Checksum, MAX_BURST, Mbuf, Mempool, NoMbufs, Offload};

use super::desc::rx::{BROKEN, DD, EOP, IPE, L4CS, L4E, UDPCS, VP, length};
use super::desc::{DESCRIPTOR, Descriptor};
use super::odd::Frame;
use super::regs::{self, TAIL, VTEICR, VTEIMC, VTEIMS, VTSTATUS};
use crate::bus::{DmaArea, PciDevice, Registers};
use crate::nic::{Reach, Ring, RxRing};
use crate::vdev::count;
use crate::{DropReason, QueueCounters};

/// Shorter frames have no Ethernet header.
pub(super) const MIN_FRAME: usize = 14;
/// Descriptors given back to the device at once; an eighth of a short ring.
const POST_AT: usize = 32;
/// How far ahead of the next descriptor one that is done is looked for: the device completes them in order.
const LOOK_AHEAD: usize = 32;
/// Checks, 10 ms each, that may find the device ahead of itself: it may just have been at it.
const PATIENCE: u32 = 3;

/// What a receive ring is made of.
pub(super) struct RxParts<B> {
    pub(super) bar: Arc<B>,
    pub(super) queue: usize,
    pub(super) descriptors: usize,
    pub(super) pool: &'static Mempool,
    pub(super) reach: Arc<Reach>,
    pub(super) port: u16,
    /// Bytes of an mbuf that the device may write: a multiple of 1,024.
    pub(super) buffer: usize,
    /// Bytes of the longest frame that the PF was asked to let through.
    pub(super) max_frame: usize,
    /// Its interrupt: the eventfds of all vectors, and which is ours.
    pub(super) wake: Option<(Arc<[OwnedFd]>, usize)>,
    /// VLANs whose tags are to be put back where the PF has them taken out.
    pub(super) vlans: Arc<[u16]>,
    /// The card writes the tags of packets that another VF sent the wrong way round (I350).
    pub(super) swapped_loopback_tags: bool,
}

/// The receive side of a VF's queue pair.
pub struct IgbvfRx<B: Registers + 'static> {
    descs: DmaArea,
    /// The mbuf of each descriptor.
    slots: Box<[Mbuf<'static>]>,
    mask: usize,
    /// The next descriptor to be looked at.
    next: usize,
    /// Descriptors renewed since the tail was written, and how many make it worth it.
    unposted: usize,
    post_at: usize,
    parts: RxParts<B>,
    /// A frame of several buffers, whose end has not come yet.
    pub(super) frame: Frame,
    /// Checks that found the device ahead of itself, one after the other.
    ahead: u32,
    /// Why the ring makes no sense any more.
    pub(super) broken: Option<&'static str>,
}

impl<B: Registers + 'static> core::fmt::Debug for IgbvfRx<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IgbvfRx")
            .field("queue", &self.parts.queue)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// Why there is no ring.
pub(super) enum NoRing {
    Bus(crate::bus::BusError),
    Mbufs(NoMbufs),
}

impl<B: Registers + 'static> IgbvfRx<B> {
    /// Makes the ring and fills it.
    pub(super) fn new<D: PciDevice<Bar = B>>(device: &D, parts: RxParts<B>) -> Result<Self, NoRing> {
        let n = parts.descriptors;
        let descs = DmaArea::new(device, n * DESCRIPTOR).map_err(NoRing::Bus)?;
        let slots: Result<Box<_>, _> = (0..n).map(|_| parts.pool.alloc(parts.port)).collect();
        let slots = slots.map_err(NoRing::Mbufs)?;
        let ring = Self {
            descs,
            slots,
            mask: n - 1,
            next: 0,
            unposted: 0,
            post_at: POST_AT.min(n / 8),
            frame: Frame::new(parts.max_frame, parts.buffer),
            parts,
            ahead: 0,
            broken: None,
        };
        for (desc, mbuf) in ring.descs().iter().zip(&ring.slots) {
            renew(desc, ring.parts.reach.offset(), mbuf);
        }
        Ok(ring)
    }

    /// The device's address of the ring.
    pub(super) fn base(&self) -> u64 {
        self.descs.iova(0).0
    }

    pub(super) fn parts(&self) -> &RxParts<B> {
        &self.parts
    }

    #[inline(always)]
    fn descs(&self) -> &[Descriptor] {
        descriptors(&self.descs, self.mask + 1)
    }

    /// Lets the device have all descriptors but one: head equal to tail means none.
    pub(super) fn post_all(&self) {
        self.write_tail(self.mask);
    }

    #[inline(always)]
    fn write_tail(&self, tail: usize) {
        // ORDERING: N2 Release, pairs with the device's reading of descriptors in front of the tail: they are written.
        fence(Ordering::Release);
        self.parts.bar.write32(regs::rx(self.parts.queue) + TAIL, tail as u32);
    }

    /// Reads what was written back, `room` descriptors at most; returns how many, and whether each is a whole sound frame.
    #[inline(always)]
    fn look(&self, words: &mut [u64; MAX_BURST], room: usize) -> (usize, bool) {
        let (descs, next) = (self.descs(), self.next);
        let longest = self.parts.buffer - MIN_FRAME;
        let (mut all, mut any, mut is_odd, mut n) = (EOP, 0, false, 0);
        for word in &mut words[..room] {
            let now = descs[(next + n) & (descs.len() - 1)][1].load(Ordering::Relaxed);
            if now & DD == 0 {
                break;
            }
            *word = now;
            all &= now;
            any |= now;
            is_odd |= length(now).wrapping_sub(MIN_FRAME) > longest;
            n += 1;
        }
        (n, all & EOP != 0 && any & (BROKEN | VP) == 0 && !is_odd)
    }

    /// One buffer, one frame, each: every mbuf changes places with a fresh one.
    #[inline(always)]
    fn take_plain(&mut self, words: &[u64], mut fresh: Burst<'static>, burst: &mut Burst<'_>) -> Taken {
        let (mut bytes, mut next) = (0, self.next);
        let descs = descriptors(&self.descs, self.mask + 1);
        let (slots, offset, port) = (&mut *self.slots, self.parts.reach.offset(), self.parts.port);
        for (word, mbuf) in words.iter().zip(fresh.iter_mut()) {
            renew(&descs[next & (descs.len() - 1)], offset, mbuf);
            core::mem::swap(mbuf, &mut slots[next & (slots.len() - 1)]);
            let len = length(*word);
            mbuf.set_received(len, port, checksum(*word));
            bytes += len as u64;
            next += 1;
        }
        self.next = next & self.mask;
        hand_over(fresh, burst);
        Taken { packets: words.len() as u64, bytes, ..Taken::default() }
    }

    /// The same for a burst in which some descriptor is not a whole sound frame, or behind such a burst.
    #[cold]
    fn take_odd(&mut self, words: &[u64], fresh: &mut Burst<'static>, burst: &mut Burst<'_>) -> Taken {
        let mut taken = Taken::default();
        for (word, new) in words.iter().zip(fresh.drain()) {
            let slot = self.next;
            renew(&self.descs()[slot], self.parts.reach.offset(), &new);
            let mbuf = core::mem::replace(&mut self.slots[slot], new);
            self.next = (slot + 1) & self.mask;
            self.add_odd(*word, mbuf, burst, &mut taken);
        }
        taken
    }

    /// The same while the pool has not as many mbufs as there are packets: one by one, and what cannot be replaced is dropped.
    #[cold]
    fn take_starved(&mut self, words: &[u64], burst: &mut Burst<'_>) -> Taken {
        let mut taken = Taken::default();
        for word in words {
            let slot = self.next;
            self.next = (slot + 1) & self.mask;
            if let Ok(new) = self.parts.pool.alloc(self.parts.port) {
                renew(&self.descs()[slot], self.parts.reach.offset(), &new);
                let mbuf = core::mem::replace(&mut self.slots[slot], new);
                self.add_odd(*word, mbuf, burst, &mut taken);
            } else {
                renew(&self.descs()[slot], self.parts.reach.offset(), &self.slots[slot]);
                self.frame.lose(*word, DropReason::NoMbufs, &mut taken);
            }
        }
        taken
    }

    /// Gives renewed descriptors to the device, many at a time.
    #[inline(always)]
    fn post(&mut self, n: usize) {
        self.unposted += n;
        if self.unposted >= self.post_at {
            self.unposted = 0;
            self.write_tail(self.next.wrapping_sub(1) & self.mask);
        }
    }

    /// Whether the device has completed a descriptor and not the one before it.
    fn is_ahead(&self) -> bool {
        let descs = self.descs();
        let is_done = |i: usize| descs[(self.next + i) & self.mask][1].load(Ordering::Relaxed) & DD != 0;
        !is_done(0) && (1..LOOK_AHEAD).any(is_done) && !is_done(0)
    }
}

/// What a burst brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Packets, dropped ones included.
    pub(super) packets: u64,
    /// Bytes of those that were not dropped.
    pub(super) bytes: u64,
    /// Drops.
    pub(super) drops: [u32; 4],
}

/// Reasons that [`Taken::drops`] counts.
const REASONS: [DropReason; 4] =
    [DropReason::RxError, DropReason::RxTooShort, DropReason::RxTooLong, DropReason::NoMbufs];

impl Taken {
    #[cold]
    pub(super) fn drop_one(&mut self, reason: DropReason) {
        let i = REASONS.iter().position(|r| *r == reason).unwrap_or(0);
        self.drops[i] += 1;
    }

    #[inline(always)]
    fn count(&self, counters: &QueueCounters) {
        count(counters, self.packets, self.bytes);
        if self.drops != [0; 4] {
            self.count_drops(counters);
        }
    }

    #[cold]
    fn count_drops(&self, counters: &QueueCounters) {
        for (reason, n) in REASONS.iter().zip(self.drops) {
            counters.drop_packets(*reason, n.into());
        }
    }
}

/// Writes a descriptor as one that is to be filled. The mbuf is of the pool that was mapped at `offset`.
#[inline(always)]
fn renew(desc: &Descriptor, offset: u64, mbuf: &Mbuf<'_>) {
    let at = (mbuf.data_start().addr().get() as u64).wrapping_add(offset);
    desc[0].store(at, Ordering::Relaxed);
    desc[1].store(0, Ordering::Relaxed);
}

/// Moves packets into a burst that has room for them.
#[inline(always)]
fn hand_over<'t>(mut packets: Burst<'t>, burst: &mut Burst<'t>) {
    if burst.is_empty() {
        *burst = packets;
        return;
    }
    let moved = burst.append(&mut packets);
    debug_assert!(moved, "not more than there was room for");
}

/// The first `n` descriptors in an area.
#[inline(always)]
pub(super) fn descriptors(area: &DmaArea, n: usize) -> &[Descriptor] {
    area.words64(0, 2 * n).as_chunks().0
}

/// What the card says of the transport checksum. Its errors are not ours to act on: some cards see them where there are none.
#[inline(always)]
pub(super) fn checksum(word: u64) -> Offload {
    let mut offload = Offload::NONE;
    let is_good = word & (L4CS | UDPCS) != 0 && word & (L4E | IPE) == 0;
    offload.checksum = if is_good { Checksum::Valid } else { Checksum::Unknown };
    offload
}

impl<B: Registers + 'static> RxRing for IgbvfRx<B> {
    /// Looks at the written-back words of up to a burst of descriptors; exchanges their mbufs for fresh ones; posts those.
    #[inline]
    fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        let mut words = [0; MAX_BURST];
        let before = burst.len();
        let (n, plain) = self.look(&mut words, burst.room());
        if n == 0 {
            return 0;
        }
        // ORDERING: N1 Acquire, pairs with the device's writing of DD behind the frame: the frame is read after DD was.
        fence(Ordering::Acquire);
        let (words, mut fresh) = (&words[..n], Burst::new());
        let taken = if self.parts.pool.alloc_bulk(&mut fresh, n, self.parts.port).is_err() {
            self.take_starved(words, burst)
        } else if plain && self.frame.is_none() {
            self.take_plain(words, fresh, burst)
        } else {
            self.take_odd(words, &mut fresh, burst)
        };
        self.post(n);
        taken.count(counters);
        burst.len() - before
    }

    fn arm(&mut self) -> bool {
        let Some((_, vector)) = self.parts.wake else { return false };
        let bar = &self.parts.bar;
        // The cause of what was polled; then let it interrupt, and wait until the card knows.
        bar.write32(VTEICR, 1 << vector);
        bar.write32(VTEIMS, 1 << vector);
        let _ = bar.read32(VTSTATUS);
        // ORDERING: N3 SeqCst, pairs with the card's raising of a cause behind its writing of DD: a packet whose cause was
        // cleared here is seen here, and any later one interrupts (V4's twin).
        fence(Ordering::SeqCst);
        let is_done = self.descs()[self.next & self.mask][1].load(Ordering::Relaxed) & DD != 0;
        !is_done
    }

    fn disarm(&mut self) {
        let Some((events, vector)) = &self.parts.wake else { return };
        self.parts.bar.write32(VTEIMC, 1 << vector);
        take_back(&events[*vector]);
    }
}

/// Takes back what an eventfd was signalled.
pub(super) fn take_back(event: &OwnedFd) {
    // Non-blocking: an error means that there was nothing.
    let _: Result<usize, io::Error> = rustix::io::read(event, &mut [0u8; 8]).map_err(Into::into);
}

impl<B: Registers + 'static> Ring for IgbvfRx<B> {
    fn check(&mut self) -> Option<&'static str> {
        self.ahead = if self.is_ahead() { self.ahead + 1 } else { 0 };
        if self.ahead >= PATIENCE {
            self.broken = Some("receive descriptors were completed out of order");
        }
        // However few, what is renewed is posted within a tick.
        if self.unposted > 0 {
            self.unposted = 0;
            self.write_tail(self.next.wrapping_sub(1) & self.mask);
        }
        self.broken
    }
}

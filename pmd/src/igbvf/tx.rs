//! The transmit ring.
//!
//! The mbufs of a burst are held together until the card has reported the last descriptor of the last of them done. Only such
//! descriptors ask for a report (RS).

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::Arc;

use mbuf::{Burst, MAX_BURST, Mbuf, Mempool};

use super::desc::tx::{DATA, DD, EOP, PAYLEN_SHIFT, RS};
use super::desc::{DESCRIPTOR, Descriptor};
use super::offload::{Context, Limits};
use super::regs::{self, TAIL};
use super::rx::descriptors;
use crate::QueueCounters;
use crate::bus::{BusError, DmaArea, PciDevice, Registers};
use crate::nic::{Reach, Ring, TxRing};
use crate::vdev::{count, send_each};

/// Ethernet's shortest frame without FCS. Shorter ones are padded by us: with fewer than 17 bytes they would be an offence
/// that some cards stop the VF for.
pub(super) const MIN_FRAME: usize = 60;
/// Descriptors after which the card is told, and reports, without waiting for the end of the turn.
const ANNOUNCE_AT: usize = 32;
/// Checks (one each 10 ms) without a completed descriptor after which the queue is stuck: 5 s, as the kernel's transmit
/// watchdog and the virtio driver have it. Checks while the link is down or paused do not count; but the pause bit is only a
/// sample, and a link partner may pause the wire for most of the time without being seen in the act.
const PATIENCE: u32 = 500;

/// What a transmit ring is made of.
pub(super) struct TxParts<B> {
    pub(super) bar: Arc<B>,
    pub(super) queue: usize,
    pub(super) descriptors: usize,
    /// The only pool whose mbufs the device reaches.
    pub(super) pool: &'static Mempool,
    pub(super) reach: Arc<Reach>,
    pub(super) limits: Limits,
    /// Whether the link is up and not paused by its partner: a queue that makes no progress otherwise is not stuck.
    pub(super) may_send: Arc<AtomicBool>,
}

/// Mbufs that go back together.
#[derive(Debug, Default)]
struct Held {
    mbufs: Burst<'static>,
    /// One behind the last descriptor of the last of them.
    end: usize,
}

/// The transmit side of a VF's queue pair.
pub struct IgbvfTx<B: Registers + 'static> {
    descs: DmaArea,
    /// Mbufs that the device may still read: a ring of bursts of them, of which `oldest..=newest` are in use (not wrapped).
    held: Box<[Held]>,
    oldest: usize,
    newest: usize,
    mask: usize,
    /// The next descriptor to be written, the first that the card was not told of, and the first not done yet: counted on
    /// without wrapping at the ring's size.
    next: usize,
    announced: usize,
    clean: usize,
    /// What the card was last told of offloads.
    pub(super) context: Option<Context>,
    pub(super) parts: TxParts<B>,
    /// Doorbells rung and not counted yet.
    rung: u64,
    /// Where `clean` stood at the last check, and for how many checks it has.
    clean_before: usize,
    stuck: u32,
}

impl<B: Registers + 'static> core::fmt::Debug for IgbvfTx<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IgbvfTx")
            .field("queue", &self.parts.queue)
            .field("next", &self.next)
            .field("clean", &self.clean)
            .finish_non_exhaustive()
    }
}

impl<B: Registers + 'static> IgbvfTx<B> {
    /// Makes an empty ring.
    pub(super) fn new<D: PciDevice<Bar = B>>(device: &D, parts: TxParts<B>) -> Result<Self, BusError> {
        let n = parts.descriptors;
        Ok(Self {
            descs: DmaArea::new(device, n * DESCRIPTOR)?,
            // Two neighbours hold more than a burst together: fewer than these would do.
            held: (0..4 * n / MAX_BURST).map(|_| Held::default()).collect(),
            oldest: 0,
            newest: 0,
            mask: n - 1,
            next: 0,
            announced: 0,
            clean: 0,
            context: None,
            parts,
            rung: 0,
            clean_before: 0,
            stuck: 0,
        })
    }

    /// The device's address of the ring.
    pub(super) fn base(&self) -> u64 {
        self.descs.iova(0).0
    }

    #[inline(always)]
    fn descs(&self) -> &[Descriptor] {
        descriptors(&self.descs, self.mask + 1)
    }

    /// Descriptors that can be written: all but one, as head equal to tail means none.
    #[inline(always)]
    pub(super) fn room(&self) -> usize {
        self.mask - (self.next - self.clean)
    }

    /// Descriptors that the ring has when it is empty.
    pub(super) fn capacity(&self) -> usize {
        self.mask
    }

    /// Whether a packet needs nothing but a descriptor.
    #[inline(always)]
    pub(super) fn is_plain(&self, mbuf: &Mbuf<'_>) -> bool {
        let (len, at) = (mbuf.len(), mbuf.data_start().addr().get());
        let in_range = len.wrapping_sub(MIN_FRAME) <= self.parts.limits.max_frame - MIN_FRAME;
        let in_page = at ^ at.wrapping_add(len).wrapping_sub(1) < self.parts.limits.page;
        let is_one_piece = (mbuf.data().len() == len) & in_page;
        in_range & is_one_piece & mbuf.offload().is_none() & core::ptr::eq(mbuf.pool(), self.parts.pool)
    }

    /// Sends plain packets, for all of which there is room; returns their bytes.
    #[inline(always)]
    fn send_plain(&mut self, mut packets: Burst<'static>) -> u64 {
        let (mut bytes, mut next) = (0, self.next);
        let (descs, offset) = (self.descs(), self.parts.reach.offset());
        for mbuf in packets.iter() {
            let len = mbuf.len() as u64;
            let at = (mbuf.data_start().addr().get() as u64).wrapping_add(offset);
            let desc = &descs[next & (descs.len() - 1)];
            desc[0].store(at, Ordering::Relaxed);
            desc[1].store(DATA | EOP | len | len << PAYLEN_SHIFT, Ordering::Relaxed);
            next += 1;
            bytes += len;
        }
        let held = self.held_with_room(packets.len());
        if held.mbufs.is_empty() {
            held.mbufs = packets;
        } else {
            let moved = held.mbufs.append(&mut packets);
            debug_assert!(moved, "there was room");
        }
        held.end = next;
        self.next = next;
        bytes
    }

    /// Where the next `n` mbufs are held: with the last ones, if there is room.
    #[inline(always)]
    fn held_with_room(&mut self, n: usize) -> &mut Held {
        if self.held[self.newest & (self.held.len() - 1)].mbufs.room() < n {
            self.close();
        }
        &mut self.held[self.newest & (self.held.len() - 1)]
    }

    /// Begins a new burst of held mbufs. The full one is reported by its last descriptor, if it was not asked to already.
    fn close(&mut self) {
        let count = self.held.len();
        let end = self.held[self.newest & (count - 1)].end;
        if end > self.announced {
            self.ask_for_report(end - 1);
        }
        self.newest += 1;
        assert!(self.newest - self.oldest < count, "two neighbours hold more than a burst");
    }

    #[inline(always)]
    fn ask_for_report(&self, last: usize) {
        let word = &self.descs()[last & self.mask][1];
        word.store(word.load(Ordering::Relaxed) | RS, Ordering::Relaxed);
    }

    /// Writes the next descriptor.
    #[inline(always)]
    pub(super) fn write(&mut self, words: [u64; 2]) {
        let desc = &self.descs()[self.next & self.mask];
        desc[0].store(words[0], Ordering::Relaxed);
        desc[1].store(words[1], Ordering::Relaxed);
        self.next += 1;
    }

    /// Holds a packet whose last descriptor was written last.
    pub(super) fn hold(&mut self, mbuf: Mbuf<'static>) {
        let end = self.next;
        let held = self.held_with_room(1);
        held.end = end;
        let pushed = held.mbufs.push(mbuf);
        debug_assert!(pushed.is_ok(), "there was room");
        if self.next - self.announced >= ANNOUNCE_AT {
            self.announce();
        }
    }

    /// Asks for a report on the last descriptor, and tells the card of all that were written.
    #[inline(always)]
    fn announce(&mut self) {
        self.ask_for_report(self.next - 1);
        self.announced = self.next;
        self.rung += 1;
        // ORDERING: N2 Release, pairs with the device's reading of descriptors in front of the tail: they are written.
        fence(Ordering::Release);
        let tail = (self.next & self.mask) as u32;
        self.parts.bar.write32(regs::tx(self.parts.queue) + TAIL, tail);
    }

    /// Gives back the mbufs of what was reported done.
    #[inline]
    fn reclaim(&mut self) {
        let mask = self.held.len() - 1;
        while self.clean != self.announced {
            let end = self.held[self.oldest & mask].end;
            // ORDERING: N1 Acquire, pairs with the device's writing of DD behind its last reading of the packet.
            if end > self.announced
                || self.descs()[(end - 1) & self.mask][1].load(Ordering::Acquire) & DD == 0
            {
                return;
            }
            self.held[self.oldest & mask].mbufs.clear();
            self.clean = end;
            if self.oldest == self.newest {
                return;
            }
            self.oldest += 1;
        }
    }
}

impl<B: Registers + 'static> TxRing for IgbvfTx<B> {
    /// The common burst: room for all, and none needs more than a descriptor.
    #[inline]
    fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        // With less than a burst in flight there is nothing to be had.
        if self.next - self.clean > 2 * ANNOUNCE_AT {
            self.reclaim();
        }
        let n = burst.len();
        let is_plain = n <= self.room() && burst.iter().all(|mbuf| self.is_plain(mbuf));
        let taken =
            if is_plain { self.send_owned(burst, counters) } else { self.send_mixed(burst, counters) };
        if self.next - self.announced >= ANNOUNCE_AT {
            self.announce();
        }
        counters.notifications.add(core::mem::take(&mut self.rung));
        taken
    }

    #[inline]
    fn flush(&mut self) {
        if self.next != self.announced {
            self.announce();
        }
    }
}

impl<B: Registers + 'static> IgbvfTx<B> {
    #[inline(always)]
    fn send_owned(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        // A tail without bytes is no reason to look at each packet in the common burst.
        let Some(packets) = burst.take_owned() else { return self.send_mixed(burst, counters) };
        let n = packets.len();
        let bytes = self.send_plain(packets);
        count(counters, n as u64, bytes);
        n
    }

    #[cold]
    fn send_mixed(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        self.reclaim();
        send_each(burst, counters, |mbuf| self.send_odd(mbuf))
    }
}

impl<B: Registers + 'static> Ring for IgbvfTx<B> {
    fn check(&mut self) -> Option<&'static str> {
        self.flush();
        self.reclaim();
        let is_waiting = self.clean == self.clean_before && self.clean != self.next;
        let may_send = self.parts.may_send.load(Ordering::Relaxed);
        self.stuck = if is_waiting && may_send { self.stuck + 1 } else { 0 };
        self.clean_before = self.clean;
        (self.stuck >= PATIENCE).then_some("a transmit queue is stuck")
    }
}

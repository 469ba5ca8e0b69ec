//! The transmit ring.
//!
//! A packet's mbuf lies in the slot of its last descriptor until the card has reported that one, or a later one, done. The
//! last descriptor of each burst asks for such a report (RS), no other does.

use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::Arc;

use mbuf::{Burst, Mbuf, Mempool};

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
/// Checks, 10 ms each, without any progress after which the queue is stuck. A wire paused by flow control lets a frame go
/// every 34 ms at the longest.
const PATIENCE: u32 = 50;

/// What a transmit ring is made of.
pub(super) struct TxParts<B> {
    pub(super) bar: Arc<B>,
    pub(super) queue: usize,
    pub(super) descriptors: usize,
    /// The only pool whose mbufs the device reaches.
    pub(super) pool: &'static Mempool,
    pub(super) reach: Arc<Reach>,
    pub(super) limits: Limits,
    /// Whether the link is up: nothing is sent, and nothing stuck, while it is not.
    pub(super) link: Arc<AtomicBool>,
}

/// The transmit side of a VF's queue pair.
pub struct IgbvfTx<B: Registers + 'static> {
    descs: DmaArea,
    /// Mbufs that the device may still read, each at its packet's last descriptor.
    slots: Box<[Option<Mbuf<'static>>]>,
    mask: usize,
    /// The next descriptor to be written, the first that the card was not told of, and the first not done yet: counted on
    /// without wrapping at the ring's size.
    next: usize,
    announced: usize,
    clean: usize,
    /// Descriptors that were asked to report, a ring of them, oldest first.
    reports: Box<[usize]>,
    oldest_report: usize,
    newest_report: usize,
    /// What the card was last told of offloads.
    pub(super) context: Option<Context>,
    pub(super) parts: TxParts<B>,
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
            slots: (0..n).map(|_| None).collect(),
            mask: n - 1,
            next: 0,
            announced: 0,
            clean: 0,
            reports: vec![0; n].into(),
            oldest_report: 0,
            newest_report: 0,
            context: None,
            parts,
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
        let len = mbuf.len();
        let in_range = len.wrapping_sub(MIN_FRAME) <= self.parts.limits.max_frame - MIN_FRAME;
        let is_whole = mbuf.data().len() == len && !mbuf.has_tail();
        in_range & is_whole & mbuf.offload().is_none() & core::ptr::eq(mbuf.pool(), self.parts.pool)
    }

    /// Sends plain packets, for all of which there is room; returns their bytes.
    #[inline(always)]
    fn send_plain(&mut self, burst: &mut Burst<'_>) -> u64 {
        let mut bytes = 0;
        let descs = descriptors(&self.descs, self.mask + 1);
        for mbuf in burst.drain() {
            let len = mbuf.len() as u64;
            let at = self.parts.reach.iova_at(mbuf.data_start()).0;
            // Without a tail it owns its bytes already.
            let Ok(mbuf) = mbuf.own() else { continue };
            let slot = self.next & self.mask;
            descs[slot][0].store(at, Ordering::Relaxed);
            descs[slot][1].store(DATA | EOP | len | len << PAYLEN_SHIFT, Ordering::Relaxed);
            self.slots[slot] = Some(mbuf);
            self.next += 1;
            bytes += len;
        }
        bytes
    }

    /// Writes the next descriptor.
    #[inline(always)]
    pub(super) fn write(&mut self, words: [u64; 2]) {
        let desc = &self.descs()[self.next & self.mask];
        desc[0].store(words[0], Ordering::Relaxed);
        desc[1].store(words[1], Ordering::Relaxed);
        self.next += 1;
    }

    /// Leaves a packet's mbuf with the descriptor that was written last, which is its own last one.
    pub(super) fn hold(&mut self, mbuf: Mbuf<'static>) {
        self.slots[(self.next - 1) & self.mask] = Some(mbuf);
        if self.next - self.announced >= ANNOUNCE_AT {
            self.announce();
        }
    }

    /// Asks for a report on the last descriptor, and tells the card of all that were written.
    #[inline(always)]
    fn announce(&mut self) {
        let last = self.next - 1;
        let word = &self.descs()[last & self.mask][1];
        word.store(word.load(Ordering::Relaxed) | RS, Ordering::Relaxed);
        self.reports[self.newest_report & self.mask] = last;
        self.newest_report += 1;
        self.announced = self.next;
        // ORDERING: N2 Release, pairs with the device's reading of descriptors in front of the tail: they are written.
        fence(Ordering::Release);
        let tail = (self.next & self.mask) as u32;
        self.parts.bar.write32(regs::tx(self.parts.queue) + TAIL, tail);
    }

    /// Gives back the mbufs of what was reported done.
    #[inline]
    fn reclaim(&mut self) {
        while self.oldest_report != self.newest_report {
            let last = self.reports[self.oldest_report & self.mask];
            // ORDERING: N1 Acquire, pairs with the device's writing of DD behind its last reading of the packet.
            if self.descs()[last & self.mask][1].load(Ordering::Acquire) & DD == 0 {
                return;
            }
            self.oldest_report += 1;
            self.free_through(last);
        }
    }

    #[inline(always)]
    fn free_through(&mut self, last: usize) {
        let mut done = Burst::new();
        while self.clean <= last {
            if let Some(mbuf) = self.slots[self.clean & self.mask].take()
                && let Err(mbuf) = done.push(mbuf)
            {
                done.clear();
                let pushed = done.push(mbuf);
                debug_assert!(pushed.is_ok(), "it is empty");
            }
            self.clean += 1;
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
        let taken = if n <= self.room() && burst.iter().all(|mbuf| self.is_plain(mbuf)) {
            let bytes = self.send_plain(burst);
            count(counters, n as u64, bytes);
            n
        } else {
            self.send_mixed(burst, counters)
        };
        if self.next - self.announced >= ANNOUNCE_AT {
            self.announce();
        }
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
        let link_is_up = self.parts.link.load(Ordering::Relaxed);
        self.stuck = if is_waiting && link_is_up { self.stuck + 1 } else { 0 };
        self.clean_before = self.clean;
        (self.stuck >= PATIENCE).then_some("a transmit queue is stuck")
    }
}

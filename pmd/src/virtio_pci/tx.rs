//! The transmit ring: packets are lent to the device until it returns them.
//!
//! A packet's header goes in front of its data where the mbuf has the headroom and nobody shares it, and into the ring's own
//! table of headers otherwise.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mbuf::{Burst, GsoKind, Mbuf};

use super::capability::Bell;
use super::header::{HDR_LEN, tx_header};
use super::virtqueue::{BATCH, Piece, RingFault, Used, Virtqueue};
use crate::bus::{DmaArea, Registers};
use crate::nic::Reach;
use crate::offload::{Adapted, OffloadSet, Segmenter, adapt};
use crate::vdev::{Fate, count, send_each};
use crate::{DropReason, QueueCounters, QueueEnv};

/// Pieces that a packet may have, its header included: 64 KiB in mbufs of 2 KiB, and as much again.
const MAX_PIECES: usize = 68;
/// Free descriptors below which the device's used ones are taken back before a burst.
const LOW_WATER: usize = 2 * mbuf::MAX_BURST;
/// Bytes of the ring's own table for each header.
const HEADER_STRIDE: usize = 16;
/// What VLAN tags add to the largest frame.
const TAGS: usize = 8;
/// Checks (one each 10 ms) with the link up and without a packet coming back after which the device is taken to be stuck:
/// five seconds, as the kernel has it. Who is behind the device may make it wait for a while.
const STALL_CHECKS: u32 = 500;

/// What a transmit ring is made of.
pub(super) struct TxSetup<V, B> {
    pub(super) queue: V,
    pub(super) bell: Bell<B>,
    pub(super) reach: Arc<Reach>,
    /// Bytes for [`headers_bytes`] of headers.
    pub(super) headers: DmaArea,
    pub(super) env: QueueEnv,
    pub(super) accepted: OffloadSet,
    /// Longest frame, tags not counted, that need not be cut.
    pub(super) max_frame: usize,
    pub(super) link_up: Arc<AtomicBool>,
}

/// Bytes that the headers of a ring of `size` take.
pub(super) const fn headers_bytes(size: u16) -> usize {
    HEADER_STRIDE * size as usize
}

/// A transmit ring.
pub(super) struct Tx<V, B> {
    // Unmapped (by whichever ring goes last) before the mbufs below are given back.
    setup: TxSetup<V, B>,
    /// By buffer ID: the packet that the device has.
    held: Box<[Option<Mbuf<'static>>]>,
    /// Packets with the device.
    outstanding: usize,
    /// Whether one came back since the last check, and checks since the last one that did.
    moved: bool,
    still: u32,
    /// Doorbells rung and not counted yet.
    rung: u64,
    fault: Option<RingFault>,
}

impl<V: Virtqueue, B: Registers> Tx<V, B> {
    pub(super) fn new(setup: TxSetup<V, B>) -> Self {
        let held = (0..setup.queue.size()).map(|_| None).collect();
        Self { setup, held, outstanding: 0, moved: false, still: 0, rung: 0, fault: None }
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        self.setup.queue.size()
    }

    /// Posts packets from the front of the burst, and lets the device see them all at once.
    #[inline]
    pub(super) fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        if self.setup.queue.free() < LOW_WATER {
            self.reclaim();
        }
        if self.fault.is_some() {
            return 0;
        }
        counters.notifications.add(core::mem::take(&mut self.rung));
        let taken = if self.are_plain(burst) {
            self.send_plain(burst, counters)
        } else {
            send_each(burst, counters, |mbuf| self.send(mbuf))
        };
        self.setup.queue.publish();
        taken
    }

    /// Whether each packet needs nothing but a descriptor, and there is one for each.
    #[inline(always)]
    fn are_plain(&self, burst: &Burst<'_>) -> bool {
        let longest = self.setup.max_frame + TAGS;
        let is_plain = |mbuf: &Mbuf<'_>| {
            let len = mbuf.len();
            let is_short = (1..=longest).contains(&len);
            let is_whole = mbuf.data().len() == len && !mbuf.has_tail();
            let is_ours = core::ptr::eq(mbuf.pool(), self.setup.env.pool) & mbuf.is_unique();
            is_short & is_whole & is_ours & mbuf.offload().is_none() & (mbuf.headroom() >= HDR_LEN)
        };
        burst.len() <= self.setup.queue.free() && burst.iter().all(is_plain)
    }

    /// Sends plain packets: all of them, each with a header of zeroes.
    #[inline(always)]
    fn send_plain(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        let (packets, mut bytes) = (burst.len(), 0);
        let mut pieces = [Piece { addr: mbuf::Iova(0), len: 0, writable: false }; BATCH];
        let mut ids = [0; BATCH];
        for (mbuf, piece) in burst.iter_mut().zip(&mut pieces) {
            bytes += mbuf.len() as u64;
            if let Some(front) = mbuf.prepend(HDR_LEN) {
                front.fill(0);
            }
            (piece.addr, piece.len) = (self.setup.reach.iova_at(mbuf.data_start()), mbuf.len() as u32);
        }
        self.setup.queue.post_each(&pieces[..packets], &mut ids);
        for (mbuf, id) in burst.drain().zip(ids) {
            // Without a tail it owns its bytes already.
            self.held[usize::from(id)] = mbuf.own().ok();
        }
        self.outstanding += packets;
        count(counters, packets as u64, bytes);
        packets
    }

    /// Rings the doorbell for all bursts of the turn, if the device wants that.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.setup.queue.wants_kick() {
            self.setup.bell.ring();
            self.rung += 1;
        }
    }

    #[inline(always)]
    fn send<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        if self.setup.accepted.covers(mbuf.offload()) { self.send_one(mbuf) } else { self.send_adapted(mbuf) }
    }

    /// Sends a packet that the device takes as it is.
    #[inline]
    fn send_one<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        if mbuf.len() > self.setup.max_frame + TAGS && mbuf.offload().gso == GsoKind::None {
            return Fate::Dropped(DropReason::TxTooLong);
        }
        let need = self.pieces_of(&mbuf);
        if need > MAX_PIECES.min(usize::from(self.setup.queue.size())) {
            return Fate::Dropped(DropReason::TxTooLong);
        }
        if !self.has_room(need) {
            return Fate::Full(mbuf);
        }
        match self.setup.reach.bring(mbuf) {
            Ok(mbuf) => self.post(mbuf),
            Err(_) => return Fate::Dropped(DropReason::NoMbufs),
        }
        Fate::Sent
    }

    /// Most pieces that a packet takes, once the device reaches it.
    #[inline(always)]
    fn pieces_of(&self, mbuf: &Mbuf<'_>) -> usize {
        if self.setup.reach.reaches(mbuf) {
            return 1 + mbuf.segment_count();
        }
        1 + mbuf.len().div_ceil(self.setup.env.pool.data_room()).max(1)
    }

    #[inline(always)]
    fn has_room(&mut self, pieces: usize) -> bool {
        if self.setup.queue.free() >= pieces {
            return true;
        }
        self.reclaim();
        self.setup.queue.free() >= pieces && self.fault.is_none()
    }

    /// Lends a packet to the device.
    #[inline]
    fn post(&mut self, mut mbuf: Mbuf<'static>) {
        let header = tx_header(mbuf.offload(), self.setup.accepted);
        let in_front = match mbuf.prepend(HDR_LEN) {
            Some(front) => {
                front.copy_from_slice(&header);
                true
            }
            None => false,
        };
        let id = if in_front && mbuf.segment_count() == 1 {
            let piece = self.piece(mbuf.data());
            self.setup.queue.post(&[piece])
        } else {
            self.post_pieces(&mbuf, (!in_front).then_some(header))
        };
        self.held[usize::from(id)] = Some(mbuf);
        self.outstanding += 1;
    }

    /// Posts a packet of several pieces, the first of them its header if that is not in front of it already.
    #[inline(never)]
    fn post_pieces(&mut self, mbuf: &Mbuf<'static>, header: Option<[u8; HDR_LEN]>) -> u16 {
        let mut pieces = [Piece { addr: mbuf::Iova(0), len: 0, writable: false }; MAX_PIECES];
        let mut count = 0;
        if let Some(header) = header {
            pieces[0] = self.header_piece(&header);
            count = 1;
        }
        for segment in mbuf.segments().filter(|segment| !segment.is_empty()) {
            pieces[count] = self.piece(segment);
            count += 1;
        }
        self.setup.queue.post(&pieces[..count])
    }

    /// Where the device finds bytes that it reaches.
    #[inline(always)]
    fn piece(&self, bytes: &[u8]) -> Piece {
        let addr = self.setup.reach.iova(bytes).expect("the packet was brought within the device's reach");
        Piece { addr, len: bytes.len() as u32, writable: false }
    }

    /// Writes the next buffer's header to its place in the table.
    fn header_piece(&self, header: &[u8; HDR_LEN]) -> Piece {
        let at = HEADER_STRIDE * usize::from(self.setup.queue.next_id());
        let mut bytes = [0; HEADER_STRIDE];
        bytes[..HDR_LEN].copy_from_slice(header);
        let (words, _) = bytes.as_chunks::<8>();
        for (place, word) in self.setup.headers.words64(at, words.len()).iter().zip(words) {
            place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        Piece { addr: self.setup.headers.iova(at), len: HDR_LEN as u32, writable: false }
    }

    /// Sends a packet after the work that the device cannot do.
    #[cold]
    fn send_adapted<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        if mbuf.offload().gso == GsoKind::None {
            return match adapt(mbuf, self.setup.accepted) {
                Ok(Adapted::One(mbuf)) => self.send_one(mbuf),
                Ok(Adapted::Many(_)) => Fate::Dropped(DropReason::TxOffload),
                Err(reason) => Fate::Dropped(reason),
            };
        }
        // A second handle: if the ring has no room, the packet stays whole.
        match Segmenter::new(mbuf.share()) {
            Ok(segments) if self.has_room(self.pieces_of_all(&segments)) => self.send_segments(segments),
            Ok(segments) if self.pieces_of_all(&segments) > usize::from(self.setup.queue.size()) => {
                Fate::Dropped(DropReason::TxTooLong)
            }
            Ok(_) => Fate::Full(mbuf),
            Err(reason) => Fate::Dropped(reason),
        }
    }

    /// Most pieces that the segments of a packet take, all together.
    fn pieces_of_all(&self, segments: &Segmenter<'_>) -> usize {
        let packet = segments.packet();
        let each = packet.len().min(usize::from(packet.offload().gso_size) + usize::from(u8::MAX));
        let room = self.setup.env.pool.data_room().min(packet.pool().data_room());
        segments.remaining() * (1 + each.div_ceil(room))
    }

    /// Sends what one packet is cut into. It counts as one, sent or dropped.
    fn send_segments<'t>(&mut self, segments: Segmenter<'_>) -> Fate<'t> {
        for segment in segments {
            let Ok(segment) = segment else { return Fate::Dropped(DropReason::NoMbufs) };
            if let Fate::Dropped(reason) = self.send_one(segment) {
                return Fate::Dropped(reason);
            }
        }
        Fate::Sent
    }

    /// Takes back what the device is done with.
    #[inline]
    fn reclaim(&mut self) {
        let mut used = [Used::NONE; BATCH];
        while self.outstanding > 0 && self.fault.is_none() {
            let n = match self.setup.queue.take_used(&mut used) {
                Ok(0) => break,
                Ok(n) => n,
                Err(fault) => return self.fault = Some(fault),
            };
            let mut done = Burst::new();
            for used in &used[..n] {
                if let Some(mbuf) = self.held[usize::from(used.id)].take() {
                    let pushed = done.push(mbuf);
                    debug_assert!(pushed.is_ok(), "no more than a burst");
                }
            }
            self.outstanding -= n;
            self.moved = true;
        }
    }

    /// Gives back what the device is done with; says when it does not seem to be at work any more.
    pub(super) fn check(&mut self) -> Option<&'static str> {
        self.reclaim();
        let expected = self.outstanding > 0 && self.setup.link_up.load(Ordering::Relaxed);
        let is_still = expected && !core::mem::take(&mut self.moved);
        self.still = if is_still { self.still + 1 } else { 0 };
        if self.still > STALL_CHECKS {
            self.fault = Some(RingFault::TransmitStalled);
        }
        self.fault.map(RingFault::why)
    }
}

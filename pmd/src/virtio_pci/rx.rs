//! The receive ring: used buffers become packets, fresh mbufs take their places.
//!
//! A buffer is one mbuf. Its header is written into the end of the mbuf's headroom, so that the frame starts where a fresh
//! mbuf's data would.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use mbuf::{Burst, Mbuf, NoMbufs};

use super::capability::Bell;
use super::header::{HDR_LEN, RxHeader};
use super::virtqueue::{BATCH, Piece, RingFault, Used, Virtqueue, WHOLE};
use crate::bus::Registers;
use crate::nic::Reach;
use crate::offload::{OffloadSet, from_virtio_net};
use crate::vdev::{MAX_FRAME, MIN_FRAME, count};
use crate::{DropReason, QueueCounters, QueueEnv};

/// Checks (one each 10 ms) during which a packet may stay unfinished: a device publishes all buffers of one at once
/// (§5.1.6.4).
const PATIENCE: u32 = 50;

/// What a receive ring is made of.
pub(super) struct RxSetup<V, B> {
    pub(super) queue: V,
    pub(super) bell: Bell<B>,
    pub(super) reach: Arc<Reach>,
    pub(super) event: Option<OwnedFd>,
    pub(super) env: QueueEnv,
    pub(super) mergeable: bool,
    pub(super) allowed: OffloadSet,
}

/// A receive ring.
pub(super) struct Rx<V, B> {
    // Unmapped (by whichever ring goes last) before the mbufs below are given back.
    setup: RxSetup<V, B>,
    /// By buffer ID: the mbuf that the device has.
    held: Box<[Option<Mbuf<'static>>]>,
    /// A packet of which buffers are still to come.
    unfinished: Option<Unfinished>,
    /// Checks since it began.
    waited: u32,
    fault: Option<RingFault>,
}

/// The first buffers of a packet.
struct Unfinished {
    /// Or why it is to be thrown away.
    packet: Result<Mbuf<'static>, DropReason>,
    header: RxHeader,
    /// Buffers that are still to come.
    left: u16,
    /// Bytes so far.
    len: usize,
}

/// A burst in the making.
struct Taking<'b, 't> {
    burst: &'b mut Burst<'t>,
    counters: &'b QueueCounters,
    /// Packets that came and were dropped, and their bytes.
    dropped: u64,
    dropped_bytes: u64,
}

impl Taking<'_, '_> {
    /// Drops a packet of so many bytes.
    #[cold]
    fn drop_one(&mut self, reason: DropReason, bytes: usize) {
        self.dropped += 1;
        self.dropped_bytes += bytes as u64;
        self.counters.drop_packets(reason, 1);
    }

    /// Counts what came since the burst had `before` packets; returns how many it has more.
    #[inline(always)]
    fn finish(self, before: usize) -> usize {
        let fresh = &self.burst[before..];
        let bytes: u64 = fresh.iter().map(|mbuf| mbuf.len() as u64).sum();
        count(self.counters, fresh.len() as u64 + self.dropped, bytes + self.dropped_bytes);
        fresh.len()
    }
}

impl<V: Virtqueue, B: Registers> Rx<V, B> {
    /// A ring with as many buffers posted as fit.
    ///
    /// # Errors
    /// [`NoMbufs`] if the pool has not even a few.
    pub(super) fn new(setup: RxSetup<V, B>) -> Result<Self, NoMbufs> {
        let held = (0..setup.queue.size()).map(|_| None).collect();
        let mut ring = Self { setup, held, unfinished: None, waited: 0, fault: None };
        ring.post_batches();
        if ring.held.iter().all(Option::is_none) { Err(NoMbufs) } else { Ok(ring) }
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        self.setup.queue.size()
    }

    /// Tells the device about the first buffers, once it runs.
    pub(super) fn kick(&self) {
        self.setup.bell.ring();
    }

    /// Takes what came in, and posts fresh buffers.
    #[inline]
    pub(super) fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        let before = burst.len();
        let mut taking = Taking { burst, counters, dropped: 0, dropped_bytes: 0 };
        self.fault = self.receive(&mut taking).err();
        let received = taking.finish(before);
        if self.refill() {
            counters.notifications.add(1);
        }
        received
    }

    #[inline(always)]
    fn receive(&mut self, taking: &mut Taking<'_, '_>) -> Result<(), RingFault> {
        let mut used = [Used::NONE; BATCH];
        loop {
            // As many buffers as packets could come: more only if these were less than a packet each.
            let room = taking.burst.room();
            let n = self.setup.queue.take_used(&mut used[..room])?;
            self.take(&used[..n], taking)?;
            if n < room || taking.burst.room() == 0 {
                return Ok(());
            }
        }
    }

    /// Makes packets of used buffers, for all of which the burst has room.
    #[inline(always)]
    fn take(&mut self, used: &[Used], taking: &mut Taking<'_, '_>) -> Result<(), RingFault> {
        for used in used {
            let mut mbuf = self.held[usize::from(used.id)].take().ok_or(RingFault::UsedId)?;
            let written = written(&mut mbuf, used.len)?;
            if self.unfinished.is_some() {
                mbuf.set_filled(0, written);
                self.continued(mbuf, taking)?;
                continue;
            }
            // The data of a posted mbuf is the header.
            let (Some(header), Some(len)) = (RxHeader::from_bytes(mbuf.data()), written.checked_sub(HDR_LEN))
            else {
                taking.drop_one(DropReason::RxError, written);
                continue;
            };
            mbuf.set_filled(HDR_LEN, len);
            if self.setup.mergeable && header.num_buffers() > 1 {
                self.begun(mbuf, header)?;
            } else {
                self.finished(mbuf, &header, taking);
            }
        }
        Ok(())
    }

    /// A packet is whole: labels it and hands it over, or counts why not.
    #[inline(always)]
    fn finished(&self, mut mbuf: Mbuf<'static>, header: &RxHeader, taking: &mut Taking<'_, '_>) {
        let len = mbuf.len();
        if len < MIN_FRAME {
            return taking.drop_one(DropReason::RxTooShort, len);
        }
        if !header.is_plain() {
            match from_virtio_net(&header.hdr(), mbuf.data(), len, self.setup.allowed) {
                Ok(offload) => mbuf.set_offload(offload),
                Err(lie) => return taking.drop_one(lie.into(), len),
            }
        }
        mbuf.set_port(self.setup.env.port);
        let pushed = taking.burst.push(mbuf);
        debug_assert!(pushed.is_ok(), "there was room");
    }

    /// The first of several buffers.
    #[cold]
    fn begun(&mut self, mbuf: Mbuf<'static>, header: RxHeader) -> Result<(), RingFault> {
        if header.num_buffers() > self.setup.queue.size() {
            return Err(RingFault::BufferCount);
        }
        let (len, left) = (mbuf.len(), header.num_buffers() - 1);
        self.unfinished = Some(Unfinished { packet: Ok(mbuf), header, left, len });
        self.waited = 0;
        Ok(())
    }

    /// One more of them.
    #[cold]
    fn continued(&mut self, more: Mbuf<'static>, taking: &mut Taking<'_, '_>) -> Result<(), RingFault> {
        let Some(mut unfinished) = self.unfinished.take() else { return Err(RingFault::Unfinished) };
        unfinished.left -= 1;
        unfinished.hang_on(more);
        match unfinished.packet {
            _ if unfinished.left > 0 => self.unfinished = Some(unfinished),
            Ok(mbuf) => self.finished(mbuf, &unfinished.header, taking),
            Err(reason) => taking.drop_one(reason, unfinished.len),
        }
        Ok(())
    }

    /// Posts fresh buffers if there is room for a batch of them; whether the doorbell was rung.
    #[inline]
    fn refill(&mut self) -> bool {
        if self.setup.queue.free() < self.batch() {
            return false;
        }
        self.post_batches();
        let wanted = self.setup.queue.wants_kick();
        if wanted {
            self.setup.bell.ring();
        }
        wanted
    }

    #[inline]
    fn batch(&self) -> usize {
        BATCH.min(usize::from(self.setup.queue.size()))
    }

    /// Posts as many batches as there are mbufs and room for.
    #[inline]
    fn post_batches(&mut self) {
        let QueueEnv { pool, port } = self.setup.env;
        let batch = self.batch();
        let mut fresh = Burst::new();
        while self.setup.queue.free() >= batch && pool.alloc_bulk(&mut fresh, batch, port).is_ok() {
            self.post(&mut fresh);
        }
        self.setup.queue.publish();
    }

    /// Posts fresh mbufs, each with room for the header in front of its data.
    #[inline(always)]
    fn post(&mut self, fresh: &mut Burst<'static>) {
        let mut pieces = [Piece { addr: mbuf::Iova(0), len: 0, writable: true }; BATCH];
        let mut ids = [0; BATCH];
        for (mbuf, piece) in fresh.iter_mut().zip(&mut pieces) {
            let headed = mbuf.prepend(HDR_LEN).is_some();
            debug_assert!(headed, "a fresh mbuf has headroom");
            let (start, room) = mbuf.spare();
            (piece.addr, piece.len) = (self.setup.reach.iova_at(start), room as u32);
        }
        self.setup.queue.post_each(&pieces[..fresh.len()], &mut ids);
        for (mbuf, id) in fresh.drain().zip(ids) {
            self.held[usize::from(id)] = Some(mbuf);
        }
    }

    /// Looks after the ring between bursts.
    pub(super) fn check(&mut self) -> Option<&'static str> {
        self.waited += 1;
        if self.unfinished.is_some() && self.waited > PATIENCE {
            self.fault = Some(RingFault::Unfinished);
        }
        if self.fault.is_none() {
            // The pool may have been empty, and nobody come by since.
            self.refill();
        }
        self.fault.map(RingFault::why)
    }

    /// Has the device signal the ring's event at the next packet.
    pub(super) fn arm(&mut self) -> bool {
        self.setup.event.is_some() && self.fault.is_none() && self.setup.queue.arm()
    }

    /// Ends that, and takes the signal back.
    pub(super) fn disarm(&mut self) {
        self.setup.queue.disarm();
        if let Some(event) = &self.setup.event {
            // Nothing to read if it was not signalled.
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
    }
}

/// Bytes that the device wrote into a buffer, header included, as far as that can be.
#[inline(always)]
fn written(mbuf: &mut Mbuf<'static>, said: u32) -> Result<usize, RingFault> {
    let (_, room) = mbuf.spare();
    match said {
        WHOLE => Ok(room),
        said if said as usize <= room => Ok(said as usize),
        _ => Err(RingFault::UsedLength),
    }
}

impl Unfinished {
    /// Hangs on what another buffer brought.
    fn hang_on(&mut self, more: Mbuf<'static>) {
        self.len += more.len();
        if self.len > MAX_FRAME {
            self.packet = Err(DropReason::RxTooLong);
        }
        if let Ok(packet) = &mut self.packet
            && more.len() > 0
            && packet.chain(more).is_err()
        {
            self.packet = Err(DropReason::RxError);
        }
    }
}

//! The transmit half of a queue: frames go out by the transmit ring, their buffers come back by the completion ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mbuf::{Burst, MAX_BURST, Mbuf};
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use crate::nic::{Ring, TxRing};
use crate::offload::{Adapted, OffloadSet, adapt};
use crate::vdev::af_xdp::custody::Custody;
use crate::vdev::af_xdp::parts::Parts;
use crate::vdev::af_xdp::queue::QueueEnd;
use crate::vdev::af_xdp::ring::{Consumer, Producer};
use crate::vdev::af_xdp::socket::TX_ENTRIES;
use crate::vdev::burst::{Fate, send_each};
use crate::vdev::frame::MIN_FRAME;
use crate::{DropReason, QueueCounters};

/// Wakings after one another at most. In copy mode each sends up to 32 frames.
const WAKINGS: u32 = 2 * TX_ENTRIES / 32;
/// Bytes by which a frame with a VLAN tag may exceed the longest without.
const TAG: usize = 4;

/// The rings come first, so that they are unmapped before the queue's end, which comes last, closes the socket.
#[derive(Debug)]
pub(crate) struct AfXdpTx {
    tx: Producer<XdpDesc>,
    completion: Consumer<u64>,
    custody: Custody,
    parts: Parts,
    /// The interface's longest frame, without a tag.
    max_frame: Arc<AtomicUsize>,
    end: Arc<QueueEnd>,
}

impl AfXdpTx {
    pub(crate) fn new(
        (tx, completion): (Producer<XdpDesc>, Consumer<u64>),
        custody: Custody,
        parts: Parts,
        max_frame: Arc<AtomicUsize>,
        end: Arc<QueueEnd>,
    ) -> Self {
        Self { tx, completion, custody, parts, max_frame, end }
    }

    /// Gives back the mbufs that the kernel is done with.
    #[inline]
    fn reclaim(&mut self) {
        let mut left = self.completion.available();
        if left == 0 {
            return;
        }
        let mut done = Burst::new();
        while left > 0 {
            left -= 1;
            match self.custody.take_back(self.completion.take()) {
                Some(mbuf) => drop(done.push(mbuf)),
                None => self.end.count_stray(),
            }
            if done.room() == 0 {
                done.clear();
            }
        }
        self.completion.release();
    }

    /// Whether any frame will find room in the ring. Has the kernel make some if need be.
    #[inline]
    fn has_room(&mut self) -> bool {
        let need = self.parts.at_most() as u32;
        self.tx.room(need) >= need || {
            self.flush();
            self.tx.room(need) >= need
        }
    }

    #[inline]
    fn send<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        if !self.has_room() {
            return Fate::Full(mbuf);
        }
        let sent = match adapt(mbuf, OffloadSet::NONE) {
            Ok(Adapted::One(mbuf)) => self.post(mbuf),
            Ok(Adapted::Many(segments)) => segments
                .into_iter()
                .try_for_each(|s| s.map_err(|_| DropReason::NoMbufs).and_then(|s| self.post_if_room(s))),
            Err(reason) => Err(reason),
        };
        sent.map_or_else(Fate::Dropped, |()| Fate::Sent)
    }

    fn post_if_room(&mut self, mbuf: Mbuf<'static>) -> Result<(), DropReason> {
        if self.has_room() { self.post(mbuf) } else { Err(DropReason::TxFull) }
    }

    /// Puts a finished frame into the ring, in one piece if it is one.
    #[inline]
    fn post(&mut self, mbuf: Mbuf<'_>) -> Result<(), DropReason> {
        self.check_length(&mbuf)?;
        if self.parts.is_one(&mbuf) && !self.custody.has(&mbuf) {
            let mbuf = mbuf.own().map_err(|_| DropReason::NoMbufs)?;
            return put(&mut self.tx, &mut self.custody, mbuf, XdpDescOptions::empty());
        }
        let mut parts = self.parts.of(mbuf)?;
        let last = parts.len() - 1;
        for (i, part) in parts.drain().enumerate() {
            let more = if i == last { XdpDescOptions::empty() } else { XdpDescOptions::XDP_PKT_CONTD };
            put(&mut self.tx, &mut self.custody, part, more)?;
        }
        Ok(())
    }

    #[inline]
    fn check_length(&self, mbuf: &Mbuf<'_>) -> Result<(), DropReason> {
        let max_frame = self.max_frame.load(Ordering::Relaxed);
        if mbuf.len() > max_frame && !(mbuf.len() <= max_frame + TAG && is_tagged(mbuf)) {
            return Err(DropReason::TxTooLong);
        }
        if mbuf.len() < MIN_FRAME { Err(DropReason::TxError) } else { Ok(()) }
    }

    /// Has the kernel send what stands in the ring, again and again as long as it gets on with it. What is in its way (no
    /// room on the way out, an interface that is down) shows in that it does not.
    #[inline(never)]
    fn wake(&mut self) {
        let mut before = self.tx.pending();
        for _ in 0..WAKINGS {
            self.end.wake_tx();
            self.reclaim();
            let left = self.tx.pending();
            // A device by itself goes on after the call.
            if left == 0 || left >= before || self.end.zero_copy {
                break;
            }
            before = left;
        }
        let is_left_over = !self.end.zero_copy && self.tx.pending() > 0;
        self.end.left_over.store(is_left_over, Ordering::Relaxed);
    }
}

/// Lends a part to the kernel. Whoever made it has seen that it can be.
#[inline]
fn put(
    tx: &mut Producer<XdpDesc>,
    custody: &mut Custody,
    part: Mbuf<'static>,
    options: XdpDescOptions,
) -> Result<(), DropReason> {
    let (addr, len) = (custody.umem().data_of(&part) as u64, part.len() as u32);
    let lent = custody.lend(part);
    debug_assert!(lent.is_ok(), "of our memory, and not lent yet");
    lent.map_err(|_| DropReason::TxError)?;
    tx.put(XdpDesc { addr, len, options });
    Ok(())
}

#[cold]
fn is_tagged(mbuf: &Mbuf<'_>) -> bool {
    mbuf.data().get(12..14).is_some_and(|t| t == [0x81, 0x00] || t == [0x88, 0xa8])
}

const _: () = assert!(crate::vdev::af_xdp::parts::MAX_PARTS <= MAX_BURST);

impl Ring for AfXdpTx {
    fn check(&mut self) -> Option<&'static str> {
        self.reclaim();
        None
    }
}

impl TxRing for AfXdpTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        self.reclaim();
        let taken = send_each(burst, counters, |mbuf| self.send(mbuf));
        self.tx.publish();
        taken
    }

    fn flush(&mut self) {
        self.tx.publish();
        if self.tx.needs_wakeup() {
            self.wake();
        }
    }
}

impl Drop for AfXdpTx {
    fn drop(&mut self) {
        self.end.inherit(self.custody.hand_over());
    }
}

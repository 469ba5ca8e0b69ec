//! The receive half of a queue: buffers go out by the fill ring, frames come in by the receive ring.

use std::sync::Arc;

use mbuf::{Burst, Mbuf};
use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use crate::nic::{Ring, RxRing};
use crate::vdev::af_xdp::custody::Custody;
use crate::vdev::af_xdp::fill::Fill;
use crate::vdev::af_xdp::queue::QueueEnd;
use crate::vdev::af_xdp::ring::Consumer;
use crate::vdev::af_xdp::unfinished;
use crate::vdev::burst::{admit, count};
use crate::vdev::frame::{MAX_FRAME, MIN_FRAME};
use crate::{DropReason, QueueCounters};

/// The rings come first, so that they are unmapped before the queue's end, which comes last, closes the socket.
#[derive(Debug)]
pub(crate) struct AfXdpRx {
    rx: Consumer<XdpDesc>,
    fill: Fill,
    /// What came so far of a frame in several buffers.
    frame: Assembly,
    /// Whether frames may come whose checksums were left to somebody else.
    may_be_unfinished: bool,
    end: Arc<QueueEnd>,
}

impl AfXdpRx {
    pub(crate) fn new(
        rx: Consumer<XdpDesc>,
        fill: Fill,
        may_be_unfinished: bool,
        end: Arc<QueueEnd>,
    ) -> Self {
        Self { rx, fill, frame: Assembly::default(), may_be_unfinished, end }
    }

    /// Takes in one descriptor; what became of the frame if it was its last.
    #[inline]
    fn receive(&mut self, desc: &XdpDesc) -> Option<Result<Mbuf<'static>, DropReason>> {
        let piece = piece(&mut self.fill.custody, desc);
        if piece.is_none() {
            self.end.count_stray();
        }
        self.frame.add(piece);
        if desc.options.contains(XdpDescOptions::XDP_PKT_CONTD) {
            return None;
        }
        Some(self.frame.take().and_then(|mbuf| self.accept(mbuf)))
    }

    #[inline]
    fn accept(&self, mut mbuf: Mbuf<'static>) -> Result<Mbuf<'static>, DropReason> {
        if mbuf.len() < MIN_FRAME {
            return Err(DropReason::RxTooShort);
        }
        mbuf.set_port(self.fill.env.port);
        if self.may_be_unfinished {
            let owed = unfinished::owed(mbuf.data(), mbuf.len());
            mbuf.set_offload(owed);
        }
        Ok(mbuf)
    }
}

/// The mbuf that a descriptor names, filled as it says. One that nobody lent, or that says more than there is, is none.
#[inline]
fn piece(custody: &mut Custody, desc: &XdpDesc) -> Option<Mbuf<'static>> {
    let mut mbuf = custody.take_back(desc.addr)?;
    let len = desc.len as usize;
    let skip = custody.umem().place_in(&mbuf, desc.addr, len)?;
    mbuf.set_filled(skip, len);
    Some(mbuf)
}

/// A frame on its way together.
#[derive(Debug, Default)]
struct Assembly {
    packet: Option<Mbuf<'static>>,
    broken: Option<DropReason>,
}

impl Assembly {
    /// Hangs a piece on; without one the frame is broken.
    #[inline]
    fn add(&mut self, piece: Option<Mbuf<'static>>) {
        match (piece, &mut self.packet) {
            (None, _) => self.break_off(DropReason::RxError),
            (Some(piece), packet @ None) => *packet = Some(piece),
            (Some(piece), Some(packet)) => {
                if packet.len() + piece.len() > MAX_FRAME {
                    self.break_off(DropReason::RxTooLong);
                } else if packet.chain(piece).is_err() {
                    self.break_off(DropReason::RxError);
                }
            }
        }
    }

    /// The first reason is the frame's; later pieces are let go of.
    #[cold]
    fn break_off(&mut self, reason: DropReason) {
        self.broken.get_or_insert(reason);
        self.packet = None;
    }

    /// The frame, and an empty place for the next.
    #[inline]
    fn take(&mut self) -> Result<Mbuf<'static>, DropReason> {
        let packet = self.packet.take();
        match self.broken.take() {
            None => packet.ok_or(DropReason::RxError),
            Some(reason) => Err(reason),
        }
    }
}

impl Ring for AfXdpRx {}

impl RxRing for AfXdpRx {
    fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        self.fill.refill();
        let mut left = self.rx.available();
        if left == 0 {
            return 0;
        }
        let (before, mut packets, mut bytes) = (burst.len(), 0, 0);
        while left > 0 && burst.room() > 0 {
            left -= 1;
            let desc = self.rx.take();
            bytes += u64::from(desc.len);
            if let Some(came) = self.receive(&desc) {
                packets += 1;
                admit(burst, came.map(|m| m as Mbuf<'_>), counters);
            }
        }
        self.rx.release();
        count(counters, packets, bytes);
        burst.len() - before
    }

    /// The socket is readable whenever its receive ring is not empty: nothing to be asked for, and nothing to be taken back.
    fn arm(&mut self) -> bool {
        self.rx.available() == 0
    }
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig};

    use super::*;

    fn pieces(n: usize, len: usize) -> (&'static Mempool, Vec<Mbuf<'static>>) {
        let pool = Mempool::new(&MempoolConfig { mbufs: n, cache: 0, ..MempoolConfig::default() }).unwrap();
        let piece = |_| {
            let mut mbuf = pool.alloc(0).unwrap();
            mbuf.append(len).unwrap();
            mbuf
        };
        (pool, (0..n).map(piece).collect())
    }

    #[test]
    fn pieces_become_a_frame_and_the_next_starts_anew() {
        let (pool, all) = pieces(6, 100);
        let mut frame = Assembly::default();
        for (i, piece) in all.into_iter().enumerate() {
            frame.add(Some(piece));
            if i % 3 == 2 {
                let packet = frame.take().unwrap();
                assert_eq!((packet.len(), packet.segment_count()), (300, 3));
            }
        }
        assert_eq!(frame.take().err(), Some(DropReason::RxError), "nothing came");
        assert_eq!(pool.balance().out, 0);
    }

    #[test]
    fn a_frame_with_a_piece_missing_or_too_many_is_let_go_of_whole() {
        let (pool, mut all) = pieces(40, 2000);
        let mut frame = Assembly::default();
        frame.add(all.pop());
        frame.add(None);
        frame.add(all.pop());
        assert_eq!(frame.take().err(), Some(DropReason::RxError));
        assert_eq!(pool.balance().out, 38);
        all.drain(..).for_each(|piece| frame.add(Some(piece)));
        assert_eq!(frame.take().err(), Some(DropReason::RxTooLong));
        assert_eq!(pool.balance().out, 0);
    }
}

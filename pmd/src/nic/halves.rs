//! A NIC port's halves: the traits that lcores know, around rings that come and go.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::Burst;

use super::slot::Slot;
use super::{RxRing, TxRing};
use crate::wake::Wake;
use crate::{DropReason, QueueCounters, RxQueue, TxQueue};

/// The receive half.
pub(super) struct NicRx<R> {
    pub(super) slot: Arc<Slot<R>>,
    pub(super) counters: Arc<CachePadded<QueueCounters>>,
    pub(super) wake: Option<Arc<Wake>>,
    pub(super) reflects: bool,
}

impl<R: RxRing> RxQueue for NicRx<R> {
    #[inline]
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        self.slot.run(|ring| ring.rx_burst(burst, &self.counters)).unwrap_or(0)
    }

    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn reflects(&self) -> bool {
        self.reflects
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(|wake| wake.fd())
    }

    fn arm(&mut self) -> bool {
        // No ring, or one that is being changed: the watch thread nudges when that is over.
        self.wake.is_some() && self.slot.run(RxRing::arm).unwrap_or(!self.slot.is_ready())
    }

    fn disarm(&mut self) {
        self.slot.run(RxRing::disarm);
        if let Some(wake) = &self.wake {
            wake.clear();
        }
    }
}

/// The transmit half.
pub(super) struct NicTx<T> {
    pub(super) slot: Arc<Slot<T>>,
    pub(super) counters: Arc<CachePadded<QueueCounters>>,
}

impl<T: TxRing> TxQueue for NicTx<T> {
    #[inline]
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.slot.is_ready() {
            let n = burst.len();
            self.drop_burst(burst, DropReason::TxNotReady);
            return n;
        }
        self.slot.run_soon(|ring| ring.tx_burst(burst, &self.counters)).unwrap_or(0)
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        self.counters.drop_packets(reason, burst.len() as u64);
        burst.clear();
    }

    #[inline]
    fn flush(&mut self) {
        self.slot.run_soon(TxRing::flush);
    }

    fn keeps(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }
}

//! What the kernel dropped before we saw it, over all queues. The kernel counts; we show.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::vdev::af_xdp::queue::QueueEnd;
use crate::vdev::af_xdp::socket::Socket;

/// Sums of XDP_STATISTICS, and of what we found odd ourselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Frames that were too long, or came while nothing was bound.
    dropped: u64,
    /// Frames for which the receive ring had no room: we did not come round in time.
    ring_full: u64,
    /// Frames for which there was no buffer: the pool is too small.
    fill_empty: u64,
    /// Descriptors that the kernel refused. Ours are none.
    invalid: u64,
    /// Addresses from the kernel that were not lent to it.
    strays: u64,
}

impl Totals {
    pub(crate) fn of(ends: &[Arc<QueueEnd>]) -> Self {
        let mut sum = Self::default();
        for end in ends {
            sum.strays += end.strays.load(Ordering::Relaxed);
            let Some(Ok(s)) = end.socket().map(Socket::statistics) else { continue };
            sum.dropped += s.rx_dropped;
            sum.ring_full += s.rx_ring_full.unwrap_or(0);
            sum.fill_empty += s.rx_fill_ring_empty_descs.unwrap_or(0);
            sum.invalid += s.rx_invalid_descs + s.tx_invalid_descs;
        }
        sum
    }

    /// As `polder port show` tells it; kernel's names where it has some.
    pub(crate) fn details(&self) -> [(&'static str, String); 5] {
        [
            ("kernel: rx_dropped", self.dropped.to_string()),
            ("kernel: rx_ring_full", self.ring_full.to_string()),
            ("kernel: rx_fill_ring_empty", self.fill_empty.to_string()),
            ("kernel: invalid descriptors", self.invalid.to_string()),
            ("stray addresses", self.strays.to_string()),
        ]
    }
}

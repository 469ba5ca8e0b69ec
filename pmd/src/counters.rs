//! Counters: one writer each, any number of readers, no locked instruction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::DropReason;

/// A 64-bit counter that one thread at a time adds to and anybody reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the counter's one writer may call this: two at once lose counts (they harm nothing else).
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// What it stands at.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one queue half counts.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Packets that came in, dropped ones included (receive), or that the receiver got (transmit).
    pub packets: Counter,
    /// Their bytes, as Ethernet frames without FCS.
    pub bytes: Counter,
    /// Dropped packets by reason. Receive: of those counted in `packets`. Transmit: not counted in `packets`.
    pub drops: [Counter; DropReason::COUNT],
    /// Bursts that moved at least one packet.
    pub bursts: Counter,
    /// Notifications sent to the peer (calls, doorbells).
    pub notifications: Counter,
}

impl QueueCounters {
    /// Counts `n` packets dropped for `reason`.
    #[inline]
    pub fn drop_packets(&self, reason: DropReason, n: u64) {
        self.drops[reason as usize].add(n);
    }
}

/// A port's counters, queue by queue.
#[derive(Debug, Default, Clone)]
pub struct PortCounters {
    /// One for each receive half.
    pub rx: Vec<Arc<CachePadded<QueueCounters>>>,
    /// One for each transmit half.
    pub tx: Vec<Arc<CachePadded<QueueCounters>>>,
}

impl PortCounters {
    /// Fresh ones for so many queues.
    #[must_use]
    pub fn new(rx_queues: usize, tx_queues: usize) -> Self {
        let make = |n| (0..n).map(|_| Arc::default()).collect();
        Self { rx: make(rx_queues), tx: make(tx_queues) }
    }
}

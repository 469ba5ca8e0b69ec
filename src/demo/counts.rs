//! What the guests' thread tells about itself while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::guest::Station;

/// Frames received so far, way by way, and whether the thread is to end or has given up. Hints: nothing is ordered by
/// them.
#[derive(Debug, Default)]
pub(super) struct Shared {
    received: [AtomicU64; 2],
    bad: [AtomicU64; 2],
    stop: AtomicBool,
    stalled: AtomicBool,
}

/// One look at them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Good frames, by way: a to b, b to a.
    pub(super) received: [u64; 2],
    /// Lost, changed, doubled or overtaken ones.
    pub(super) bad: [u64; 2],
}

impl Shared {
    pub(super) fn publish(&self, stations: &[Station; 2]) {
        for (way, receiver) in [1, 0].into_iter().enumerate() {
            let tally = stations[receiver].tally();
            self.received[way].store(tally.received, Ordering::Relaxed);
            let bad = tally.lost + tally.corrupted + tally.duplicated + tally.reordered;
            self.bad[way].store(bad, Ordering::Relaxed);
        }
    }

    pub(super) fn look(&self) -> Counts {
        let load =
            |counts: &[AtomicU64; 2]| [counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed)];
        Counts { received: load(&self.received), bad: load(&self.bad) }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

//! CLOCK_MONOTONIC, or a clock that a test turns by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where a switch takes its time from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's monotonic clock, from this moment on.
    Monotonic(Instant),
    /// Nanoseconds that somebody else sets, for tests.
    Manual(Arc<AtomicU64>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::Monotonic(Instant::now())
    }
}

impl Clock {
    /// A clock that stands at 0 until [`advance`](Self::advance) is called.
    #[must_use]
    pub fn manual() -> Self {
        Self::Manual(Arc::default())
    }

    /// Turns a manual clock; the system's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(ns) = self {
            ns.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Nanoseconds since the clock was made.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        match self {
            Self::Monotonic(start) => start.elapsed().as_nanos() as u64,
            Self::Manual(ns) => ns.load(Ordering::Relaxed),
        }
    }
}

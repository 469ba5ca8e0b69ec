//! The flag by which others know that an lcore sleeps, so that they make a system call only then.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicBool, fence};

/// Whether an lcore sleeps, or is about to.
#[derive(Debug)]
pub(crate) struct Asleep(AtomicBool);

impl Asleep {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether the lcore is to be woken, after something was put into one of its rings. One of those who ask at once is told.
    #[inline]
    pub(crate) fn is_to_be_woken(&self) -> bool {
        // ORDERING: S1 full fence between filling a ring and reading the flag, pairs with S2: either the sleeper sees what
        // is in the ring, or the flag is seen here.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }

    /// Says that the lcore is about to sleep. It looks into its rings once more after this.
    pub(crate) fn lie_down(&self) {
        self.0.store(true, Ordering::Relaxed);
        // ORDERING: S2 full fence between raising the flag and looking into the rings, pairs with S1.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn get_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

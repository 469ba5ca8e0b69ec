//! Whether a port still is: set by the port, looked at by its halves once a burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::PortError;

/// The port's end. Dropping it tells all [`Life`]s.
#[derive(Debug)]
pub(crate) struct Owner {
    life: Life,
    opened: bool,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { life: Life(Arc::new(AtomicBool::new(true))), opened: false }
    }

    /// For each half one.
    pub(crate) fn life(&self) -> Life {
        self.life.clone()
    }

    /// Fails if the queues were made before.
    pub(crate) fn check_unopened(&self) -> Result<(), PortError> {
        if self.opened { Err(PortError::QueuesTaken) } else { Ok(()) }
    }

    /// Notes that the queues are made.
    pub(crate) fn set_opened(&mut self) {
        self.opened = true;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.life.0.store(false, Ordering::Relaxed);
    }
}

/// A half's end.
#[derive(Clone, Debug)]
pub(crate) struct Life(Arc<AtomicBool>);

impl Life {
    /// Whether the port still is. A hint that comes true soon: nothing else is ordered by it.
    #[inline]
    pub(crate) fn is_alive(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

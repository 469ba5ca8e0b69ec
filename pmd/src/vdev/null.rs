//! A port that gives nothing and discards everything.

use mbuf::Burst;

use crate::vdev::burst::{Counters, count, drop_all};
use crate::vdev::life::{Life, Owner};
use crate::{DropReason, Link, Port, PortCounters, PortError, QueueEnv, Queues, RxQueue, TxQueue};

/// The port. What is sent to it counts as sent.
#[derive(Debug)]
pub struct NullPort {
    owner: Owner,
    counters: PortCounters,
}

impl NullPort {
    /// One queue each way.
    #[must_use]
    pub fn new() -> Self {
        Self { owner: Owner::new(), counters: PortCounters::new(1, 1) }
    }
}

impl Default for NullPort {
    fn default() -> Self {
        Self::new()
    }
}

impl Port for NullPort {
    fn kind(&self) -> &'static str {
        "null"
    }

    fn open(&mut self, _env: QueueEnv) -> Result<Queues, PortError> {
        self.owner.check_unopened()?;
        self.owner.set_opened();
        let tx = NullTx { life: self.owner.life(), counters: self.counters.tx[0].clone() };
        Ok(Queues { rx: vec![Box::new(Nothing)], tx: vec![Box::new(tx)] })
    }

    fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    fn link(&self) -> Link {
        Link::Up
    }
}

/// A receive half without packets.
#[derive(Debug)]
pub(crate) struct Nothing;

impl RxQueue for Nothing {
    fn rx_burst<'t>(&'t mut self, _burst: &mut Burst<'t>) -> usize {
        0
    }

    fn arm(&mut self) -> bool {
        true // Nothing to wake for.
    }
}

struct NullTx {
    life: Life,
    counters: Counters,
}

impl TxQueue for NullTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.life.is_alive() {
            return drop_all(burst, &self.counters, DropReason::TxNotReady);
        }
        let n = burst.len();
        count(&self.counters, n as u64, burst.iter().map(|m| m.len() as u64).sum());
        burst.clear();
        n
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        drop_all(burst, &self.counters, reason);
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }
}

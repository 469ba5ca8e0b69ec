//! A port as one lcore sees it: the transmit halves that it owns, and the way to the lcore that owns the others.

use mbuf::{Burst, Mbuf};
use pmd::{DropReason, TxQueue};

use crate::flow::{flow_hash, pick};
use crate::groups::{Groups, Places};
use crate::handover::Handover;
use crate::hash::KeyedHash;
use crate::stages::{Probe, Stage};
use crate::stats::InputTally;

/// A transmit half and its number in its port.
pub(crate) struct TxSlot {
    pub(crate) number: usize,
    pub(crate) queue: Box<dyn TxQueue>,
    /// See [`TxQueue::keeps`].
    keeps: bool,
    used: bool,
}

impl TxSlot {
    pub(crate) fn new(number: usize, queue: Box<dyn TxQueue>) -> Self {
        let keeps = queue.keeps();
        Self { number, queue, keeps, used: false }
    }

    /// Sends a burst to `port`. What does not fit is dropped at once: no receiver holds up another.
    #[inline(always)]
    fn send(&mut self, burst: &mut Burst<'_>, port: u16, probe: &mut impl Probe) {
        let count = burst.len();
        probe.lap(Stage::Sort, count);
        self.used = true;
        self.queue.tx_burst(burst);
        if !burst.is_empty() {
            self.queue.drop_burst(burst, DropReason::TxFull);
        }
        probe.lap(Stage::Transmit(port), count);
    }
}

/// What sending needs of its lcore.
pub(crate) struct SendEnv<'e> {
    /// Hashes flows, for ports of several queues.
    pub(crate) flow: &'e KeyedHash,
    /// Room for a burst on its way into a ring.
    pub(crate) scratch: &'e mut Vec<Mbuf<'static>>,
    /// For sorting by queue.
    pub(crate) places: &'e mut Places,
    /// Counts the turns: readiness is asked once in each.
    pub(crate) turn: u64,
}

/// The way to one port.
pub(crate) struct Output {
    port: u16,
    txs: Vec<TxSlot>,
    /// To the lcore that owns the port's first transmit half; none if that is this one.
    handover: Option<Handover>,
    /// Places in `txs` of the halves that were ready in turn `asked`.
    ready: Vec<usize>,
    asked: u64,
    used: bool,
}

impl Output {
    /// To the port of this number.
    pub(crate) fn new(port: u16, txs: Vec<TxSlot>, handover: Option<Handover>) -> Self {
        let ready = Vec::with_capacity(txs.len());
        Self { port, txs, handover, ready, asked: u64::MAX, used: false }
    }

    /// Whether there is any way to the port. Not to one that only receives.
    pub(crate) fn leads_somewhere(&self) -> bool {
        !self.txs.is_empty() || self.handover.is_some()
    }

    /// Whether packets that are sent now are made to own their bytes.
    pub(crate) fn keeps(&mut self, turn: u64) -> bool {
        self.ask_ready(turn);
        if self.ready.is_empty() {
            return self.handover.is_some();
        }
        self.ready.iter().any(|at| self.txs[*at].keeps)
    }

    /// Whether this is the port's first use in this turn.
    #[inline(always)]
    pub(crate) fn mark_used(&mut self) -> bool {
        !std::mem::replace(&mut self.used, true)
    }

    /// Sends a burst that came in by the port that `tally` is of.
    #[inline(always)]
    pub(crate) fn send(
        &mut self,
        burst: &mut Burst<'_>,
        env: &mut SendEnv<'_>,
        tally: &InputTally,
        probe: &mut impl Probe,
    ) {
        match (&mut self.txs[..], &self.handover) {
            ([only], None) => only.send(burst, self.port, probe),
            _ => self.send_by_choice(burst, env, tally, probe),
        }
    }

    /// Several queues, or none of our own.
    #[inline(never)]
    fn send_by_choice(
        &mut self,
        burst: &mut Burst<'_>,
        env: &mut SendEnv<'_>,
        tally: &InputTally,
        probe: &mut impl Probe,
    ) {
        self.ask_ready(env.turn);
        match (&self.ready[..], &mut self.handover) {
            (&[one], _) => self.txs[one].send(burst, self.port, probe),
            (&[], Some(handover)) => handover.put(burst, env.scratch, tally, probe),
            (&[], None) => self.send_unready(burst, tally, probe),
            _ => self.send_spread(burst, env, probe),
        }
    }

    /// Readiness changes seldom: asked at a turn's first burst.
    fn ask_ready(&mut self, turn: u64) {
        if self.asked != turn {
            self.asked = turn;
            self.ready.clear();
            self.ready.extend((0..self.txs.len()).filter(|at| self.txs[*at].queue.is_ready()));
        }
    }

    /// The first half knows why it is not ready, and counts accordingly.
    fn send_unready(&mut self, burst: &mut Burst<'_>, tally: &InputTally, probe: &mut impl Probe) {
        match self.txs.first_mut() {
            Some(first) => first.send(burst, self.port, probe),
            None => {
                tally.drops[DropReason::NoOutput as usize].add(burst.len() as u64);
                burst.clear();
            }
        }
    }

    /// Each flow to its own queue.
    fn send_spread(&mut self, burst: &mut Burst<'_>, env: &mut SendEnv<'_>, probe: &mut impl Probe) {
        let mut groups = Groups::new();
        for mbuf in burst.drain() {
            let at = pick(flow_hash(env.flow, mbuf.data()), self.ready.len());
            groups.push(env.places, at as u16, mbuf);
        }
        for (at, group) in groups.iter_mut() {
            self.txs[self.ready[usize::from(at)]].send(group, self.port, probe);
        }
    }

    /// Ends a turn for the halves that were used in it.
    pub(crate) fn flush(&mut self) {
        self.used = false;
        for tx in self.txs.iter_mut().filter(|tx| tx.used) {
            tx.used = false;
            tx.queue.flush();
        }
        if let Some(handover) = &mut self.handover {
            handover.flush();
        }
    }

    /// Gives up the halves. The ring's other end keeps what is in it.
    pub(crate) fn into_txs(self) -> Vec<TxSlot> {
        self.txs
    }
}

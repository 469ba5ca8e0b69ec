//! What the switch counts, and what it shows of it.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use pmd::{Counter, DropReason, PortCounters, QueueCounters};

use crate::fdb::{FdbStats, Learn};
use crate::handover::Account;
use crate::stages::StageTallies;
use crate::{MAX_PORTS, PortId};

/// Attempts to learn that came to nothing, and those that did not need to; one lcore writes it.
#[derive(Debug, Default)]
pub(crate) struct LearnTally {
    refused_quota: Counter,
    refused_full: Counter,
    refused_static: Counter,
    lock_missed: Counter,
}

impl LearnTally {
    #[cold]
    pub(crate) fn count(&self, what: Learn) {
        match what {
            Learn::Known | Learn::Learned | Learn::Moved => {}
            Learn::RefusedQuota => self.refused_quota.add(1),
            Learn::RefusedFull => self.refused_full.add(1),
            Learn::RefusedStatic => self.refused_static.add(1),
            Learn::Busy => self.lock_missed.add(1),
        }
    }

    fn add_to(&self, stats: &mut FdbStats) {
        stats.refused_quota += self.refused_quota.get();
        stats.refused_full += self.refused_full.get();
        stats.refused_static += self.refused_static.get();
        stats.lock_missed += self.lock_missed.get();
    }
}

/// What one lcore counts of the packets that came in by one port.
#[derive(Debug, Default)]
pub(crate) struct InputTally {
    pub(crate) drops: [Counter; DropReason::COUNT],
    pub(crate) flood_copies: Counter,
}

/// All that one lcore counts. It writes; anybody reads.
#[derive(Debug)]
pub(crate) struct LcoreTally {
    pub(crate) polls: Counter,
    pub(crate) packets: Counter,
    pub(crate) busy_ns: Counter,
    pub(crate) idle_ns: Counter,
    pub(crate) learn: LearnTally,
    /// Written only while that is asked for.
    pub(crate) stages: StageTallies,
    inputs: Box<[CachePadded<InputTally>]>,
    /// What waits in its hand-over rings. Other lcores take off from it.
    pub(crate) waiting: Account,
}

impl LcoreTally {
    pub(crate) fn new() -> Arc<CachePadded<Self>> {
        Arc::new(CachePadded::new(Self {
            polls: Counter::default(),
            packets: Counter::default(),
            busy_ns: Counter::default(),
            idle_ns: Counter::default(),
            learn: LearnTally::default(),
            stages: StageTallies::default(),
            inputs: (0..MAX_PORTS).map(|_| CachePadded::default()).collect(),
            waiting: Account::default(),
        }))
    }

    /// Of the packets that came in by the port of this number.
    #[inline]
    pub(crate) fn input(&self, number: u16) -> &InputTally {
        &self.inputs[usize::from(number) % MAX_PORTS]
    }
}

/// Packets by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that came in, dropped ones included.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that the receiver got.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Copies that floods made of packets that came in here: one packet to three ports is two copies.
    pub flood_copies: u64,
    /// Dropped packets by reason, as [`DropReason::ALL`] orders them: on the way in, in the switch, on the way out.
    pub drops: [u64; DropReason::COUNT],
}

impl Totals {
    /// Dropped packets for `reason`.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Reasons for which packets were dropped, by name.
    pub fn drops_by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DropReason::ALL.iter().map(|r| (r.name(), self.dropped(*r))).filter(|(_, n)| *n != 0)
    }

    /// What is missing: packets that came in or were copied, less those that were sent or dropped. 0 at a quiet point.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        let known = self.tx_packets + self.drops.iter().sum::<u64>();
        (self.rx_packets + self.flood_copies) as i64 - known as i64
    }

    /// Adds another's numbers.
    pub fn add(&mut self, other: &Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.flood_copies += other.flood_copies;
        for (mine, its) in self.drops.iter_mut().zip(&other.drops) {
            *mine += its;
        }
    }

    /// What the switch itself counted of the port of this number. It stays as the port goes.
    pub(crate) fn of_switch<'t>(number: u16, tallies: impl Iterator<Item = &'t LcoreTally>) -> Self {
        let mut sum = Self::default();
        for tally in tallies.map(|t| t.input(number)) {
            sum.flood_copies += tally.flood_copies.get();
            for (mine, its) in sum.drops.iter_mut().zip(&tally.drops) {
                *mine += its.get();
            }
        }
        sum
    }

    /// Takes off what was counted for the ports that had the number before.
    pub(crate) fn since(mut self, baseline: &Self) -> Self {
        self.flood_copies -= baseline.flood_copies;
        for (mine, its) in self.drops.iter_mut().zip(&baseline.drops) {
            *mine -= its;
        }
        self
    }

    pub(crate) fn add_queues(&mut self, counters: &PortCounters) {
        for queue in &counters.rx {
            self.rx_packets += queue.packets.get();
            self.rx_bytes += queue.bytes.get();
            self.add_drops(queue);
        }
        for queue in &counters.tx {
            self.tx_packets += queue.packets.get();
            self.tx_bytes += queue.bytes.get();
            self.add_drops(queue);
        }
    }

    fn add_drops(&mut self, queue: &QueueCounters) {
        for (mine, its) in self.drops.iter_mut().zip(&queue.drops) {
            *mine += its.get();
        }
    }
}

/// One port's numbers.
#[derive(Clone, Debug)]
pub struct PortStats {
    /// Which port.
    pub id: PortId,
    /// Its name.
    pub name: String,
    /// Its packets: what its queues counted, and what the switch counted of what came in by it.
    pub totals: Totals,
    /// Of [`totals`](Self::totals): drops and flood copies that the switch counted.
    pub by_switch: Totals,
}

/// One lcore's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LcoreStats {
    /// Its id, as configured.
    pub id: usize,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// Turns: visits to all its receive halves.
    pub polls: u64,
    /// Packets that came in by its receive halves and by hand-over from other lcores.
    pub packets: u64,
    /// Cycles in turns that found packets. By the clock in nanoseconds, times the time stamp counter's rate.
    pub busy_cycles: u64,
    /// Cycles in turns that found none, sleep included.
    pub idle_cycles: u64,
    /// Nanoseconds in which it could have run and did not, since it started: others had its CPU. `None` if the kernel does not
    /// tell (`CONFIG_SCHED_INFO`). Part of the cycles above: the clock goes on.
    pub waited_ns: Option<u64>,
}

/// All of the switch's numbers. Exact when nothing flows.
#[derive(Clone, Debug)]
pub struct SwitchStats {
    /// The ports there are.
    pub ports: Vec<PortStats>,
    /// The ports that were removed, summed up.
    pub removed: Totals,
    /// The lcores.
    pub lcores: Vec<LcoreStats>,
    /// The FDB.
    pub fdb: FdbStats,
}

impl SwitchStats {
    /// All ports together, removed ones included: at a quiet point nothing of it is
    /// [unaccounted](Totals::unaccounted) for.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut sum = self.removed.clone();
        for port in &self.ports {
            sum.add(&port.totals);
        }
        sum
    }
}

pub(crate) fn fdb_stats<'t>(mut stats: FdbStats, tallies: impl Iterator<Item = &'t LcoreTally>) -> FdbStats {
    for tally in tallies {
        tally.learn.add_to(&mut stats);
    }
    stats
}

//! What can be read of a switch, whatever is being done to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lcore::{Command, LcoreEnd};
use crate::ports::{PortInfo, PortRecord, Ports};
use crate::stages::LcoreStages;
use crate::stats::{LcoreStats, LcoreTally, PortStats, SwitchStats, Totals, fdb_stats};
use crate::{Clock, Fdb, PortId};

/// A switch's numbers. It can be had as often as wanted, and outlives the switch.
///
/// Nothing here waits for an lcore, nor for anybody who does: one that attaches or removes a port, and has to wait until an
/// lcore passes between two bursts, holds up nobody who only looks.
#[derive(Clone)]
pub struct View(Arc<Shared>);

struct Shared {
    lcores: Vec<LcoreEnd>,
    fdb: Arc<Fdb>,
    clock: Clock,
    cycles_per_us: u64,
    /// Held for reading and writing it, and for nothing else.
    table: Mutex<Table>,
}

/// The ports there are, and what is left of those that were.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) ports: Ports,
    removed: Totals,
}

impl View {
    pub(crate) fn new(lcores: Vec<LcoreEnd>, fdb: Arc<Fdb>, clock: Clock, cycles_per_us: u64) -> Self {
        Self(Arc::new(Shared { lcores, fdb, clock, cycles_per_us, table: Mutex::default() }))
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports there are, by number.
    #[must_use]
    pub fn ports(&self) -> Vec<PortInfo> {
        self.table().ports.iter().map(PortRecord::info).collect()
    }

    /// The port of this name.
    #[must_use]
    pub fn port_by_name(&self, name: &str) -> Option<PortId> {
        self.table().ports.iter().find(|p| p.name == name).map(|p| p.id)
    }

    /// The forwarding database: list, flush, static entries.
    #[must_use]
    pub fn fdb(&self) -> &Arc<Fdb> {
        &self.0.fdb
    }

    /// The second that ages in the FDB count from, for [`Fdb::list`].
    #[must_use]
    pub fn now_s(&self) -> u32 {
        (self.0.clock.now_ns() / 1_000_000_000) as u32 + 1
    }

    /// All numbers. They agree when nothing flows.
    #[must_use]
    pub fn stats(&self) -> SwitchStats {
        // Before the table is held: the kernel is asked, too.
        let lcores = self.0.lcores.iter().map(|l| self.lcore_stats(l)).collect();
        let table = self.table();
        SwitchStats {
            ports: table.ports.iter().map(|p| self.port_stats(p)).collect(),
            removed: table.removed.clone(),
            lcores,
            fdb: fdb_stats(self.0.fdb.stats(), self.tallies()),
        }
    }

    /// Has all lcores count their cycles by stage from now on, or stop that. Costs nothing as long as it is off, and some
    /// twenty cycles for each stage of a burst while it is on. Does not wait for the lcores: each turns over between two turns.
    pub fn set_stages(&self, on: bool) {
        self.0.lcores.iter().for_each(|lcore| lcore.post(Command::SetStages(on)));
    }

    /// What was counted by stage whenever that was on; a difference of two looks is what counts.
    #[must_use]
    pub fn stages(&self) -> Vec<LcoreStages> {
        self.0.lcores.iter().map(|lcore| lcore.tally.stages.read(lcore.config.id)).collect()
    }

    /// What the switch has counted of the port of this number, whichever port that was.
    pub(crate) fn of_number(&self, number: u16) -> Totals {
        Totals::of_switch(number, self.tallies())
    }

    /// Frees a port's number. What the port counted stays in the sums, with what was `lost` on its way to it.
    pub(crate) fn retire(&self, id: PortId, lost: u64) {
        let mut table = self.table();
        let Some(port) = table.ports.free(id) else { return };
        let totals = self.port_stats(&port).totals;
        table.removed.add(&totals);
        table.removed.drops[pmd::DropReason::PortRemoved as usize] += lost;
    }

    fn tallies(&self) -> impl Iterator<Item = &LcoreTally> {
        self.0.lcores.iter().map(|l| &**l.tally)
    }

    fn port_stats(&self, port: &PortRecord) -> PortStats {
        let by_switch = self.of_number(port.id.number()).since(&port.baseline);
        let mut totals = by_switch.clone();
        totals.add_queues(&port.counters);
        PortStats { id: port.id, name: port.name.clone(), totals, by_switch }
    }

    fn lcore_stats(&self, lcore: &LcoreEnd) -> LcoreStats {
        let cycles = |ns: u64| (u128::from(ns) * u128::from(self.0.cycles_per_us) / 1000) as u64;
        LcoreStats {
            id: lcore.config.id,
            cpu: lcore.config.cpu,
            polls: lcore.tally.polls.get(),
            packets: lcore.tally.packets.get(),
            busy_cycles: cycles(lcore.tally.busy_ns.get()),
            idle_cycles: cycles(lcore.tally.idle_ns.get()),
            waited_ns: lcore.thread_id.waited_ns(),
        }
    }
}

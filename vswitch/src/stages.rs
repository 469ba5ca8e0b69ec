//! Where an lcore's cycles go, stage by stage of the turn.
//!
//! A turn takes a [`Probe`] along and calls it wherever a stage ends. [`Laps`] reads the time stamp counter there and charges
//! all cycles since the last such place to the stage, so that the stages add up to the turn. [`Untimed`] does nothing, and
//! the turn is compiled once with each: one that is not measured has no trace of this.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use pmd::{Counter, tsc};

use crate::MAX_PORTS;
use crate::stats::LcoreTally;

/// What a turn is made of. Ports by their [numbers](crate::PortId::number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A receive half was asked and had nothing.
    Empty,
    /// A burst was taken from a receive half of this port: out of a guest's ring, or from a NIC.
    Receive(u16),
    /// Packets were taken out of rings from other lcores.
    TakeOver,
    /// Addresses were read, learned and looked up.
    LookUp,
    /// Packets were sorted by verdict and by output, copied for floods, and dropped where the switch has no use for them.
    Sort,
    /// Packets were sent by a transmit half of this port: into a guest's ring, or to a NIC. What it could not take, too.
    Transmit(u16),
    /// Packets were put into a ring to another lcore, with bytes of their own.
    HandOver,
    /// Senders got their buffers back, receivers were told: used rings published, guests called.
    Publish,
}

impl Stage {
    /// Those that are of no port.
    const OWN: [Self; 6] =
        [Self::Empty, Self::TakeOver, Self::LookUp, Self::Sort, Self::HandOver, Self::Publish];
    const PLACES: usize = Self::OWN.len() + 2 * MAX_PORTS;

    /// All stages that there may be, in the order in which a packet meets them; visits that found none come last.
    pub fn all() -> impl Iterator<Item = Self> {
        let numbers = || 0..MAX_PORTS as u16;
        let inside = [Self::TakeOver, Self::LookUp, Self::Sort];
        let end = [Self::HandOver, Self::Publish, Self::Empty];
        numbers().map(Self::Receive).chain(inside).chain(numbers().map(Self::Transmit)).chain(end)
    }

    /// Its place among all. Numbers that no port has share places with those that one may have.
    fn place(self) -> usize {
        let of_port = |number: u16| Self::OWN.len() + usize::from(number) % MAX_PORTS * 2;
        match self {
            Self::Empty => 0,
            Self::TakeOver => 1,
            Self::LookUp => 2,
            Self::Sort => 3,
            Self::HandOver => 4,
            Self::Publish => 5,
            Self::Receive(number) => of_port(number),
            Self::Transmit(number) => of_port(number) + 1,
        }
    }
}

/// What one lcore counts of one stage.
#[derive(Debug, Default)]
struct StageTally {
    cycles: Counter,
    packets: Counter,
    times: Counter,
}

/// What one lcore counts of all stages. It writes; anybody reads.
#[derive(Debug)]
pub(crate) struct StageTallies(Box<[StageTally]>);

impl Default for StageTallies {
    fn default() -> Self {
        Self((0..Stage::PLACES).map(|_| StageTally::default()).collect())
    }
}

impl StageTallies {
    fn add(&self, stage: Stage, cycles: u64, packets: u64) {
        let tally = &self.0[stage.place()];
        tally.cycles.add(cycles);
        tally.packets.add(packets);
        tally.times.add(1);
    }

    pub(crate) fn read(&self, id: usize) -> LcoreStages {
        let count = |tally: &StageTally| StageCount {
            cycles: tally.cycles.get(),
            packets: tally.packets.get(),
            times: tally.times.get(),
        };
        LcoreStages { id, counts: self.0.iter().map(count).collect() }
    }
}

/// Is told where stages of a turn end.
pub(crate) trait Probe {
    /// A turn begins: what was before it belongs to no stage.
    fn begin(&mut self);

    /// All since the last call was `stage`, and went through it with so many packets.
    fn lap(&mut self, stage: Stage, packets: usize);
}

/// Measures nothing and is nothing.
pub(crate) struct Untimed;

impl Probe for Untimed {
    #[inline(always)]
    fn begin(&mut self) {}

    #[inline(always)]
    fn lap(&mut self, _stage: Stage, _packets: usize) {}
}

/// Reads the time stamp counter at each call.
pub(crate) struct Laps {
    tally: Arc<CachePadded<LcoreTally>>,
    last: u64,
}

impl Laps {
    pub(crate) fn new(tally: Arc<CachePadded<LcoreTally>>) -> Self {
        Self { tally, last: tsc::now() }
    }
}

impl Probe for Laps {
    fn begin(&mut self) {
        self.last = tsc::now();
    }

    fn lap(&mut self, stage: Stage, packets: usize) {
        let now = tsc::now();
        self.tally.stages.add(stage, now.wrapping_sub(self.last), packets as u64);
        self.last = now;
    }
}

/// What was counted of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCount {
    /// Cycles by the time stamp counter ([`pmd::tsc::now`]). Those of reading it, some twenty each time, are in them.
    pub cycles: u64,
    /// Packets that went through it; of a flood each copy.
    pub packets: u64,
    /// Times that it was gone through: for [`Stage::Receive`], bursts.
    pub times: u64,
}

/// What one lcore counted by stage while that was [asked for](crate::Switch::set_stages).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LcoreStages {
    /// The lcore's id, as configured.
    pub id: usize,
    counts: Box<[StageCount]>,
}

impl LcoreStages {
    /// What it counted of `stage`.
    #[must_use]
    pub fn count(&self, stage: Stage) -> StageCount {
        self.counts[stage.place()]
    }

    /// Stages that were gone through at all, in the order in which a packet meets them.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, StageCount)> {
        Stage::all().map(|stage| (stage, self.count(stage))).filter(|(_, count)| count.times != 0)
    }

    /// What was counted after `earlier`, a look at the same lcore.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (mine, before) in self.counts.iter_mut().zip(&earlier.counts) {
            mine.cycles = mine.cycles.wrapping_sub(before.cycles);
            mine.packets = mine.packets.wrapping_sub(before.packets);
            mine.times = mine.times.wrapping_sub(before.times);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_place_of_its_own() {
        let places: std::collections::HashSet<_> = Stage::all().map(Stage::place).collect();
        assert_eq!(places.len(), Stage::PLACES);
        assert_eq!(Stage::all().count(), Stage::PLACES);
        assert!(places.iter().all(|place| *place < Stage::PLACES));
    }

    #[test]
    fn the_stages_add_up_to_the_turn() {
        let tally = LcoreTally::new();
        let mut laps = Laps::new(Arc::clone(&tally));
        std::thread::sleep(std::time::Duration::from_millis(1));
        laps.begin();
        let begin = laps.last;
        for stage in [Stage::Receive(7), Stage::LookUp, Stage::Sort, Stage::Transmit(9), Stage::Publish] {
            laps.lap(stage, 32);
        }
        laps.lap(Stage::Publish, 0);
        let stages = tally.stages.read(3);
        assert_eq!(stages.iter().map(|(_, c)| c.cycles).sum::<u64>(), laps.last - begin);
        assert_eq!(stages.count(Stage::Receive(7)).packets, 32);
        assert_eq!((stages.count(Stage::Publish).packets, stages.count(Stage::Publish).times), (32, 2));
        assert_eq!(stages.count(Stage::Transmit(7)), StageCount::default());
        assert_eq!(stages.clone().since(&stages).iter().count(), 0);
    }

    #[test]
    fn without_measuring_there_is_nothing() {
        assert_eq!(size_of::<Untimed>(), 0);
    }
}

//! Packets on their way to a port that another lcore owns: rings, and who pays for what waits in them.
//!
//! A ring holds so many packets, but a packet of 64 KiB is 31 mbufs. What waits takes mbufs from everybody, so it is counted in
//! mbufs, by the port that it came in by, and a port may have no more of them in all rings of an lcore than are left
//! [spare](mbuf::Mempool::spare) in the pool: one port alone gets half of them, two get a third each, and whoever has little
//! there always gets in (dynamic thresholds, as shared buffers of switches have them: Choudhury and Hahne, 1998).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use mbuf::{Burst, MAX_BURST, Mbuf};
use pmd::DropReason;
use ring::spsc::{Consumer, Producer};

use crate::MAX_PORTS;
use crate::roster::BUDGET;
use crate::sleep::Doorbell;
use crate::stages::{Probe, Stage};
use crate::stats::{InputTally, LcoreTally};

/// Packets that fit into the ring from one lcore to a port that another one owns.
pub(crate) const HANDOVER_CAPACITY: usize = 1024;

/// Mbufs that wait in the hand-over rings of one lcore, by the port that they came in by. The lcore adds before it fills a ring,
/// whoever empties one takes off: a word of a source's own that changes hands twice a burst, as the ring's indices do.
#[derive(Debug)]
pub(crate) struct Account(Box<[CachePadded<AtomicU32>]>);

impl Default for Account {
    fn default() -> Self {
        Self((0..MAX_PORTS).map(|_| CachePadded::default()).collect())
    }
}

impl Account {
    fn of(&self, port: u16) -> &AtomicU32 {
        &self.0[usize::from(port) % MAX_PORTS]
    }

    /// Mbufs that wait for the port of this number to be sent on.
    pub(crate) fn held(&self, port: u16) -> usize {
        self.of(port).load(Ordering::Relaxed) as usize
    }

    fn add(&self, port: u16, mbufs: usize) {
        self.of(port).fetch_add(mbufs as u32, Ordering::Relaxed);
    }

    /// Takes off what packets held that leave a ring. They were added before they went in, which the ring orders.
    fn leave<'m>(&self, packets: impl Iterator<Item = &'m Mbuf<'static>>) {
        let (mut port, mut mbufs) = (0, 0);
        for mbuf in packets {
            if mbuf.port() != port {
                self.take_off(port, mbufs);
                (port, mbufs) = (mbuf.port(), 0);
            }
            mbufs += if mbuf.leave_queue() { mbuf.segment_count() } else { 0 };
        }
        self.take_off(port, mbufs);
    }

    fn take_off(&self, port: u16, mbufs: usize) {
        if mbufs != 0 {
            self.of(port).fetch_sub(mbufs as u32, Ordering::Relaxed);
        }
    }
}

/// The ring to another lcore.
pub(crate) struct Handover {
    ring: Producer<Mbuf<'static>>,
    /// Has the account of this lcore.
    tally: Arc<CachePadded<LcoreTally>>,
    /// The other lcore's.
    bell: Arc<Doorbell>,
    /// Something was put in since the bell was rung.
    filled: bool,
}

/// Makes the ring from the lcore with this tally to the port of this number, whose lcore has this bell.
///
/// # Errors
/// Memory is short.
pub(crate) fn channel(
    number: u16,
    tally: &Arc<CachePadded<LcoreTally>>,
    bell: &Arc<Doorbell>,
) -> Result<(Handover, Inlet), ring::RingError> {
    let (to, from) = ring::spsc::channel(ring::Capacity::PowerOfTwo(HANDOVER_CAPACITY))?;
    let handover = Handover { ring: to, tally: Arc::clone(tally), bell: Arc::clone(bell), filled: false };
    Ok((handover, Inlet { number, ring: from, tally: Arc::clone(tally), debt: 0 }))
}

impl Handover {
    /// Puts a burst in: the packets outlive the turn, so they own their bytes first.
    pub(crate) fn put(
        &mut self,
        burst: &mut Burst<'_>,
        scratch: &mut Vec<Mbuf<'static>>,
        tally: &InputTally,
        probe: &mut impl Probe,
    ) {
        let count = burst.len();
        probe.lap(Stage::Sort, count);
        let (owned, lost) = std::mem::take(burst).own();
        tally.drops[DropReason::NoMbufs as usize].add(lost as u64);
        let refused = self.admit(owned, scratch);
        tally.drops[DropReason::HandoverQuota as usize].add(refused);
        self.ring.enqueue_burst_from(scratch);
        tally.drops[DropReason::HandoverFull as usize].add(scratch.len() as u64);
        self.tally.waiting.leave(scratch.iter());
        scratch.clear();
        self.filled = true;
        probe.lap(Stage::HandOver, count);
    }

    /// Moves those packets of a burst to `admitted` that their port has mbufs for; returns how many it has none for.
    fn admit(&self, mut burst: Burst<'static>, admitted: &mut Vec<Mbuf<'static>>) -> u64 {
        let Some(first) = burst.first() else { return 0 };
        let (account, mut port, spare) = (&self.tally.waiting, first.port(), first.pool().spare());
        let (mut held, mut added, mut refused) = (account.held(port), 0, 0);
        for mbuf in burst.drain() {
            if mbuf.port() != port {
                account.add(port, added);
                (port, held, added) = (mbuf.port(), account.held(mbuf.port()), 0);
            }
            let takes = if mbuf.enter_queue() { mbuf.segment_count() } else { 0 };
            if held + added + takes > spare {
                mbuf.leave_queue();
                refused += 1;
                continue;
            }
            added += takes;
            admitted.push(mbuf);
        }
        account.add(port, added);
        refused
    }

    /// Ends a turn: the other lcore looks at what was put in.
    pub(crate) fn flush(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.bell.ring_if_asleep();
        }
    }
}

/// The receiving end of a hand-over ring: packets to a port that this lcore owns.
pub(crate) struct Inlet {
    pub(crate) number: u16,
    ring: Consumer<Mbuf<'static>>,
    /// Has the account of the lcore that fills it.
    tally: Arc<CachePadded<LcoreTally>>,
    /// By how much its last bursts were more than its share of the turns; see [`BUDGET`].
    debt: u64,
}

impl Inlet {
    /// Whether nothing waits in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether it is passed over in this turn, for what it had in others.
    #[inline(always)]
    pub(crate) fn pays_back(&mut self) -> bool {
        let pays = self.debt != 0;
        self.debt = self.debt.saturating_sub(BUDGET);
        pays
    }

    /// Notes what a burst out of it costs.
    pub(crate) fn overdraw(&mut self, cost: u64) {
        self.debt = cost.saturating_sub(BUDGET);
    }

    /// Takes out up to a burst.
    pub(crate) fn take(&mut self, burst: &mut Burst<'static>, scratch: &mut Vec<Mbuf<'static>>) {
        self.ring.dequeue_burst_into(scratch, MAX_BURST);
        self.tally.waiting.leave(scratch.iter());
        for mbuf in scratch.drain(..) {
            let pushed = burst.push(mbuf);
            debug_assert!(pushed.is_ok(), "a burst was taken at most");
        }
    }

    /// Drops all that waits in it; returns how many packets.
    pub(crate) fn drain(&mut self) -> u64 {
        let mut lost = 0;
        while let Some(mbuf) = self.ring.pop() {
            self.tally.waiting.leave(std::iter::once(&mbuf));
            lost += 1;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig, PageSize, ZoneConfig};

    use super::*;
    use crate::stages::Untimed;

    const PORT: u16 = 7;

    struct Way {
        pool: &'static Mempool,
        tally: Arc<CachePadded<LcoreTally>>,
        handover: Handover,
        inlet: Inlet,
        scratch: Vec<Mbuf<'static>>,
    }

    impl Way {
        fn new(mbufs: usize) -> Self {
            let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
            let config = MempoolConfig { mbufs, data_room: 64, cache: 0, zone };
            let (tally, bell) = (LcoreTally::new(), Arc::new(Doorbell::new().unwrap()));
            let (handover, inlet) = channel(3, &tally, &bell).unwrap();
            let (pool, scratch) = (Mempool::new(&config).unwrap(), Vec::with_capacity(MAX_BURST));
            Self { pool, tally, handover, inlet, scratch }
        }

        /// A packet of so many mbufs.
        fn packet(&self, mbufs: usize) -> Mbuf<'static> {
            let mut packet = self.pool.alloc(PORT).unwrap();
            for _ in 1..mbufs {
                packet.chain(self.pool.alloc(PORT).unwrap()).unwrap();
            }
            packet
        }

        fn put(&mut self, packets: impl IntoIterator<Item = Mbuf<'static>>) {
            let mut burst = Burst::new();
            packets.into_iter().for_each(|packet| burst.push(packet).unwrap());
            self.handover.put(&mut burst, &mut self.scratch, self.tally.input(PORT), &mut Untimed);
            assert!(burst.is_empty() && self.scratch.is_empty());
        }

        fn held(&self) -> usize {
            self.tally.waiting.held(PORT)
        }

        fn dropped(&self, reason: DropReason) -> u64 {
            self.tally.input(PORT).drops[reason as usize].get()
        }
    }

    #[test]
    fn what_waits_is_counted_in_mbufs_until_it_is_taken() {
        let mut way = Way::new(1024);
        way.put([way.packet(3), way.packet(1)]);
        assert_eq!(way.held(), 4);
        way.inlet.take(&mut Burst::new(), &mut way.scratch);
        assert_eq!(way.held(), 0);
        way.put([way.packet(5)]);
        assert_eq!((way.inlet.drain(), way.held(), way.pool.balance().out), (1, 0, 0));
    }

    /// A flood's packet counts once, from the first ring that it enters to the last that it leaves.
    #[test]
    fn a_shared_packet_is_counted_once() {
        let mut way = Way::new(1024);
        let (mut other, mut inlet) = channel(4, &way.tally, &Arc::new(Doorbell::new().unwrap())).unwrap();
        let mut packet = way.packet(3);
        packet.set_unqueued();
        way.put([packet.share()]);
        let mut burst = Burst::new();
        burst.push(packet).unwrap();
        other.put(&mut burst, &mut way.scratch, way.tally.input(PORT), &mut Untimed);
        assert_eq!(way.held(), 3);
        assert_eq!((inlet.drain(), way.held()), (1, 3));
        assert_eq!((way.inlet.drain(), way.held()), (1, 0));
    }

    /// As much as is spare, and what does not fit into the ring is not counted as waiting.
    #[test]
    fn a_port_has_no_more_than_is_left_for_others() {
        let mut way = Way::new(1024);
        for _ in 0..1024 {
            way.put([way.packet(1)]);
        }
        // Half of what is not reserved, and the one that was in hand.
        assert_eq!((way.held(), way.pool.spare()), (448, 448));
        assert_eq!(way.dropped(DropReason::HandoverQuota), 1024 - 448);
        assert_eq!(way.inlet.drain(), 448);
        let mut way = Way::new(4096);
        (0..1050).for_each(|_| way.put([way.packet(1)]));
        assert_eq!((way.held(), way.dropped(DropReason::HandoverFull)), (1024, 26));
        assert_eq!((way.inlet.drain(), way.held()), (1024, 0));
    }
}

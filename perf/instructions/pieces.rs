//! Ring, mempool, forwarding database: 32 elements a step.

use std::mem::MaybeUninit;

use mbuf::{Burst, LcoreId, MAX_BURST, Mempool, MempoolConfig, PageSize, ZoneConfig};
use ring::{Capacity, spsc};
use vswitch::{Fdb, FdbConfig, Mac, PortId};

use crate::Workload;

const ELEMENTS: [u64; MAX_BURST] = [7; MAX_BURST];

/// Enqueue and dequeue, single producer and consumer.
pub(crate) struct Spsc(spsc::Producer<u64>, spsc::Consumer<u64>);

impl Spsc {
    pub(crate) fn new() -> Self {
        let (producer, consumer) = spsc::channel(Capacity::Exact(1024)).expect("a ring");
        Self(producer, consumer)
    }
}

impl Workload for Spsc {
    fn step(&mut self) -> usize {
        let mut out = [const { MaybeUninit::uninit() }; MAX_BURST];
        self.0.enqueue_bulk(&ELEMENTS);
        self.1.dequeue_bulk(&mut out);
        MAX_BURST
    }
}

/// The same, multiple producers and consumers.
pub(crate) struct Mpmc(ring::Mpmc<u64>);

impl Mpmc {
    pub(crate) fn new() -> Self {
        Self(ring::Mpmc::new(Capacity::Exact(1024)).expect("a ring"))
    }
}

impl Workload for Mpmc {
    fn step(&mut self) -> usize {
        let mut out = [const { MaybeUninit::uninit() }; MAX_BURST];
        self.0.enqueue_bulk(&ELEMENTS);
        self.0.dequeue_bulk(&mut out);
        MAX_BURST
    }
}

/// A pool that needs no hugepages.
pub(crate) fn pool() -> &'static Mempool {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs: 4096, zone, ..MempoolConfig::default() }).expect("memory")
}

/// Taking mbufs out of the lcore's cache and giving them back.
pub(crate) struct Pool {
    pool: &'static Mempool,
    _lcore: Option<LcoreId>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self { pool: pool(), _lcore: LcoreId::claim() }
    }
}

impl Workload for Pool {
    fn step(&mut self) -> usize {
        let mut burst = Burst::new();
        self.pool.alloc_bulk(&mut burst, MAX_BURST, 0).expect("mbufs");
        MAX_BURST
    }
}

/// Looking stations up, so many of them in turn.
pub(crate) struct Lookup<const STATIONS: u16> {
    fdb: Fdb,
    next: u16,
    found: usize,
}

fn station(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    Mac([2, 0, 0, 0, high, low])
}

impl<const STATIONS: u16> Lookup<STATIONS> {
    pub(crate) fn new() -> Self {
        // Its hash has a secret of its own in each process: which stations share a bucket differs, hence the many of them.
        let fdb = Fdb::new(&FdbConfig::default()).expect("a table");
        for n in 0..STATIONS {
            fdb.learn(station(n), 0, PortId::for_test(n % 7), 1);
        }
        assert!(fdb.stats().entries > u64::from(STATIONS) * 99 / 100, "nearly all have a place");
        Self { fdb, next: 0, found: 0 }
    }
}

impl<const STATIONS: u16> Workload for Lookup<STATIONS> {
    fn step(&mut self) -> usize {
        for _ in 0..MAX_BURST {
            self.next = (self.next + 1) % STATIONS;
            self.found += usize::from(self.fdb.lookup(station(self.next), 0).is_some());
        }
        MAX_BURST
    }
}

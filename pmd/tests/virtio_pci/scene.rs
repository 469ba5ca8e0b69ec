//! A started driver, its rings in the test's hands.

use mbuf::{Burst, Mbuf, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::nic::{NicDriver, NicOptions, Ring, Rings, RxRing, TxRing};
use pmd::{DropReason, QueueCounters, QueueEnv};

use crate::model::{Card, CardConfig, Driver, feature};

/// What the driver has to cope with: each format, with and without what changes its paths.
pub(crate) const KINDS: [(&str, u64); 8] = [
    ("split", feature::USUAL),
    ("split, flags", feature::USUAL & !feature::EVENT_IDX),
    ("split, in order", feature::USUAL | feature::IN_ORDER),
    ("split, one buffer a packet", feature::USUAL & !feature::MRG_RXBUF),
    ("packed", feature::USUAL | feature::RING_PACKED),
    ("packed, flags", (feature::USUAL | feature::RING_PACKED) & !feature::EVENT_IDX),
    ("packed, in order", feature::USUAL | feature::RING_PACKED | feature::IN_ORDER),
    ("packed, one buffer a packet", (feature::USUAL | feature::RING_PACKED) & !feature::MRG_RXBUF),
];

pub(crate) const PORT: u16 = 3;

/// A pool of its own for each test, so that balances are exact.
pub(crate) fn pool(mbufs: usize) -> &'static Mempool {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs, cache: 0, zone, ..MempoolConfig::default() }).expect("memory")
}

pub(crate) struct Scene {
    pub(crate) card: Card,
    pub(crate) driver: Driver,
    pub(crate) rings: Rings<<Driver as NicDriver>::Rx, <Driver as NicDriver>::Tx>,
    pub(crate) pool: &'static Mempool,
    pub(crate) rx: QueueCounters,
    pub(crate) tx: QueueCounters,
}

impl Scene {
    pub(crate) fn new(features: u64) -> Self {
        Self::of(CardConfig { features, ..CardConfig::default() }, NicOptions::DEFAULT)
    }

    pub(crate) fn of(config: CardConfig, options: NicOptions) -> Self {
        Self::on(Card::new(config), options, pool(4096))
    }

    pub(crate) fn on(card: Card, options: NicOptions, pool: &'static Mempool) -> Self {
        let mut driver = card.driver(&options).expect("a good card");
        let rings = driver.start(QueueEnv { pool, port: PORT }).expect("it starts");
        let (rx, tx) = Default::default();
        Self { card, driver, rings, pool, rx, tx }
    }

    /// Sends packets on pair `pair`; returns how many the ring did not take.
    pub(crate) fn send(&mut self, pair: usize, packets: Vec<Mbuf<'_>>) -> usize {
        let mut burst = Burst::new();
        packets.into_iter().for_each(|mbuf| assert!(burst.push(mbuf).is_ok(), "a burst at most"));
        self.rings.tx[pair].tx_burst(&mut burst, &self.tx);
        self.rings.tx[pair].flush();
        burst.len()
    }

    /// Receives at most a burst's worth on pair `pair`.
    pub(crate) fn receive(&mut self, pair: usize) -> Vec<Mbuf<'static>> {
        let mut burst = Burst::new();
        let n = self.rings.rx[pair].rx_burst(&mut burst, &self.rx);
        assert_eq!(n, burst.len());
        burst.own().0.drain().collect()
    }

    pub(crate) fn check(&mut self) -> Option<&'static str> {
        let rx = self.rings.rx.iter_mut().find_map(Ring::check);
        rx.or_else(|| self.rings.tx.iter_mut().find_map(Ring::check))
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.rx.drops[reason as usize].get() + self.tx.drops[reason as usize].get()
    }

    /// Stops the driver as its port does. N15: all mbufs are back, nothing stays mapped, and the card touched nothing that
    /// it must not.
    pub(crate) fn end(self) {
        let Self { card, mut driver, rings, pool, .. } = self;
        driver.stop();
        drop(rings);
        assert_eq!((pool.balance().out, pool.balance().free), (0, pool.total()), "all mbufs came home");
        assert_eq!(card.memory.mappings(), 0, "nothing stays mapped");
        assert_eq!(card.memory.faults(), [], "no access outside of what was mapped");
        assert_eq!(card.state().status, 0, "left reset");
    }
}

//! A device in memory: what is sent to it comes back, as long as it works.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mbuf::{Burst, Mbuf, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::bus::BusError;
use pmd::nic::{Health, NicDriver, NicError, NicPort, Ring, Rings, RxRing, TxRing};
use pmd::{Link, QueueCounters, QueueEnv};

/// What the test says of the device, and the device of itself.
#[derive(Debug)]
pub(crate) struct World {
    /// It sits in its slot.
    pub(crate) present: bool,
    /// It answers when it is brought up.
    pub(crate) answers: bool,
    pub(crate) link: Link,
    /// What the next look finds, once.
    pub(crate) health: Option<Health>,
    /// What the next check of a transmit ring finds, once.
    pub(crate) trouble: Option<&'static str>,
    pub(crate) starts: usize,
    pub(crate) stops: usize,
    pub(crate) opens: usize,
    /// Rings that live.
    pub(crate) rings: usize,
    wire: VecDeque<Mbuf<'static>>,
}

/// The device's end of the test.
#[derive(Clone)]
pub(crate) struct Device(Arc<Mutex<World>>);

impl Device {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(World {
            present: true,
            answers: true,
            link: Link::Up,
            health: None,
            trouble: None,
            starts: 0,
            stops: 0,
            opens: 0,
            rings: 0,
            wire: VecDeque::new(),
        })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// A port on it.
    pub(crate) fn port(&self) -> NicPort<FakeDriver> {
        let device = self.clone();
        NicPort::new("vfio", "0000:00:00.0", move || device.open()).expect("the device is there")
    }

    pub(crate) fn open(&self) -> Result<FakeDriver, NicError> {
        let mut world = self.world();
        if !world.present {
            return Err(NicError::Bus(BusError::Gone("0000:00:00.0".into())));
        }
        world.opens += 1;
        Ok(FakeDriver(self.clone()))
    }
}

pub(crate) struct FakeDriver(Device);

impl NicDriver for FakeDriver {
    type Rx = FakeRing;
    type Tx = FakeRing;

    fn name(&self) -> &'static str {
        "fake"
    }

    fn queue_pairs(&self) -> usize {
        1
    }

    fn start(&mut self, _env: QueueEnv) -> Result<Rings<FakeRing, FakeRing>, NicError> {
        let mut world = self.0.world();
        if !world.answers {
            let what = "answer the reset".into();
            return Err(NicError::Timeout { device: "fake".into(), what, within_ms: 1, hint: "" });
        }
        world.starts += 1;
        world.rings += 2;
        drop(world);
        Ok(Rings { rx: vec![FakeRing(self.0.clone())], tx: vec![FakeRing(self.0.clone())] })
    }

    fn stop(&mut self) {
        let mut world = self.0.world();
        world.stops += 1;
        world.wire.clear();
    }

    fn look(&mut self) -> Health {
        let mut world = self.0.world();
        if !world.present {
            return Health::Gone;
        }
        world.health.take().unwrap_or(Health::Good)
    }

    fn link(&self) -> Link {
        self.0.world().link
    }

    fn max_frame(&self) -> usize {
        1514
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("driver", "fake".into())]
    }
}

pub(crate) struct FakeRing(Device);

impl Drop for FakeRing {
    fn drop(&mut self) {
        self.0.world().rings -= 1;
    }
}

impl Ring for FakeRing {
    fn check(&mut self) -> Option<&'static str> {
        self.0.world().trouble.take()
    }
}

impl RxRing for FakeRing {
    fn rx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        let mut world = self.0.world();
        let mut n = 0;
        while burst.room() > 0 {
            let Some(mbuf) = world.wire.pop_front() else { break };
            assert!(burst.push(mbuf).is_ok(), "there was room");
            n += 1;
        }
        counters.packets.add(n);
        n as usize
    }
}

impl TxRing for FakeRing {
    fn tx_burst(&mut self, burst: &mut Burst<'_>, counters: &QueueCounters) -> usize {
        let n = burst.len();
        let mut world = self.0.world();
        world.wire.extend(burst.drain().filter_map(|m| m.own().ok()));
        counters.packets.add(n as u64);
        n
    }
}

/// A pool of its own for each test, so that balances are exact.
pub(crate) fn pool() -> &'static Mempool {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs: 64, cache: 0, zone, ..MempoolConfig::default() }).expect("memory")
}

/// Waits, 5 s at most, until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

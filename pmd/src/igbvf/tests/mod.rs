//! The driver on the model.

mod faults;
#[path = "../../../tests/offload/frames.rs"]
#[expect(dead_code, reason = "shared with the offloads' tests, which need more of it")]
mod frames;
mod lies;
mod offloads;
mod start;
mod traffic;

use std::time::{Duration, Instant};

use mbuf::{Burst, MAX_BURST, Mbuf, Mempool};

use super::Igbvf;
use super::model::{Card, ModelBar, ModelVf};
use super::rx::IgbvfRx;
use super::tx::IgbvfTx;
use crate::nic::{NicDriver, NicOptions, NicPort, Ring, Rings, RxRing, TxRing};
use crate::{DropReason, Link, Port, QueueCounters, QueueEnv, Queues};

const OPTIONS: NicOptions = NicOptions { queues: None, rx_descriptors: 64, tx_descriptors: 128 };
const FRAME: [u8; 60] = frame();

/// A frame of `N` bytes that count.
const fn frame<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut i = 0;
    while i < N {
        bytes[i] = (i * 7 + 1) as u8;
        i += 1;
    }
    // To a unicast address, and of a type that nobody knows.
    (bytes[0], bytes[12], bytes[13]) = (2, 0x88, 0xb5);
    bytes
}

/// A driver on VF `n`, without a port around it.
struct Bare {
    card: Card,
    n: usize,
    pool: &'static Mempool,
    driver: Igbvf<ModelVf>,
    rings: Option<Rings<IgbvfRx<ModelBar>, IgbvfTx<ModelBar>>>,
    rx_counters: QueueCounters,
    tx_counters: QueueCounters,
}

impl Bare {
    fn new(card: &Card, n: usize) -> Self {
        Self::with_pool(card, n, frames::pool(1024, 2048))
    }

    fn with_pool(card: &Card, n: usize, pool: &'static Mempool) -> Self {
        let driver = Igbvf::new(card.open(n).unwrap(), &OPTIONS).unwrap();
        let mut bare = Self {
            card: card.clone(),
            n,
            pool,
            driver,
            rings: None,
            rx_counters: QueueCounters::default(),
            tx_counters: QueueCounters::default(),
        };
        bare.start();
        bare
    }

    fn start(&mut self) {
        self.rings = Some(self.driver.start(QueueEnv { pool: self.pool, port: 7 }).unwrap());
    }

    fn stop(&mut self) {
        let rings = self.rings.take();
        self.driver.stop();
        drop(rings);
    }

    fn rx(&mut self) -> &mut IgbvfRx<ModelBar> {
        &mut self.rings.as_mut().unwrap().rx[0]
    }

    fn tx(&mut self) -> &mut IgbvfTx<ModelBar> {
        &mut self.rings.as_mut().unwrap().tx[0]
    }

    /// Sends one packet, with a doorbell; whether it was taken.
    fn send(&mut self, mbuf: Mbuf<'_>) -> bool {
        let mut burst = Burst::new();
        burst.push(mbuf).unwrap();
        let tx = &mut self.rings.as_mut().unwrap().tx[0];
        let taken = tx.tx_burst(&mut burst, &self.tx_counters);
        tx.flush();
        taken == 1
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.send(frames::packet(self.pool, bytes, &[]))
    }

    /// All frames that came in, in their order.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut burst = Burst::new();
            let rx = &mut self.rings.as_mut().unwrap().rx[0];
            if rx.rx_burst(&mut burst, &self.rx_counters) == 0 && !rx.is_behind() {
                return all;
            }
            all.extend(burst.iter().map(frames::bytes));
        }
    }

    fn rx_drops(&self, reason: DropReason) -> u64 {
        self.rx_counters.drops[reason as usize].get()
    }

    fn tx_drops(&self, reason: DropReason) -> u64 {
        self.tx_counters.drops[reason as usize].get()
    }

    /// Mbufs in nobody's hands are where they belong, and the card found nothing to complain of.
    fn end(mut self) {
        let (offences, faults) = self.card.with(self.n, |vf| (vf.offences.clone(), vf.dma_faults().to_vec()));
        assert_eq!(offences, [""; 0]);
        assert_eq!(faults, []);
        self.stop();
        assert_eq!(self.pool.balance().out, 0, "{:?}", self.pool.balance());
        assert!(!self.card.with(self.n, |vf| vf.has_memory()), "all is unmapped");
    }
}

impl IgbvfRx<ModelBar> {
    /// Whether a descriptor that is done was not looked at.
    fn is_behind(&mut self) -> bool {
        !self.arm()
    }
}

/// A driver under its port, as it runs.
struct Live {
    card: Card,
    n: usize,
    pool: &'static Mempool,
    port: NicPort<Igbvf<ModelVf>>,
    queues: Queues,
    /// Frames that came in, ever.
    received: usize,
}

impl Live {
    fn new(card: &Card, n: usize) -> Self {
        let (pool, card) = (frames::pool(2048, 2048), card.clone());
        let at = card.clone();
        let opener = move || {
            let mut driver = Igbvf::new(at.open(n)?, &OPTIONS)?;
            driver.mailbox.set_patience(Duration::from_millis(20));
            Ok(driver)
        };
        let mut port = NicPort::new("vfio", "0000:00:10.0", opener).unwrap();
        let queues = port.open(QueueEnv { pool, port: 7 }).unwrap();
        Self { card, n, pool, port, queues, received: 0 }
    }

    /// Sends a burst of `count` frames on queue 0; returns how many were taken.
    fn send(&mut self, frame: &[u8], count: usize) -> usize {
        let mut burst = Burst::new();
        for _ in 0..count.min(MAX_BURST) {
            let Ok(mut mbuf) = self.pool.alloc(3) else { break };
            mbuf.append(frame.len()).unwrap().copy_from_slice(frame);
            burst.push(mbuf).unwrap();
        }
        let taken = self.queues.tx[0].tx_burst(&mut burst);
        self.queues.tx[0].flush();
        taken
    }

    /// Frames that came in by now. None, too, while the port has its driver in hand.
    fn receive(&mut self) -> usize {
        let mut burst = Burst::new();
        self.queues.rx[0].rx_burst(&mut burst);
        let n = burst.len();
        drop(burst);
        self.queues.rx[0].complete();
        self.received += n;
        n
    }

    fn detail(&self, name: &str) -> String {
        let details = self.port.details();
        details.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    fn resets(&self) -> u64 {
        self.detail("resets").parse().unwrap()
    }

    fn is_up(&self) -> bool {
        self.port.link() == Link::Up && self.queues.tx[0].is_ready() && self.detail("state") == "running"
    }

    /// Waits until `what`, polling the queues as an lcore does: what comes in meanwhile is in `received`.
    fn until(&mut self, name: &str, mut what: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !what(self) {
            assert!(Instant::now() < end, "never: {name}; {:?}", self.port);
            self.receive();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Polls for so long, as an lcore does.
    fn stand_by(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.receive();
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Frames come in and go out.
    fn works(&mut self) {
        self.until("the link is up", |live| live.is_up());
        let _ = self.card.sent(self.n);
        let (card, n) = (self.card.clone(), self.n);
        self.until("a frame goes out", |live| live.send(&FRAME, 1) == 1 && !card.sent(n).is_empty());
        self.until("a frame comes in", |live| card.receive(n, &FRAME) && live.receive() > 0);
    }

    /// Every packet that was received or given is in the counters; every mbuf is back.
    fn end(self) {
        let Self { card, n, pool, port, queues, .. } = self;
        drop(port);
        drop(queues);
        assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
        assert!(!card.with(n, |vf| vf.has_memory()), "all is unmapped");
    }
}

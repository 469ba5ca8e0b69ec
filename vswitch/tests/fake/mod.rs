//! Ports made of queues in memory, and a switch around them. A frame put in at one end is looked for at the others.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test crates")]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::alarm::Alarm;
use pmd::{DropReason, PortCounters, QueueCounters, Queues, RxQueue, TxQueue};
use vswitch::{
    Clock, FdbConfig, IdlePolicy, LcoreConfig, Mac, Placement, PortId, Switch, SwitchConfig, Totals,
};

pub static POOL: LazyLock<&'static Mempool> = LazyLock::new(|| {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs: 32_768, data_room: 256, cache: 64, zone }).unwrap()
});

/// The tag of frames that are of no flow.
pub const UNTAGGED: u32 = u32::MAX;

/// What lies between a test and one queue pair of the switch.
#[derive(Debug)]
pub struct Wire {
    to_switch: Mutex<VecDeque<Vec<u8>>>,
    from_switch: Mutex<Vec<Vec<u8>>>,
    /// Frames received whose tag is a number in a flow, see [`UNTAGGED`].
    pub tagged: AtomicU64,
    /// Frames that the receiver still has room for.
    pub room: AtomicUsize,
    pub ready: AtomicBool,
    pub flushes: AtomicU64,
    /// Times that packets were sent without a flush after them; read at a quiet point.
    pub unflushed: AtomicU64,
    /// What wakes an lcore, of a port that one can sleep for.
    signal: Option<Alarm>,
    /// The lcore wants a signal; changes while `to_switch` is held.
    armed: AtomicBool,
    /// Signals that it got.
    pub signals: AtomicU64,
}

impl Wire {
    fn new(sleepable: bool) -> Arc<Self> {
        Arc::new(Self {
            to_switch: Mutex::default(),
            from_switch: Mutex::default(),
            tagged: AtomicU64::new(0),
            room: AtomicUsize::new(usize::MAX),
            ready: AtomicBool::new(true),
            flushes: AtomicU64::new(0),
            unflushed: AtomicU64::new(0),
            signal: sleepable.then(|| Alarm::new().unwrap()),
            armed: AtomicBool::new(false),
            signals: AtomicU64::new(0),
        })
    }

    pub fn send(&self, frame: Vec<u8>) {
        let mut waiting = self.to_switch.lock().unwrap();
        waiting.push_back(frame);
        if self.armed.swap(false, SeqCst) {
            self.signal();
        }
    }

    /// Wakes the lcore, if it sleeps, with or without reason.
    pub fn signal(&self) {
        self.signals.fetch_add(1, SeqCst);
        self.signal.as_ref().unwrap().raise();
    }

    pub fn waiting(&self) -> usize {
        self.to_switch.lock().unwrap().len()
    }

    /// Holds up whoever sends on this wire.
    pub fn hold(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.from_switch.lock().unwrap()
    }

    pub fn received(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.from_switch.lock().unwrap())
    }
}

struct FakeRx {
    wire: Arc<Wire>,
    port: u16,
    counters: Arc<CachePadded<QueueCounters>>,
    incomplete: bool,
    reflects: bool,
}

impl RxQueue for FakeRx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        assert!(!self.incomplete, "the last turn was not completed");
        let mut waiting = self.wire.to_switch.lock().unwrap();
        let mut count = 0;
        while burst.room() > 0 && !waiting.is_empty() {
            let Ok(mut mbuf) = POOL.alloc(self.port) else { break };
            let frame = waiting.pop_front().unwrap();
            mbuf.append(frame.len()).unwrap().copy_from_slice(&frame);
            mbuf.set_port(self.port);
            self.counters.packets.add(1);
            self.counters.bytes.add(frame.len() as u64);
            assert!(burst.push(mbuf).is_ok());
            count += 1;
        }
        self.incomplete = count > 0;
        count
    }

    fn complete(&mut self) {
        self.incomplete = false;
    }

    fn reflects(&self) -> bool {
        self.reflects
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wire.signal.as_ref().map(AsFd::as_fd)
    }

    fn arm(&mut self) -> bool {
        let waiting = self.wire.to_switch.lock().unwrap();
        self.wire.armed.store(self.wire.signal.is_some(), SeqCst);
        self.wire.signal.is_some() && waiting.is_empty()
    }

    fn disarm(&mut self) {
        let _waiting = self.wire.to_switch.lock().unwrap();
        self.wire.armed.store(false, SeqCst);
    }
}

struct FakeTx {
    wire: Arc<Wire>,
    counters: Arc<CachePadded<QueueCounters>>,
}

impl TxQueue for FakeTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.wire.ready.load(SeqCst) {
            let count = burst.len();
            self.drop_burst(burst, DropReason::TxNotReady);
            return count;
        }
        let room = self.wire.room.load(SeqCst);
        let count = burst.len().min(room);
        let mut out = self.wire.from_switch.lock().unwrap();
        for mbuf in &burst[..count] {
            self.counters.packets.add(1);
            self.counters.bytes.add(mbuf.len() as u64);
            let tagged = mbuf.len() >= 18 && tag(mbuf.data()) != UNTAGGED;
            self.wire.tagged.fetch_add(u64::from(tagged), SeqCst);
            out.push(mbuf.data().to_vec());
        }
        burst.drop_front(count);
        self.wire.room.store(if room == usize::MAX { room } else { room - count }, SeqCst);
        self.wire.unflushed.store(1, SeqCst);
        count
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        self.counters.drop_packets(reason, burst.len() as u64);
        burst.clear();
    }

    fn flush(&mut self) {
        self.wire.flushes.fetch_add(1, SeqCst);
        self.wire.unflushed.store(0, SeqCst);
    }

    fn is_ready(&self) -> bool {
        self.wire.ready.load(SeqCst)
    }
}

/// The test's end of a port: a wire for each queue pair.
#[derive(Clone)]
pub struct FakePort {
    pub id: PortId,
    pub wires: Vec<Arc<Wire>>,
    pub counters: PortCounters,
    /// Whether its device may give back what a group was sent.
    pub reflects: bool,
}

impl FakePort {
    pub fn new(id: PortId, queues: usize, sleepable: bool) -> Self {
        Self {
            id,
            wires: (0..queues).map(|_| Wire::new(sleepable)).collect(),
            counters: PortCounters::new(queues, queues),
            reflects: false,
        }
    }

    pub fn queues(&self) -> Queues {
        let port = self.id.number();
        let rx = self.wires.iter().zip(&self.counters.rx).map(|(wire, counters)| {
            let (wire, counters) = (Arc::clone(wire), Arc::clone(counters));
            let reflects = self.reflects;
            Box::new(FakeRx { wire, port, counters, incomplete: false, reflects }) as Box<dyn RxQueue>
        });
        let tx = self.wires.iter().zip(&self.counters.tx).map(|(wire, counters)| {
            let (wire, counters) = (Arc::clone(wire), Arc::clone(counters));
            Box::new(FakeTx { wire, counters }) as Box<dyn TxQueue>
        });
        Queues { rx: rx.collect(), tx: tx.collect() }
    }

    pub fn send(&self, frame: Vec<u8>) {
        self.wires[0].send(frame);
    }

    pub fn received(&self) -> Vec<Vec<u8>> {
        self.wires.iter().flat_map(|w| w.received()).collect()
    }
}

/// A switch with fake ports.
pub struct Net {
    pub switch: Switch,
    pub ports: Vec<FakePort>,
    pub clock: Clock,
    /// Whether lcores can sleep for the ports that are added.
    pub sleepable: bool,
}

impl Net {
    pub fn new(lcores: usize) -> Self {
        Self::with_fdb(lcores, FdbConfig::default())
    }

    pub fn with_fdb(lcores: usize, fdb: FdbConfig) -> Self {
        let lcores = (0..lcores).map(|id| LcoreConfig { id, cpu: None }).collect();
        let clock = Clock::manual();
        let idle = IdlePolicy::Adaptive;
        let config = SwitchConfig { lcores, fdb, idle, clock: clock.clone(), ..SwitchConfig::default() };
        Self { switch: Switch::start(config).unwrap(), ports: Vec::new(), clock, sleepable: false }
    }

    /// With so many ports of one queue pair each.
    pub fn with_ports(lcores: usize, ports: usize) -> Self {
        let mut net = Self::new(lcores);
        for n in 0..ports {
            net.add(&format!("p{n}"), 1, &Placement::default());
        }
        net
    }

    /// A port of one queue pair whose device may give back what a group was sent.
    pub fn add_reflecting(&mut self, name: &str) -> FakePort {
        let id = self.switch.reserve_port(name).unwrap();
        let port = FakePort { reflects: true, ..FakePort::new(id, 1, self.sleepable) };
        self.attach(port, &Placement::default())
    }

    pub fn add(&mut self, name: &str, queues: usize, placement: &Placement) -> FakePort {
        let id = self.switch.reserve_port(name).unwrap();
        self.attach(FakePort::new(id, queues, self.sleepable), placement)
    }

    fn attach(&mut self, port: FakePort, placement: &Placement) -> FakePort {
        let id = port.id;
        self.switch.attach_placed(id, port.queues(), port.counters.clone(), placement).unwrap();
        self.ports.push(port.clone());
        port
    }

    /// Waits until all that was sent has gone where it goes.
    pub fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        let wait = |done: &dyn Fn() -> bool| {
            while !done() {
                assert!(Instant::now() < end, "the switch stands still");
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        wait(&|| self.ports.iter().flat_map(|p| &p.wires).all(|w| w.waiting() == 0));
        // First all that came in is in the rings between lcores; then these are empty: a full one is after 32 turns.
        for _ in 0..2 {
            let before = self.switch.stats().lcores;
            wait(&|| self.switch.stats().lcores.iter().zip(&before).all(|(l, b)| l.polls > b.polls + 40));
        }
    }

    /// Turns the switch's clock by `by`, and on a little at a time until `seen`.
    pub fn pass_time(&self, by: Duration, seen: impl Fn() -> bool) {
        self.clock.advance(by);
        let end = Instant::now() + Duration::from_secs(20);
        while !seen() {
            assert!(Instant::now() < end, "time passes and nothing happens");
            self.clock.advance(Duration::from_millis(10));
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    pub fn totals(&self) -> Totals {
        self.switch.stats().totals()
    }

    pub fn dropped(&self, at: usize, reason: DropReason) -> u64 {
        let stats = self.switch.stats();
        stats.ports.iter().find(|p| p.id == self.ports[at].id).unwrap().totals.dropped(reason)
    }

    /// The sums agree, and every receiver was told of what it got.
    pub fn assert_exact(&self) {
        let totals = self.totals();
        assert_eq!(totals.unaccounted(), 0, "{totals:?}");
        for wire in self.ports.iter().flat_map(|p| &p.wires) {
            assert_eq!(wire.unflushed.load(SeqCst), 0, "a receiver was not told");
        }
    }
}

/// A station's address.
pub fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x52, 0x54, a, b, c, d])
}

/// A frame of 60 bytes with `tag` behind the header.
pub fn frame(dst: Mac, src: Mac, tag: u32) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..6].copy_from_slice(&dst.0);
    frame[6..12].copy_from_slice(&src.0);
    frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    frame[14..18].copy_from_slice(&tag.to_be_bytes());
    frame
}

pub fn tag(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}

/// Numbers that look random and are the same each time (splitmix64).
pub fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Stations at random.
pub fn random_macs(seed: u64) -> impl FnMut() -> Mac {
    let mut next = numbers(seed);
    move || {
        let [a, b, c, d, e, f, ..] = next().to_le_bytes();
        Mac([(a & 0xfe) | 2, b, c, d, e, f])
    }
}

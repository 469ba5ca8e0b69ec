//! What the switch itself costs a packet: lookup, learning, counting, sorting by output.
//!
//!     cargo bench -p polder-vswitch --bench fdb
//!
//! Receive halves copy 64-byte frames into fresh mbufs, which stay in the cache as a guest's do; transmit halves free them.
//! The same loop is measured with the forwarder in it and without; the difference is the switch. Fastest of many rounds, in
//! nanoseconds and in cycles of the time stamp counter (see [`vswitch::cycles_per_us`]).

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use mbuf::{Burst, LcoreId, MAX_BURST, Mempool, MempoolConfig};
use pmd::{DropReason, RxQueue, TxQueue};
use vswitch::{Fdb, FdbConfig, Forwarder, Input, PortId, cycles_per_us};

/// Bursts from each receive half in a round, at least; all of its frames at least once.
const BURSTS: usize = 2_000;
const ROUNDS: usize = 60;

static POOL: LazyLock<&'static Mempool> =
    LazyLock::new(|| Mempool::new(&MempoolConfig::default()).expect("8192 mbufs"));

type Frame = [u8; 64];

/// Gives its frames in a circle.
struct Source {
    frames: Arc<[Frame]>,
    next: usize,
}

impl RxQueue for Source {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        if POOL.alloc_bulk(burst, MAX_BURST, 0).is_err() {
            return 0;
        }
        for mbuf in burst.iter_mut() {
            if let Some(data) = mbuf.append(64) {
                data.copy_from_slice(&self.frames[self.next]);
            }
            self.next = if self.next + 1 == self.frames.len() { 0 } else { self.next + 1 };
        }
        MAX_BURST
    }
}

/// Takes everything.
struct Sink;

impl TxQueue for Sink {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        let count = burst.len();
        burst.clear();
        count
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, _reason: DropReason) {
        burst.clear();
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Station `n` behind port `port`.
fn address(port: usize, n: usize) -> [u8; 6] {
    let mut seed = (port << 32 | n) as u64;
    let [a, b, c, d, ..] = random(&mut seed).to_le_bytes();
    [0x52, port as u8, a, b, c, d]
}

/// Frames from each of `stations` stations behind `from` to stations behind the other ports, picked at random.
fn frames(from: usize, ports: usize, stations: usize) -> Arc<[Frame]> {
    let mut seed = from as u64;
    let frame = |n| {
        let to = (from + 1 + random(&mut seed) as usize % (ports - 1)) % ports;
        let mut frame = [0; 64];
        frame[..6].copy_from_slice(&address(to, (random(&mut seed) >> 8) as usize % stations));
        frame[6..12].copy_from_slice(&address(from, n));
        frame[12] = 0x08;
        frame
    };
    (0..stations).map(frame).collect()
}

struct Case {
    sources: Vec<Arc<[Frame]>>,
    bursts: usize,
}

impl Case {
    fn new(ports: usize, stations: usize) -> Self {
        let sources = (0..ports).map(|from| frames(from, ports, stations)).collect();
        Self { sources, bursts: BURSTS.max(stations.div_ceil(MAX_BURST)) }
    }

    fn queues(&self) -> impl Iterator<Item = Box<dyn RxQueue>> {
        self.sources.iter().map(|frames| {
            let frames = Arc::clone(frames);
            Box::new(Source { frames, next: 0 }) as Box<dyn RxQueue>
        })
    }

    fn ns_a_packet(&self, mut visit_all: impl FnMut()) -> f64 {
        let start = Instant::now();
        (0..self.bursts).for_each(|_| visit_all());
        start.elapsed().as_nanos() as f64 / (self.bursts * MAX_BURST * self.sources.len()) as f64
    }

    /// Nanoseconds a packet without the switch and with it.
    fn measure(&self) -> (f64, f64) {
        let config = FdbConfig { port_quota: Some(65_536), ..FdbConfig::default() };
        let mut forwarder = Forwarder::new(Arc::new(Fdb::new(&config).expect("good numbers")));
        let ids: Vec<_> = (0..self.sources.len()).map(|n| PortId::for_test(n as u16)).collect();
        ids.iter().for_each(|id| forwarder.add_output(*id, vec![Box::new(Sink)]));
        let mut inputs: Vec<_> = ids.iter().zip(self.queues()).map(|(id, q)| Input::new(*id, 0, q)).collect();
        let mut bare: Vec<_> = self.queues().map(|rx| (rx, Box::new(Sink) as Box<dyn TxQueue>)).collect();
        let (mut without, mut with) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            without = without
                .min(self.ns_a_packet(|| bare.iter_mut().for_each(|(rx, tx)| pass(&mut **rx, &mut **tx))));
            with = with.min(self.ns_a_packet(|| {
                for input in &mut inputs {
                    forwarder.poll(input);
                }
                forwarder.end_turn();
            }));
        }
        (without, with)
    }
}

/// What is left without a switch.
fn pass(rx: &mut dyn RxQueue, tx: &mut dyn TxQueue) {
    let mut burst = Burst::new();
    rx.rx_burst(&mut burst);
    tx.tx_burst(&mut burst);
    drop(burst);
    rx.complete();
    tx.flush();
}

fn main() {
    let _lcore = LcoreId::claim();
    let cycles = cycles_per_us() as f64 / 1000.0;
    println!("{:<34} {:>9} {:>9} {:>9} {:>9}", "", "bare ns", "with ns", "switch ns", "cycles");
    let only = std::env::args().nth(1).filter(|a| !a.starts_with("--")).unwrap_or_default();
    for (name, ports, stations) in [
        ("2 ports, 1 MAC a side", 2, 1),
        ("2 ports, 2 MACs a side", 2, 2),
        ("2 ports, 30 MACs a side", 2, 30),
        ("2 ports, 200 MACs a side", 2, 200),
        ("2 ports, 1,000 MACs a side", 2, 1_000),
        ("2 ports, 5,000 MACs a side", 2, 5_000),
        ("2 ports, 32,000 MACs a side", 2, 32_000),
        ("8 ports, 1 MAC each", 8, 1),
        ("8 ports, 1,000 MACs each", 8, 1_000),
        ("64 ports, 1,000 MACs each", 64, 1_000),
    ] {
        if !name.contains(&only) {
            continue;
        }
        let (without, with) = Case::new(ports, stations).measure();
        let own = with - without;
        println!("{name:<34} {without:>9.2} {with:>9.2} {own:>9.2} {:>9.1}", own * cycles);
    }
}

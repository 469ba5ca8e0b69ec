//! Cycles per packet of a vring's two ends, with the driver's rings in the same process and thread.
//!
//! `cargo bench -p polder-vhost` prints all rows in a few seconds. dequeue: a burst taken from the guest's transmit ring, let
//! go, and its descriptors returned. enqueue: a burst of mbufs written into the guest's receive ring and published. through: a
//! burst taken from one guest's ring and written into another's, one copy. All that the driver wrote is in this core's caches,
//! so these are the instructions' own cycles, without what it costs to get lines from another core (`polder-perf peers` has
//! that). The driver's part is not timed. Cycles are those of the time stamp counter (nanoseconds where there is none); the
//! median of several repetitions, with the least and the most behind it.

use std::time::{Duration, Instant};

use mbuf::{Burst, LcoreId, MAX_BURST, Mempool, MempoolConfig};
use pmd::tsc::now;
use pmd::{Port, QueueEnv, RxQueue, TxQueue};
use tempfile::TempDir;
use vhost::VhostUserPort;
use vhost::driver::{QueuePair, VirtioNet, VirtioNetConfig};
use vhost::wire::net::{F_IN_ORDER, F_MRG_RXBUF, F_RING_PACKED};

/// Bursts of one repetition, all of which are in the ring before it starts.
const BURSTS: usize = 8;
const FRAMES: usize = BURSTS * MAX_BURST;
const QUEUE_SIZE: u16 = 2 * FRAMES as u16;
const REPETITIONS: usize = 301;
/// Longest wait until a guest's rings run.
const PATIENCE: Duration = Duration::from_secs(5);

/// A guest and the port that serves it.
struct Guest {
    pair: QueuePair,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    _device: VirtioNet,
    _port: VhostUserPort,
    _folder: TempDir,
}

impl Guest {
    /// One that negotiates `features` and sends frames of `size` bytes.
    fn new(features: u64, size: usize, pool: &'static Mempool) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("guest");
        let mut port =
            VhostUserPort::new(&path.display().to_string().parse().expect("a path")).expect("a port");
        let mut queues = port.open(QueueEnv { pool, port: 0 }).expect("queues");
        let (rx, tx) = (queues.rx.remove(0), queues.tx.remove(0));
        let default = VirtioNetConfig::default();
        let features = default.features & !F_MRG_RXBUF | features;
        let config = VirtioNetConfig { queue_size: QUEUE_SIZE, features, ..default };
        let mut device = VirtioNet::connect(&path, config).expect("a device");
        assert_eq!(device.features() & features, device.features(), "as asked for");
        let mut pair = device.take_pairs().remove(0);
        pair.tx.prepare(|_, slot| {
            slot.write(0, &vec![0x5a; size]);
            size
        });
        let end = Instant::now() + PATIENCE;
        while !(rx.is_ready() && tx.is_ready()) {
            assert!(Instant::now() < end, "the rings do not run");
            std::thread::yield_now();
        }
        Self { pair, rx, tx, _device: device, _port: port, _folder: folder }
    }

    /// The driver's part of a repetition: its ring is full of frames.
    fn post(&mut self) {
        self.pair.tx.reclaim().expect("a sound ring");
        assert_eq!(self.pair.tx.post_prepared(FRAMES, |_| ()), FRAMES, "all of the last ones came back");
    }

    /// And after it: `FRAMES` of `size` bytes came.
    fn take(&mut self, size: usize) {
        let right = |frame: &vhost::driver::RxFrame<'_>| assert_eq!(frame.len(), size);
        assert_eq!(self.pair.rx.poll(usize::MAX, right).expect("a sound ring"), FRAMES);
        self.pair.rx.refill();
    }

    fn dequeue(&mut self) -> u64 {
        self.post();
        let start = now();
        for _ in 0..BURSTS {
            let mut burst = Burst::new();
            assert_eq!(self.rx.rx_burst(&mut burst), MAX_BURST);
            drop(burst);
            self.rx.complete();
        }
        now() - start
    }

    fn enqueue(&mut self, size: usize, pool: &'static Mempool) -> u64 {
        let mut bursts = [const { Burst::new() }; BURSTS];
        for burst in &mut bursts {
            pool.alloc_bulk(burst, MAX_BURST, 0).expect("mbufs");
            for mbuf in burst.iter_mut() {
                mbuf.append(size).expect("room").fill(0x5a);
            }
        }
        let start = now();
        for burst in &mut bursts {
            assert_eq!(self.tx.tx_burst(burst), MAX_BURST);
            self.tx.flush();
        }
        let took = now() - start;
        self.take(size);
        took
    }

    /// To another guest.
    fn through(&mut self, to: &mut Self, size: usize) -> u64 {
        self.post();
        let start = now();
        for _ in 0..BURSTS {
            let mut burst = Burst::new();
            self.rx.rx_burst(&mut burst);
            assert_eq!(to.tx.tx_burst(&mut burst), MAX_BURST);
            drop(burst);
            self.rx.complete();
            to.tx.flush();
        }
        let took = now() - start;
        to.take(size);
        took
    }
}

/// Median, least and most of several repetitions; the first ones, which fill the caches, are thrown away.
fn row(name: &str, mut repetition: impl FnMut() -> u64) {
    for _ in 0..REPETITIONS / 10 {
        repetition();
    }
    let mut cycles: Vec<_> = (0..REPETITIONS).map(|_| repetition() as f64 / FRAMES as f64).collect();
    cycles.sort_by(f64::total_cmp);
    let (median, most) = (cycles[REPETITIONS / 2], cycles[REPETITIONS - 1]);
    println!("{name:<44}{median:>8.1}   ({:.1} to {most:.1})", cycles[0]);
}

fn rows(kind: &str, features: u64, size: usize, pool: &'static Mempool) {
    let mut from = Guest::new(features, size, pool);
    let mut to = Guest::new(features, size, pool);
    row(&format!("{kind}, {size} B: dequeue"), || from.dequeue());
    row(&format!("{kind}, {size} B: enqueue"), || to.enqueue(size, pool));
    row(&format!("{kind}, {size} B: through"), || from.through(&mut to, size));
}

fn main() {
    let pool = Mempool::new(&MempoolConfig { mbufs: 4096, ..MempoolConfig::default() }).expect("a pool");
    // As an lcore has: with a cache of the pool's.
    let _lcore = LcoreId::claim();
    let unit = if cfg!(target_arch = "x86_64") { "TSC cycles" } else { "ns" };
    println!("{unit} per packet, bursts of {MAX_BURST}, median (least to most) of {REPETITIONS}");
    for size in [60, 1514] {
        rows("split, mergeable", F_MRG_RXBUF, size, pool);
        rows("split, not mergeable", 0, size, pool);
        rows("split, mergeable, in order", F_MRG_RXBUF | F_IN_ORDER, size, pool);
        rows("packed, mergeable", F_MRG_RXBUF | F_RING_PACKED, size, pool);
        rows("packed, not mergeable", F_RING_PACKED, size, pool);
    }
}

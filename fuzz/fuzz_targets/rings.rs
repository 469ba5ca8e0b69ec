//! Any guest behind a port: it writes descriptors, makes them available, and another of its threads writes over them meanwhile.
//! Bursts both ways end, nothing panics, what is received is read whole, and every mbuf comes home.
//!
//! One byte chooses the features, one the rings' size, two where they start; the rest are moves ([`Move`]).
#![no_main]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{Port, QueueEnv, RxQueue, TxQueue};
use polder_fuzz::input::Input;
use polder_fuzz::ring_moves::{MOST, Move};
use rustix::event::{EventfdFlags, eventfd};
use vhost::driver::{FrontEnd, GuestRam, PackedRing, RamConfig, SplitRing};
use vhost::wire::message::{MemoryRegion, VringAddr, protocol};
use vhost::wire::net::{
    F_CSUM, F_EVENT_IDX, F_GUEST_CSUM, F_GUEST_TSO4, F_HOST_TSO4, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF,
    F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};
use vhost::wire::packed::{DESC_F_AVAIL, DESC_F_USED, PackedDesc, Position};
use vhost::wire::ring::Desc;
use vhost::{VhostUserPort, VhostUserSpec};

/// What the choosing bits stand for.
const CHOICES: [u64; 7] = [
    F_RING_PACKED,
    F_MRG_RXBUF,
    F_INDIRECT_DESC,
    F_EVENT_IDX,
    F_IN_ORDER,
    F_CSUM | F_HOST_TSO4,
    F_GUEST_CSUM | F_GUEST_TSO4,
];
/// Small, so that few bytes say much; those of packed rings may be any.
const SPLIT_SIZES: [u16; 5] = [8, 1, 2, 4, 16];
const PACKED_SIZES: [u16; 6] = [8, 1, 2, 3, 5, 16];
const MAX_SIZE: u16 = 16;
const RAM: usize = 64 << 10;
/// The RAM is two regions that meet here.
const SEAM: u64 = 32 << 10;
/// Indirect tables of 8 entries each lie here, one behind the other, near the seam.
const TABLES: usize = 0x7f00;
const TABLE: usize = 8 * 16;
/// Vrings: the guest receives by 0 and sends by 1 (virtio 1.3 §5.1.2).
const RINGS: usize = 2;

/// Where a ring lies, and what its guest knows of it.
struct GuestRing {
    split: SplitRing,
    packed: PackedRing,
    addr: VringAddr,
    /// avail.idx.
    idx: u16,
}

/// A port with a guest of one feature set on it.
struct Rig {
    front: FrontEnd,
    ram: GuestRam,
    rings: [GuestRing; RINGS],
    packed: bool,
    size: u16,
    kick: OwnedFd,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    pool: &'static Mempool,
    racer: Arc<Racer>,
    /// Keeps the racer's thread where it may run.
    wake: Thread,
    _port: VhostUserPort,
    _folder: tempfile::TempDir,
}

/// A thread of the guest's that writes over words of its RAM.
#[derive(Default)]
struct Racer {
    runs: AtomicBool,
    idle: AtomicBool,
    count: AtomicUsize,
    words: [(AtomicUsize, [AtomicU64; 2]); 8],
}

impl Racer {
    fn run(&self, ram: &GuestRam) {
        let whole = ram.span(0, RAM);
        loop {
            // ORDERING: pairs with `start`'s Release: the words were written before.
            if !self.runs.load(Ordering::Acquire) {
                // ORDERING: pairs with `stop`'s Acquire: nothing is written any more.
                self.idle.store(true, Ordering::Release);
                thread::park();
                continue;
            }
            for round in 0..2 {
                for (at, values) in &self.words[..self.count.load(Ordering::Relaxed)] {
                    whole.store_u64(at.load(Ordering::Relaxed), values[round].load(Ordering::Relaxed));
                }
            }
        }
    }

    fn add(&self, at: u16, values: [u64; 2], thread: &Thread) {
        let count = self.count.load(Ordering::Relaxed);
        let Some((word, to)) = self.words.get(count) else { return };
        word.store(usize::from(at) & (RAM - 8), Ordering::Relaxed);
        to.iter().zip(values).for_each(|(to, value)| to.store(value, Ordering::Relaxed));
        self.count.store(count + 1, Ordering::Relaxed);
        // ORDERING: pairs with `run`'s Release: what it says now it says after this.
        self.idle.store(false, Ordering::Release);
        // ORDERING: pairs with `run`'s Acquire.
        self.runs.store(true, Ordering::Release);
        thread.unpark();
        // So that it runs at all where CPUs are few.
        thread::yield_now();
    }

    fn stop(&self) {
        if self.count.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        // ORDERING: none is needed but that it is seen; labelled for the pair with `run`'s Acquire.
        self.runs.store(false, Ordering::Release);
        // ORDERING: pairs with `run`'s Release: its last write is done.
        while !self.idle.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

impl Rig {
    fn new(features: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let spec: VhostUserSpec = socket.to_str().expect("UTF-8").parse().expect("a path");
        let mut port = VhostUserPort::new(&spec).expect("a port");
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 512, cache: 0, zone, ..MempoolConfig::default() };
        let pool = Mempool::new(&config).expect("a pool");
        let mut queues = port.open(QueueEnv { pool, port: 1 }).expect("halves");
        let (rx, tx) = (queues.rx.remove(0), queues.tx.remove(0));
        let ram = GuestRam::new(RamConfig { bytes: RAM, gpa_base: 0, ..RamConfig::default() }).expect("RAM");
        let packed = features & F_RING_PACKED != 0;
        let rings = [0, 1].map(|index| guest_ring(&ram, index, packed));
        let front = connect(&socket, features, &ram);
        let kick = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        let racer = Arc::new(Racer::default());
        let wake = start_racer(&racer, &ram);
        Self {
            front,
            ram,
            rings,
            packed,
            size: 0,
            kick,
            rx,
            tx,
            pool,
            racer,
            wake,
            _port: port,
            _folder: folder,
        }
    }

    /// Both rings stop, the RAM becomes zeroes, both rings start.
    fn boot(&mut self, size: u16, start: u16) {
        for index in 0..RINGS as u32 {
            self.front.vring_base(index).expect("it stops");
        }
        self.ram.span(0, RAM).fill(0, RAM, 0);
        self.size = size;
        for (index, ring) in (0..).zip(&mut self.rings) {
            let position = Position { at: (start & 0x7fff) % size, wrap: start & 0x8000 == 0 };
            ring.idx = start;
            let base = if self.packed { position.base() } else { start.into() };
            // Of a position in the round of wrap counter 0 every zeroed descriptor would be available.
            if self.packed && !position.wrap {
                ring.packed.reset(position);
            }
            ring.split.set_avail_idx(if self.packed { 0 } else { start });
            self.front.set_vring_num(index, size.into()).expect("NUM");
            self.front.set_vring_base(index, base).expect("BASE");
            self.front.set_vring_addr(ring.addr).expect("ADDR");
            self.front.set_vring_kick(index, Some(self.kick.as_fd())).expect("KICK");
            self.front.set_vring_enable(index, true).expect("ENABLE");
        }
    }

    fn act(&mut self, step: Move) {
        match step {
            Move::Describe { table, at, addr, len, flags, next } => {
                self.describe(table, at, Move::address(addr), len, flags, next);
            }
            Move::Offer { ring, head, by } => self.offer(usize::from(ring), head, by),
            Move::Write { at, value } => {
                self.ram.span(0, RAM).store_u16(usize::from(at & !1), value, Ordering::Relaxed);
            }
            Move::Receive => self.receive(),
            Move::Send { count, len, fill } => self.send(count % 33, len, fill),
            Move::Sleep => {
                self.rx.arm();
                self.rx.disarm();
            }
            Move::Race { at, values } => self.racer.add(at, values, &self.wake),
            Move::Flip { at, bit } => {
                let now = self.ram.span(0, RAM).load_u64(usize::from(at) & (RAM - 8));
                self.racer.add(at, [now ^ 1 << bit, now], &self.wake);
            }
        }
    }

    fn describe(&mut self, table: u8, at: u8, addr: u64, len: u32, flags: u8, next: u16) {
        let low = u16::from(flags & 7);
        if let Some(ring) = self.rings.get_mut(usize::from(table)) {
            let at = u16::from(at) % self.size;
            if self.packed {
                // Bit 6: of the round of wrap counter 0; bit 7: not available.
                let round = if flags & 0x40 == 0 { DESC_F_AVAIL } else { DESC_F_USED };
                let round = if flags & 0x80 == 0 { round } else { 0 };
                ring.packed.set_desc(at, PackedDesc { addr, len, id: next, flags: low | round });
            } else {
                ring.split.set_desc(at, Desc { addr, len, flags: low, next });
            }
            return;
        }
        let entry = TABLES + TABLE * (usize::from(table) % 4) + 16 * (usize::from(at) % 8);
        let span = self.ram.span(entry, 16);
        span.store_u64(0, addr);
        let rest = if self.packed {
            PackedDesc { addr, len, id: next, flags: low }.rest_word()
        } else {
            Desc { addr, len, flags: low, next }.rest_word()
        };
        span.store_u64(8, rest);
    }

    fn offer(&mut self, ring: usize, head: u16, by: u8) {
        let ring = &mut self.rings[ring];
        ring.split.set_avail_entry(ring.idx % self.size, head);
        ring.idx = ring.idx.wrapping_add(by.into());
        ring.split.set_avail_idx(ring.idx);
    }

    /// What the guest sends is read whole, as a switch and a receiver would.
    fn receive(&mut self) {
        let mut burst = Burst::new();
        self.rx.rx_burst(&mut burst);
        for mbuf in burst.iter() {
            let mut bytes = vec![0; mbuf.len()];
            assert_eq!(mbuf.copy_to(0, &mut bytes), mbuf.len());
        }
        drop(burst);
        self.rx.complete();
    }

    fn send(&mut self, count: u8, len: u16, fill: u16) {
        let mut burst = Burst::new();
        for n in 0..count.min(32) {
            let mut mbuf = self.pool.alloc(1).expect("an mbuf");
            let len = (60 + usize::from(len) % 1500 + usize::from(n)).min(mbuf.tailroom());
            let data = mbuf.append(len).expect("room");
            data.iter_mut().enumerate().for_each(|(i, byte)| *byte = fill.to_le_bytes()[i % 2]);
            assert!(burst.push(mbuf).is_ok());
        }
        self.tx.tx_burst(&mut burst);
        drop(burst);
        self.tx.flush();
    }

    fn end(&mut self) {
        self.racer.stop();
        let balance = self.pool.balance();
        assert_eq!(balance.out, 0, "{balance:?}");
    }
}

/// Room for both formats in the same place: only one of them is ever used.
fn guest_ring(ram: &GuestRam, index: u32, packed: bool) -> GuestRing {
    let split_ring = SplitRing::alloc(ram, MAX_SIZE).expect("room");
    let packed_ring = PackedRing::alloc(ram, MAX_SIZE).expect("room");
    let addr = if packed { packed_ring.addr(index) } else { split_ring.addr(index) };
    GuestRing { split: split_ring, packed: packed_ring, addr, idx: 0 }
}

fn start_racer(racer: &Arc<Racer>, ram: &GuestRam) -> Thread {
    let (racer, ram) = (Arc::clone(racer), ram.clone());
    let run = move || racer.run(&ram);
    thread::Builder::new().name("racer".into()).spawn(run).expect("a thread").thread().clone()
}

fn connect(socket: &std::path::Path, features: u64, ram: &GuestRam) -> FrontEnd {
    let mut front = FrontEnd::connect(socket, Duration::from_secs(10)).expect("it listens");
    front.set_owner().expect("OWNER");
    front.set_protocol_features(protocol::F_REPLY_ACK).expect("PROTOCOL_FEATURES");
    front.set_features(features).expect("FEATURES");
    let low = MemoryRegion { size: SEAM, ..ram.region() };
    let high = MemoryRegion {
        gpa: low.gpa + SEAM,
        size: RAM as u64 - SEAM,
        va: low.va + SEAM,
        mmap_offset: low.mmap_offset + SEAM,
    };
    front.set_mem_table(&[(low, ram.as_fd()), (high, ram.as_fd())]).expect("MEM_TABLE");
    front
}

fuzz_target!(|input: &[u8]| {
    static RIGS: OnceLock<[Mutex<Option<Box<Rig>>>; 1 << CHOICES.len()]> = OnceLock::new();
    let mut input = Input(input);
    let (Some(choice), Some(size), Some(start)) = (input.byte(), input.byte(), input.u16()) else { return };
    let choice = usize::from(choice) % (1 << CHOICES.len());
    let chosen = (0..).zip(CHOICES).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, feature)| feature);
    let features = F_VERSION_1 | F_PROTOCOL_FEATURES | chosen.sum::<u64>();
    let sizes = if features & F_RING_PACKED != 0 { PACKED_SIZES.as_slice() } else { SPLIT_SIZES.as_slice() };
    let rigs = RIGS.get_or_init(|| std::array::from_fn(|_| Mutex::default()));
    let mut rig = rigs[choice].lock().expect("no run before this one failed");
    let rig = rig.get_or_insert_with(|| Box::new(Rig::new(features)));
    rig.boot(sizes[usize::from(size) % sizes.len()], start);
    for _ in 0..MOST {
        let Some(step) = Move::read(&mut input) else { break };
        rig.act(step);
    }
    rig.end();
});

//! Any bytes as a guest's RAM, its rings of either format included: a turn both ways ends, and every mbuf comes home.
//!
//! The first byte chooses the format and the features. The rest is the RAM from its start on, where the rings lie: first
//! what the guest sends, then what it receives.
#![no_main]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{Port, QueueEnv, RxQueue, TxQueue};
use rustix::event::{EventfdFlags, eventfd};
use vhost::driver::{FrontEnd, GuestRam, PackedRing, RamConfig, SplitRing};
use vhost::wire::message::{VringAddr, protocol};
use vhost::wire::net::{
    F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1,
};
use vhost::wire::packed::Position;
use vhost::{VhostUserPort, VhostUserSpec};

/// What the choosing byte's bits stand for.
const CHOICES: [u64; 5] = [F_RING_PACKED, F_MRG_RXBUF, F_INDIRECT_DESC, F_EVENT_IDX, F_IN_ORDER];
/// Small, so that few bytes say much. A legal size in both formats.
const SIZE: u16 = 8;
const RAM: usize = 64 << 10;
/// Vrings: the guest receives by 0 and sends by 1 (virtio 1.3 §5.1.2).
const SENT: u32 = 1;
/// Bursts in a turn each way: more than the rings have room for.
const BURSTS: usize = 4;

/// A port with a guest of one feature set on it.
struct Rig {
    front: FrontEnd,
    ram: GuestRam,
    /// Of vring 0 and vring 1.
    addr: [VringAddr; 2],
    kick: OwnedFd,
    /// Where all rings start.
    base: u32,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    pool: &'static Mempool,
    _port: VhostUserPort,
    _folder: tempfile::TempDir,
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
        // What is sent first: the bytes of short inputs go there.
        let mut addr = [SENT, 0].map(|index| {
            if packed {
                PackedRing::alloc(&ram, SIZE).expect("room").addr(index)
            } else {
                SplitRing::alloc(&ram, SIZE).expect("room").addr(index)
            }
        });
        addr.reverse();
        let front = connect(&socket, features, &ram);
        let kick = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
        let base = if packed { Position::START.base() } else { 0 };
        Self { front, ram, addr, kick, base, rx, tx, pool, _port: port, _folder: folder }
    }

    /// Both rings stop, the RAM becomes `bytes` and zeroes, both rings start.
    fn boot(&mut self, bytes: &[u8]) {
        for index in [0, SENT] {
            self.front.vring_base(index).expect("it stops");
        }
        let bytes = &bytes[..bytes.len().min(RAM)];
        self.ram.span(0, RAM).fill(0, RAM, 0);
        self.ram.span(0, bytes.len()).write(0, bytes);
        for (index, addr) in (0..).zip(self.addr) {
            self.front.set_vring_num(index, SIZE.into()).expect("NUM");
            self.front.set_vring_base(index, self.base).expect("BASE");
            self.front.set_vring_addr(addr).expect("ADDR");
            self.front.set_vring_kick(index, Some(self.kick.as_fd())).expect("KICK");
            self.front.set_vring_enable(index, true).expect("ENABLE");
        }
    }

    fn turn(&mut self) {
        for n in 0..BURSTS {
            self.receive();
            self.send(n);
        }
        // It wants to sleep, and is woken.
        self.rx.arm();
        self.rx.disarm();
        let balance = self.pool.balance();
        assert_eq!(balance.out, 0, "{balance:?}");
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

    /// A few frames of growing length go to the guest.
    fn send(&mut self, round: usize) {
        let mut burst = Burst::new();
        for n in 0..8 {
            let mut mbuf = self.pool.alloc(1).expect("an mbuf");
            mbuf.append(60 + (8 * round + n) * 40).expect("room").fill(n as u8);
            assert!(burst.push(mbuf).is_ok());
        }
        self.tx.tx_burst(&mut burst);
        drop(burst);
        self.tx.flush();
    }
}

fn connect(socket: &std::path::Path, features: u64, ram: &GuestRam) -> FrontEnd {
    let mut front = FrontEnd::connect(socket, Duration::from_secs(10)).expect("it listens");
    front.set_owner().expect("OWNER");
    front.set_protocol_features(protocol::F_REPLY_ACK).expect("PROTOCOL_FEATURES");
    front.set_features(features).expect("FEATURES");
    front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("MEM_TABLE");
    front
}

fuzz_target!(|input: &[u8]| {
    static RIGS: OnceLock<[Mutex<Option<Rig>>; 1 << CHOICES.len()]> = OnceLock::new();
    let Some((&choice, bytes)) = input.split_first() else { return };
    let choice = usize::from(choice) % (1 << CHOICES.len());
    let chosen = (0..).zip(CHOICES).filter(|(bit, _)| choice >> bit & 1 == 1).map(|(_, feature)| feature);
    let features = F_VERSION_1 | F_PROTOCOL_FEATURES | chosen.sum::<u64>();
    let rigs = RIGS.get_or_init(|| std::array::from_fn(|_| Mutex::default()));
    let mut rig = rigs[choice].lock().expect("no run before this one failed");
    let rig = rig.get_or_insert_with(|| Rig::new(features));
    rig.boot(bytes);
    rig.turn();
});

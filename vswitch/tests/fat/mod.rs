//! Ports whose frames are long: as from a guest, a head of its own and a tail in somebody else's memory. And a switch around
//! them whose receivers can be stopped, and whose work is counted.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test crates")]
#![expect(unsafe_code, reason = "names a static as the tail of packets")]
// UNSAFETY: one tail segment, over a static that nobody writes.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use mbuf::{
    Burst, Checksum, GsoKind, MAX_BURST, Mbuf, Mempool, MempoolConfig, Offload, PageSize, TailSegment,
    ZoneConfig,
};
use pmd::offload::{Adapted, OffloadSet, adapt};
use pmd::{DropReason, PortCounters, QueueCounters, Queues, RxQueue, TxQueue};
use vswitch::{IdlePolicy, LcoreConfig, Mac, Placement, PortId, Switch, SwitchConfig, Totals};

/// The longest frame's payload: 64 KiB of IP.
pub const LONG: usize = 65_535 - 40;
/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 54;

static BYTES: [u8; 65_536] = [0x5a; 65_536];
/// Tails by length - 1: a packet names its tail for as long as it lives.
static TAILS: LazyLock<Mutex<std::collections::HashMap<usize, &'static [TailSegment<'static>; 1]>>> =
    LazyLock::new(Mutex::default);

fn tail(len: usize) -> &'static [TailSegment<'static>] {
    let mut tails = TAILS.lock().unwrap();
    *tails.entry(len).or_insert_with(|| {
        let start = NonNull::from(&BYTES[..len]).cast();
        // SAFETY: a static: readable for ever, written by nobody.
        Box::leak(Box::new([unsafe { TailSegment::new(start, len as u32) }]))
    })
}

/// A pool as the daemon makes it, of so many mbufs.
pub fn pool(mbufs: usize) -> &'static Mempool {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    Mempool::new(&MempoolConfig { mbufs, zone, ..MempoolConfig::default() }).unwrap()
}

/// A frame to be sent: what its sender keeps for itself, and how many bytes follow in memory that it can change.
#[derive(Clone)]
pub struct Frame {
    pub head: Vec<u8>,
    pub tail: usize,
    pub offload: Offload,
}

/// A TCP frame over IPv4 of `payload` bytes; to be cut into segments of `mss` bytes if that is not 0.
pub fn tcp(dst: Mac, src: Mac, payload: usize, mss: u16) -> Frame {
    let mut head = vec![0; HEADERS];
    head[..6].copy_from_slice(&dst.0);
    head[6..12].copy_from_slice(&src.0);
    head[12..14].copy_from_slice(&[8, 0]);
    head[14] = 0x45;
    head[16..18].copy_from_slice(&((40 + payload) as u16).to_be_bytes());
    head[22..24].copy_from_slice(&[64, 6]);
    head[46] = 0x50;
    let mut offload = Offload::NONE;
    if mss != 0 {
        (offload.checksum, offload.gso, offload.gso_size) = (Checksum::Partial, GsoKind::TcpV4, mss);
        (offload.csum_start, offload.csum_offset, offload.hdr_len) = (34, 16, HEADERS as u16);
    }
    Frame { head, tail: payload, offload }
}

/// What lies between a test and one port.
pub struct Wire {
    to_switch: Mutex<VecDeque<Frame>>,
    /// Sent again and again as long as there is one.
    pub endless: Mutex<Option<Frame>>,
    /// Who holds it stops the lcore that sends to the port.
    pub stop: Mutex<()>,
    /// Packets and bytes that the port got, and packets that it had to cut for itself.
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub cut: AtomicU64,
    /// Times that its receive queue wanted mbufs and got none.
    pub starved: AtomicU64,
    /// Gaps between two visits of its receive queue: the bytes that all ports were sent, and nanoseconds. While `watching`.
    pub watching: AtomicBool,
    pub gaps: Mutex<Vec<(u64, u64)>>,
}

struct Rx {
    wire: Arc<Wire>,
    pool: &'static Mempool,
    port: u16,
    counters: Arc<CachePadded<QueueCounters>>,
    work: Arc<AtomicU64>,
    last: Option<(u64, Instant)>,
    most: usize,
}

impl Rx {
    fn note_visit(&mut self) {
        let now = (self.work.load(SeqCst), Instant::now());
        if !self.wire.watching.load(SeqCst) {
            self.last = None;
        } else if let Some((bytes, at)) = self.last.replace(now) {
            self.wire.gaps.lock().unwrap().push((now.0 - bytes, (now.1 - at).as_nanos() as u64));
        }
    }

    fn next(&self) -> Option<Frame> {
        let one = self.wire.to_switch.lock().unwrap().pop_front();
        one.or_else(|| self.wire.endless.lock().unwrap().clone())
    }
}

impl RxQueue for Rx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        self.note_visit();
        let mut count = 0;
        while count < self.most.min(burst.room() + count)
            && let Some(frame) = self.next()
        {
            let Ok(mut mbuf) = self.pool.alloc(self.port) else {
                self.wire.starved.fetch_add(1, SeqCst);
                self.wire.to_switch.lock().unwrap().push_front(frame);
                break;
            };
            mbuf.append(frame.head.len()).unwrap().copy_from_slice(&frame.head);
            if frame.tail > 0 {
                assert!(mbuf.set_tail(tail(frame.tail)));
            }
            mbuf.set_offload(frame.offload);
            self.counters.packets.add(1);
            self.counters.bytes.add(mbuf.len() as u64);
            assert!(burst.push(mbuf).is_ok());
            count += 1;
        }
        count
    }

    fn limit_bursts(&mut self, packets: usize) {
        self.most = packets;
    }
}

/// A receiver that copies what it gets, as a guest's ring does.
struct Tx {
    wire: Arc<Wire>,
    counters: Arc<CachePadded<QueueCounters>>,
    accepted: OffloadSet,
    work: Arc<AtomicU64>,
    memory: Box<[u8]>,
}

impl Tx {
    fn copy(&mut self, mbuf: &Mbuf<'_>) {
        let n = mbuf.copy_to(0, &mut self.memory);
        assert_eq!(n, mbuf.len());
        self.work.fetch_add(n as u64, SeqCst);
        self.wire.bytes.fetch_add(n as u64, SeqCst);
        self.wire.packets.fetch_add(1, SeqCst);
    }

    fn give(&mut self, mbuf: &Mbuf<'_>) -> Result<(), DropReason> {
        match adapt(mbuf.share(), self.accepted)? {
            Adapted::One(one) => self.copy(&one),
            Adapted::Many(segments) => {
                self.wire.cut.fetch_add(1, SeqCst);
                for segment in segments {
                    self.copy(&segment.map_err(|_| DropReason::NoMbufs)?);
                }
            }
        }
        Ok(())
    }
}

impl TxQueue for Tx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        let wire = Arc::clone(&self.wire);
        let _running = wire.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let count = burst.len();
        for mbuf in burst.iter() {
            match self.give(mbuf) {
                Ok(()) => {
                    self.counters.packets.add(1);
                    self.counters.bytes.add(mbuf.len() as u64);
                }
                Err(reason) => self.counters.drop_packets(reason, 1),
            }
        }
        burst.clear();
        count
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        self.counters.drop_packets(reason, burst.len() as u64);
        burst.clear();
    }
}

#[derive(Clone)]
pub struct Port {
    pub id: PortId,
    pub wire: Arc<Wire>,
}

impl Port {
    pub fn send(&self, frame: Frame) {
        self.wire.to_switch.lock().unwrap().push_back(frame);
    }

    pub fn waiting(&self) -> usize {
        self.wire.to_switch.lock().unwrap().len()
    }

    pub fn packets(&self) -> u64 {
        self.wire.packets.load(SeqCst)
    }

    /// The gaps that were seen, after the first: bytes, and nanoseconds. Ends the watch.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        self.wire.watching.store(false, SeqCst);
        std::mem::take(&mut *self.wire.gaps.lock().unwrap())
    }
}

/// A switch, and what all its ports have in common.
pub struct Net {
    pub switch: Switch,
    pub pool: &'static Mempool,
    pub ports: Vec<Port>,
    work: Arc<AtomicU64>,
}

impl Net {
    pub fn new(lcores: usize, mbufs: usize) -> Self {
        let lcores = (0..lcores).map(|id| LcoreConfig { id, cpu: None }).collect();
        let config = SwitchConfig { lcores, idle: IdlePolicy::Spin, ..SwitchConfig::default() };
        Self {
            switch: Switch::start(config).unwrap(),
            pool: pool(mbufs),
            ports: Vec::new(),
            work: Arc::default(),
        }
    }

    /// A port on this lcore that accepts these offloads, with a known address: that of its place.
    pub fn add(&mut self, lcore: usize, accepted: OffloadSet) -> Port {
        let n = self.ports.len();
        let id = self.switch.reserve_port(&format!("p{n}")).unwrap();
        let wire = Arc::new(Wire {
            to_switch: Mutex::default(),
            endless: Mutex::default(),
            stop: Mutex::default(),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            watching: AtomicBool::new(false),
            gaps: Mutex::default(),
        });
        let counters = PortCounters::new(1, 1);
        let work = Arc::clone(&self.work);
        let rx = Rx {
            wire: Arc::clone(&wire),
            pool: self.pool,
            port: id.number(),
            counters: Arc::clone(&counters.rx[0]),
            work: Arc::clone(&work),
            last: None,
            most: MAX_BURST,
        };
        let memory = vec![0; 1 << 17].into_boxed_slice();
        let tx =
            Tx { wire: Arc::clone(&wire), counters: Arc::clone(&counters.tx[0]), accepted, work, memory };
        let queues = Queues { rx: vec![Box::new(rx)], tx: vec![Box::new(tx)] };
        let placement = Placement { lcores: vec![lcore] };
        self.switch.attach_placed(id, queues, counters, &placement).unwrap();
        self.switch.fdb().add_static(mac(n), 0, id).unwrap();
        let port = Port { id, wire };
        self.ports.push(port.clone());
        port
    }

    pub fn totals(&self) -> Totals {
        self.switch.stats().totals()
    }

    /// What its queues counted, and the switch of what came in by it.
    pub fn totals_of(&self, port: &Port) -> Totals {
        let stats = self.switch.stats();
        stats.ports.into_iter().find(|p| p.id == port.id).unwrap().totals
    }

    /// Waits until all that was sent has gone where it goes, and every mbuf is back.
    pub fn settle(&self) {
        let sent = || self.ports.iter().all(|p| p.waiting() == 0 && p.wire.endless.lock().unwrap().is_none());
        eventually("all was taken", sent);
        eventually("all mbufs are back", || self.pool.balance().out == 0);
        eventually("all is accounted for", || self.totals().unaccounted() == 0);
    }
}

/// Waits for a long time.
pub fn eventually(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// The address behind the port that was added `n`-th.
pub fn mac(n: usize) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0xa1, n as u8])
}

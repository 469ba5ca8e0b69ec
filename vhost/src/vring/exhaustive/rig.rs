//! A ring on the heap, buffers in a guest's memory, and both halves of the data plane on it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::alarm::Alarm;
use pmd::{Counter, QueueCounters, QueueEnv, RxQueue, TxQueue};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};

use crate::memory::{FrontendVa, Gpa, GuestMemory, RegionRequest, Window};
use crate::session::announce::AnnounceSlot;
use crate::vring::{Fault, GuestRx, GuestTx, PortNotifier, RingNotifier, VringSetup, VringSlot};
use crate::wire::ring::{DESC_SIZE, Desc, avail_bytes, desc_bytes, used_bytes};
use crate::wire::{net, packed};

/// Two regions meet at `LOW_END`; in the file that is behind them they don't.
pub(super) const LOW: u64 = 0x1_0000;
pub(super) const LOW_END: u64 = LOW + 0x2000;
pub(super) const UPPER_END: u64 = LOW_END + 0x1000;
const UPPER_OFFSET: u64 = 0x4000;
/// No region is here.
pub(super) const HOLE: u64 = 0x8_0000;
/// A buffer of 30 bytes here passes the end of the address space.
pub(super) const TOP: u64 = u64::MAX - 15;
/// Where indirect tables lie.
pub(super) const TABLE: u64 = LOW + 0x1000;
/// Bytes of the virtio-net header.
pub(super) const HEADER: usize = 12;
/// The largest ring here.
const MOST: usize = 32_768;

/// What stands in guest memory: the first 12 of each 16 bytes are 0, and so are a header wherever a buffer starts at a multiple of
/// 16.
fn pattern(gpa: u64) -> u8 {
    if gpa % 16 < HEADER as u64 { 0 } else { (gpa >> 4 ^ gpa) as u8 | 1 }
}

/// The `len` bytes at `gpa`, one after the other; `None` if one of them is nowhere, or has no address.
pub(super) fn bytes(gpa: u64, len: u32) -> Option<Vec<u8>> {
    gpa.checked_add(len.into())?;
    let inside = |at| (LOW..UPPER_END).contains(&at);
    (gpa..gpa + u64::from(len)).map(|at| inside(at).then(|| pattern(at))).collect()
}

/// The words of the `len` bytes at `gpa` as an indirect table, if they lie in one region.
pub(super) fn table_words(gpa: u64, len: u32) -> Option<Vec<(u64, u64)>> {
    let bytes = bytes(gpa, len).filter(|_| gpa >= LOW_END || gpa + u64::from(len) <= LOW_END)?;
    let (words, _) = bytes.as_chunks::<8>();
    let (entries, _) = words.as_chunks::<2>();
    Some(entries.iter().map(|[addr, rest]| (u64::from_le_bytes(*addr), u64::from_le_bytes(*rest))).collect())
}

/// What a burst came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) dropped: u64,
    pub(super) fault: Option<Fault>,
}

impl Outcome {
    /// Of chains of these bytes, headers included, taken before the `fault`.
    pub(super) fn of(chains: &[Vec<u8>], fault: Option<Fault>) -> Self {
        let long_enough = |chain: &&Vec<u8>| chain.len() >= HEADER + 14;
        let frames: Vec<_> =
            chains.iter().filter(long_enough).map(|chain| chain[HEADER..].to_vec()).collect();
        Self { dropped: (chains.len() - frames.len()) as u64, frames, fault }
    }
}

pub(super) struct Rig {
    slot: Arc<VringSlot>,
    rx: GuestTx,
    tx: GuestRx,
    counters: Arc<CachePadded<QueueCounters>>,
    memory: Arc<GuestMemory>,
    file: OwnedFd,
    /// Two words a descriptor.
    pub(super) desc: Box<[AtomicU64]>,
    pub(super) avail: Box<[AtomicU16]>,
    used: Box<[AtomicU32]>,
}

fn pool() -> &'static Mempool {
    static POOL: OnceLock<&'static Mempool> = OnceLock::new();
    POOL.get_or_init(|| {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 512, cache: 0, zone, ..MempoolConfig::default() };
        Mempool::new(&config).expect("a pool")
    })
}

fn window(start: *const u8, len: usize) -> Window {
    Window { start: NonNull::new(start.cast_mut()).expect("an address"), len }
}

impl Rig {
    pub(super) fn new() -> Self {
        let notifier = Arc::new(PortNotifier::new(Arc::new(Alarm::new().expect("an eventfd"))));
        let slot = Arc::new(VringSlot::new(RingNotifier::new(notifier), None));
        let (counters, announce) = (Arc::default(), Arc::new(AnnounceSlot::default()));
        let env = QueueEnv { pool: pool(), port: 1 };
        let rx = GuestTx::new(Arc::clone(&slot), env, Arc::clone(&counters), announce);
        let tx = GuestRx::new(Arc::clone(&slot), Arc::clone(&counters));
        let (memory, file) = guest_memory();
        Self {
            slot,
            rx,
            tx,
            counters,
            memory: Arc::new(memory),
            file,
            desc: (0..2 * MOST).map(|_| AtomicU64::new(0)).collect(),
            avail: (0..avail_bytes(MOST as u16) / 2).map(|_| AtomicU16::new(0)).collect(),
            used: (0..used_bytes(MOST as u16).div_ceil(4)).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Starts the ring anew.
    pub(super) fn start(&self, size: u16, base: u32, features: u64) {
        let is_packed = features & net::F_RING_PACKED != 0;
        let (avail, used) = if is_packed {
            (packed::EVENT_SIZE, packed::EVENT_SIZE)
        } else {
            (avail_bytes(size), used_bytes(size))
        };
        let started = self.slot.start(VringSetup {
            size,
            desc: window(self.desc.as_ptr().cast(), desc_bytes(size)),
            avail: window(self.avail.as_ptr().cast(), avail),
            used: window(self.used.as_ptr().cast(), used),
            base,
            features: features | net::F_VERSION_1,
            memory: Arc::clone(&self.memory),
            call: None,
            enabled: true,
        });
        started.expect("memory for the ring's bookkeeping");
    }

    pub(super) fn set_words(&self, at: usize, addr: u64, rest: u64) {
        self.desc[2 * at].store(addr, Ordering::Relaxed);
        self.desc[2 * at + 1].store(rest, Ordering::Relaxed);
    }

    /// Writes an indirect table, from words as they stand in memory.
    pub(super) fn set_table(&self, entries: &[(u64, u64)]) {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|(addr, rest)| [addr.to_le_bytes(), rest.to_le_bytes()].concat())
            .collect();
        assert_eq!(pwrite(&self.file, &bytes, TABLE - LOW), Ok(entries.len() * DESC_SIZE));
    }

    /// Publishes heads of a split ring that starts at 0.
    pub(super) fn offer(&self, heads: &[u16]) {
        for (entry, head) in self.avail[2..].iter().zip(heads) {
            entry.store(*head, Ordering::Relaxed);
        }
        self.avail[1].store(heads.len() as u16, Ordering::Relaxed);
    }

    /// Ids and lengths in a split ring that started at 0.
    pub(super) fn used(&self) -> Vec<(u32, u32)> {
        let word = |at: usize| self.used[at].load(Ordering::Relaxed);
        (0..(word(0) >> 16) as usize).map(|i| (word(1 + 2 * i), word(2 + 2 * i))).collect()
    }

    /// Guest memory from [`LOW`] on, region by region.
    pub(super) fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; (UPPER_END - LOW) as usize];
        let (low, upper) = bytes.split_at_mut((LOW_END - LOW) as usize);
        assert_eq!(pread(&self.file, &mut *low, 0), Ok(low.len()));
        assert_eq!(pread(&self.file, &mut *upper, UPPER_OFFSET), Ok(upper.len()));
        bytes
    }

    pub(super) fn set_memory(&self, bytes: &[u8]) {
        let (low, upper) = bytes.split_at((LOW_END - LOW) as usize);
        assert_eq!(pwrite(&self.file, low, 0), Ok(low.len()));
        assert_eq!(pwrite(&self.file, upper, UPPER_OFFSET), Ok(upper.len()));
    }

    /// Sends one frame to the guest: whether it was taken, and dropped, and the fault.
    pub(super) fn send(&mut self, frame: &[u8]) -> (bool, bool, Option<Fault>) {
        // Nothing in the used ring is an older test's.
        self.used.iter().take(8).for_each(|word| word.store(0, Ordering::Relaxed));
        let before = self.dropped();
        let mut burst = Burst::new();
        let mut mbuf = pool().alloc(1).expect("an mbuf");
        mbuf.append(frame.len()).expect("room").copy_from_slice(frame);
        assert!(burst.push(mbuf).is_ok());
        let taken = self.tx.tx_burst(&mut burst) == 1;
        drop(burst);
        self.tx.flush();
        (taken, self.dropped() > before, self.slot.fault())
    }

    fn dropped(&self) -> u64 {
        self.counters.drops.iter().map(Counter::get).sum()
    }

    /// A burst, given back.
    pub(super) fn burst(&mut self) -> Outcome {
        let before = self.dropped();
        let mut burst = Burst::new();
        self.rx.rx_burst(&mut burst);
        let frames = burst.iter().map(|mbuf| {
            let mut bytes = vec![0; mbuf.len()];
            assert_eq!(mbuf.copy_to(0, &mut bytes), bytes.len());
            bytes
        });
        let frames = frames.collect();
        drop(burst);
        self.rx.complete();
        Outcome { frames, dropped: self.dropped() - before, fault: self.slot.fault() }
    }
}

fn guest_memory() -> (GuestMemory, OwnedFd) {
    let file = memfd_create("exhaustive", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&file, 0x8000).expect("ftruncate");
    let mut requests = Vec::new();
    for (gpa, end, offset) in [(LOW, LOW_END, 0), (LOW_END, UPPER_END, UPPER_OFFSET)] {
        let content: Vec<u8> = (gpa..end).map(pattern).collect();
        assert_eq!(pwrite(&file, &content, offset), Ok(content.len()));
        let fd = file.try_clone().expect("a descriptor more");
        let (size, va) = (end - gpa, FrontendVa(0x7000_0000 + gpa));
        requests.push(RegionRequest { gpa: Gpa(gpa), size, va, mmap_offset: offset, fd });
    }
    (GuestMemory::map(&requests).expect("two sound regions"), file)
}

/// A descriptor's two words as a split ring has them.
pub(super) fn words(desc: &Desc) -> (u64, u64) {
    (desc.addr, desc.rest_word())
}

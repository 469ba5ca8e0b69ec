//! One ring of a guest's, in memory of its own, and the queue that serves it.

use core::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;
use mbuf::{Mbuf, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::alarm::Alarm;
use pmd::{QueueCounters, QueueEnv};

use crate::driver::{GuestRam, RamConfig, Span};
use crate::memory::{FrontendVa, Gpa, GuestMemory, RegionRequest, Window};
use crate::session::announce::AnnounceSlot;
use crate::vring::{Fault, GuestRx, GuestTx, PortNotifier, RingNotifier, VringSetup, VringSlot};
use crate::wire::net::F_RING_PACKED;
use crate::wire::packed::{DESC_FLAGS_OFFSET, EVENT_SIZE, PackedDesc, Position};
use crate::wire::ring::{Desc, USED_IDX_OFFSET, avail_bytes, desc_bytes, used_bytes};

/// Guest-physical start of the RAM, so that address 0 is outside.
pub(in crate::vring) const GPA: u64 = 0x10_0000;
const VA: u64 = 0x7000_0000;

/// What a ring is to be.
#[derive(Clone, Copy, Debug)]
pub(in crate::vring) struct Shape {
    pub(in crate::vring) features: u64,
    pub(in crate::vring) size: u16,
    /// Bytes of RAM: two regions of half of it each, side by side; the ring lies in the first.
    pub(in crate::vring) ram: usize,
}

impl Shape {
    pub(in crate::vring) fn is_packed(&self) -> bool {
        self.features & F_RING_PACKED != 0
    }

    /// Where the available ring, or the driver's event suppression, starts.
    pub(in crate::vring) fn avail(&self) -> usize {
        desc_bytes(self.size).next_multiple_of(64)
    }

    /// Where the used ring, or the device's event suppression, starts.
    pub(in crate::vring) fn used(&self) -> usize {
        let bytes = if self.is_packed() { EVENT_SIZE } else { avail_bytes(self.size) };
        (self.avail() + bytes).next_multiple_of(64)
    }

    /// Where nothing of the ring lies any more.
    pub(in crate::vring) fn data(&self) -> usize {
        let bytes = if self.is_packed() { EVENT_SIZE } else { used_bytes(self.size) };
        (self.used() + bytes).next_multiple_of(64)
    }
}

/// The ring, and what serves it.
pub(in crate::vring) struct Rig {
    pub(in crate::vring) shape: Shape,
    pub(in crate::vring) ram: Span,
    pub(in crate::vring) slot: Arc<VringSlot>,
    pub(in crate::vring) counters: Arc<CachePadded<QueueCounters>>,
    /// Where the guest makes its next buffer available.
    pub(in crate::vring) next: Position,
    /// The same in a split ring.
    pub(in crate::vring) avail_idx: u16,
    memory: Arc<GuestMemory>,
}

/// Mbufs for all tests: a pool lives for ever.
pub(in crate::vring) fn pool() -> &'static Mempool {
    static POOL: OnceLock<&'static Mempool> = OnceLock::new();
    POOL.get_or_init(|| {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        Mempool::new(&MempoolConfig { mbufs: 8192, cache: 0, zone, ..MempoolConfig::default() })
            .expect("a pool")
    })
}

impl Rig {
    pub(in crate::vring) fn new(shape: Shape) -> Self {
        let config = RamConfig { bytes: shape.ram, gpa_base: GPA, ..RamConfig::default() };
        let ram = GuestRam::new(config).expect("RAM");
        let half = (ram.bytes() / 2) as u64;
        let region = |at: u64| RegionRequest {
            gpa: Gpa(GPA + at),
            size: half,
            va: FrontendVa(VA + at),
            mmap_offset: at,
            fd: std::os::fd::AsFd::as_fd(&ram).try_clone_to_owned().expect("a descriptor"),
        };
        let memory = GuestMemory::default().replaced_by(&[region(0), region(half)]).expect("a table");
        let memory = Arc::new(memory);
        let notifier = Arc::new(PortNotifier::new(Arc::new(Alarm::new().expect("an alarm"))));
        let slot = Arc::new(VringSlot::new(RingNotifier::new(notifier), None));
        let ram = ram.span(0, ram.bytes());
        Self { shape, ram, slot, counters: Arc::default(), next: Position::START, avail_idx: 0, memory }
    }

    fn window(&self, at: usize, len: usize) -> Window {
        self.memory.translate_va(FrontendVa(VA + at as u64), len as u64).expect("inside of the first region")
    }

    /// Starts the ring, or starts it anew, where nothing was ever used.
    pub(in crate::vring) fn start(&mut self) {
        let Shape { size, features, .. } = self.shape;
        let packed = self.shape.is_packed();
        let (avail, used) =
            if packed { (EVENT_SIZE, EVENT_SIZE) } else { (avail_bytes(size), used_bytes(size)) };
        (self.next, self.avail_idx) = (Position::START, 0);
        self.ram.store_u16(self.shape.used() + USED_IDX_OFFSET, 0, Ordering::Relaxed);
        let started = self.slot.start(VringSetup {
            size,
            desc: self.window(0, desc_bytes(size)),
            avail: self.window(self.shape.avail(), avail),
            used: self.window(self.shape.used(), used),
            base: if packed { Position::START.base() } else { 0 },
            features,
            memory: Arc::clone(&self.memory),
            call: None,
            enabled: true,
        });
        started.expect("memory for the ring's bookkeeping");
    }

    /// What the guest receives by.
    pub(in crate::vring) fn receiver(&self) -> GuestRx {
        GuestRx::new(Arc::clone(&self.slot), Arc::clone(&self.counters))
    }

    /// What the guest sends by.
    pub(in crate::vring) fn sender(&self) -> GuestTx {
        self.sender_from(pool())
    }

    /// The same, into mbufs of this pool.
    pub(in crate::vring) fn sender_from(&self, pool: &'static Mempool) -> GuestTx {
        let env = QueueEnv { pool, port: 1 };
        GuestTx::new(Arc::clone(&self.slot), env, Arc::clone(&self.counters), Arc::<AnnounceSlot>::default())
    }

    /// The two words of a descriptor of this ring that is available at `at`, or in a table if `None`.
    pub(in crate::vring) fn words(&self, desc: Desc, at: Option<Position>) -> [u8; 16] {
        let rest = if self.shape.is_packed() {
            let flags = desc.flags | at.map_or(0, Position::available_flags);
            PackedDesc { addr: desc.addr, len: desc.len, id: desc.next, flags }.rest_word()
        } else {
            desc.rest_word()
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&desc.addr.to_le_bytes());
        bytes[8..].copy_from_slice(&rest.to_le_bytes());
        bytes
    }

    /// Buffers that came back since the start (split), or descriptors that say so (packed).
    pub(in crate::vring) fn used(&self) -> usize {
        if self.shape.is_packed() {
            let both = Position::START.used_flags();
            let flags = |at: usize| self.ram.load_u16(at * 16 + DESC_FLAGS_OFFSET, Ordering::Relaxed);
            return (0..self.shape.size.into()).filter(|&at| flags(at) & both == both).count();
        }
        self.ram.load_u16(self.shape.used() + USED_IDX_OFFSET, Ordering::Relaxed).into()
    }

    pub(in crate::vring) fn fault(&self) -> Option<Fault> {
        self.slot.fault()
    }
}

/// A frame of `len` bytes, each of which is that of `fill` at its place.
pub(in crate::vring) fn frame(len: usize, fill: impl Fn(usize) -> u8) -> Mbuf<'static> {
    written(len, |part, start| part.iter_mut().zip(start..).for_each(|(byte, at)| *byte = fill(at)))
}

/// A frame of `len` bytes, all the same.
pub(in crate::vring) fn plain_frame(len: usize) -> Mbuf<'static> {
    written(len, |part, _| part.fill(0x77))
}

fn written(len: usize, write: impl Fn(&mut [u8], usize)) -> Mbuf<'static> {
    let mut mbuf = pool().alloc(1).expect("an mbuf");
    let mut done = 0;
    while done < len {
        let mut part = pool().alloc(1).expect("an mbuf");
        let n = part.tailroom().min(len - done);
        write(part.append(n).expect("room"), done);
        if done == 0 {
            mbuf = part;
        } else {
            mbuf.chain(part).expect("alone");
        }
        done += n;
    }
    mbuf
}

//! Mempools: equal mbufs cut from a zone, a lockless ring of free ones, a cache per lcore in front of it.
#![expect(unsafe_code, reason = "cuts raw memory into mbufs and hands them out")]
// UNSAFETY: an mbuf is owned by exactly one of: the ring, one lcore's cache, or whoever took it out. Each block says which
// of the three it moves between. A cache belongs to the thread that holds its `LcoreId`; nobody else writes it.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use ring::{Capacity, Mpmc};

use crate::layout::{FREE, HEADROOM, Meta, MetaPtr};
use crate::packet::Mbuf;
use crate::{Burst, LcoreId, MAX_BURST, MAX_LCORES, Offload, Zone, ZoneConfig, ZoneError, lcore};

/// Most mbufs that an lcore's cache can be set to keep.
const MAX_CACHE: usize = 512;
/// A cache may overshoot its size by a half before it is flushed down to it.
const FLUSH_FACTOR_PERCENT: usize = 150;
const CACHE_SLOTS: usize = MAX_CACHE * FLUSH_FACTOR_PERCENT / 100 + MAX_BURST;

// SAFETY: an mbuf out of its pool is owned by one holder; the pointer says only where it is.
unsafe impl Send for MetaPtr {}

/// What a mempool is made of.
#[derive(Clone, Debug)]
pub struct MempoolConfig {
    /// How many mbufs.
    pub mbufs: usize,
    /// Bytes of data room in each, headroom not counted; 64 to 65,000.
    pub data_room: usize,
    /// Mbufs that each lcore keeps at hand; 0 to 512.
    pub cache: usize,
    /// Where the memory comes from. Its size is set by the pool.
    pub zone: ZoneConfig,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { mbufs: 8192, data_room: 2048, cache: 256, zone: ZoneConfig::default() }
    }
}

/// Why a mempool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// A number out of its range.
    #[error("mempool {what} = {value} is out of range ({range})")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it was.
        value: usize,
        /// What it may be.
        range: &'static str,
    },
    /// The memory could not be had.
    #[error(transparent)]
    Zone(#[from] ZoneError),
}

/// The pool has no free mbuf left (or not as many as were asked for at once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mempool is empty")]
pub struct NoMbufs;

/// Where a pool's mbufs are. Exact when nobody allocates or frees meanwhile; then `free + cached + out == total`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolBalance {
    /// All there are.
    pub total: usize,
    /// In the shared ring.
    pub free: usize,
    /// In the lcores' caches.
    pub cached: usize,
    /// Held by somebody.
    pub out: usize,
    /// The `out` ones by owner tag (see [`Mempool::alloc_bulk`]), ascending by tag.
    pub out_by_owner: Vec<(u16, usize)>,
}

/// One lcore's stock. LIFO, so that what was freed last, and is warm, goes out first.
struct Cache {
    len: AtomicU32,
    slots: UnsafeCell<[MaybeUninit<MetaPtr>; CACHE_SLOTS]>,
}

/// Fixed-size mbufs and their free list. Lives as long as the process, so that no mbuf can outlive its pool.
pub struct Mempool {
    ring: Mpmc<MetaPtr>,
    caches: Box<[CachePadded<Cache>]>,
    cache_size: usize,
    total: usize,
    stride: usize,
    data_room: usize,
    zone: Zone,
}

// SAFETY: the ring is shared by design; each cache is touched only by the thread that holds its identity (see `Cache`
// users below), but for `len`, which is atomic; the zone's bytes belong to whoever holds the mbuf.
unsafe impl Sync for Mempool {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Mempool {}

impl core::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mempool")
            .field("total", &self.total)
            .field("data_room", &self.data_room)
            .finish_non_exhaustive()
    }
}

fn in_range(
    what: &'static str,
    value: usize,
    lo: usize,
    hi: usize,
    range: &'static str,
) -> Result<(), MempoolError> {
    if (lo..=hi).contains(&value) { Ok(()) } else { Err(MempoolError::OutOfRange { what, value, range }) }
}

impl Mempool {
    /// Makes a pool. It is never taken down: its memory is the process's.
    ///
    /// # Errors
    /// A number out of range, or memory that cannot be had.
    pub fn new(config: &MempoolConfig) -> Result<&'static Self, MempoolError> {
        in_range("mbufs", config.mbufs, 1, 1 << 28, "1 to 268435456")?;
        in_range("data_room", config.data_room, 64, 65_000, "64 to 65000 bytes")?;
        in_range("cache", config.cache, 0, MAX_CACHE, "0 to 512")?;
        let stride = (size_of::<Meta>() + HEADROOM + config.data_room).next_multiple_of(64);
        // An odd number of lines between mbufs spreads their first lines over all sets of the caches.
        let stride = if (stride / 64).is_multiple_of(2) { stride + 64 } else { stride };
        let zone = Zone::new(&ZoneConfig { bytes: stride * config.mbufs, ..config.zone.clone() })?;
        let ring = Mpmc::new(Capacity::Exact(config.mbufs)).map_err(|_| MempoolError::OutOfRange {
            what: "mbufs",
            value: config.mbufs,
            range: "1 to 268435456",
        })?;
        let caches = (0..MAX_LCORES)
            .map(|_| {
                CachePadded::new(Cache {
                    len: AtomicU32::new(0),
                    slots: UnsafeCell::new([const { MaybeUninit::uninit() }; CACHE_SLOTS]),
                })
            })
            .collect();
        let total = config.mbufs;
        let pool: &'static Self = Box::leak(Box::new(Self {
            ring,
            caches,
            cache_size: config.cache,
            total,
            stride,
            data_room: config.data_room,
            zone,
        }));
        pool.cut();
        Ok(pool)
    }

    /// Writes each mbuf's head and puts it in the ring.
    fn cut(&'static self) {
        let buf_len = (self.stride - size_of::<Meta>()) as u16;
        for i in 0..self.total {
            let meta = self.nth(i);
            let head = Meta {
                pool: self,
                next: None,
                tail: core::ptr::null(),
                data_len: 0,
                pkt_len: 0,
                data_off: HEADROOM as u16,
                buf_len,
                refcnt: AtomicU16::new(1),
                tail_count: 0,
                port: 0,
                owner: FREE,
                offload: Offload::NONE,
            };
            // SAFETY: `nth` lies whole inside the zone, is aligned to 64, and nobody holds it yet.
            unsafe { meta.write(head) };
            let put = self.ring.push(MetaPtr(meta));
            assert!(put.is_ok(), "the ring holds all mbufs of its pool");
        }
    }

    fn nth(&self, i: usize) -> NonNull<Meta> {
        debug_assert!(i < self.total);
        // SAFETY: (i + 1) * stride <= the zone's length, by construction.
        unsafe { self.zone.base().add(i * self.stride).cast() }
    }

    /// All mbufs of this pool.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes of data that one mbuf holds behind its headroom (at least: what alignment adds is usable too).
    #[must_use]
    pub fn data_room(&self) -> usize {
        self.data_room
    }

    /// The memory the mbufs lie in.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Takes one fresh mbuf, tagged with its `owner` (a port's number, for the balance).
    ///
    /// # Errors
    /// [`NoMbufs`].
    pub fn alloc(&'static self, owner: u16) -> Result<Mbuf<'static>, NoMbufs> {
        let mut burst = Burst::new();
        self.alloc_bulk(&mut burst, 1, owner)?;
        burst.pop().ok_or(NoMbufs)
    }

    /// Appends `n` fresh mbufs to `burst`: all or none. Fresh: empty, [`HEADROOM`] in front, no offload, one segment.
    /// `owner` tells in [`balance`](Self::balance) who holds them; any number but 65,535.
    ///
    /// # Errors
    /// [`NoMbufs`] if the pool has not `n`, or the burst has not the room.
    #[inline]
    pub fn alloc_bulk(&'static self, burst: &mut Burst<'_>, n: usize, owner: u16) -> Result<(), NoMbufs> {
        let Some(room) = burst.room_for(n) else { return Err(NoMbufs) };
        self.take(room)?;
        for slot in room.iter() {
            // SAFETY: `take` filled every slot with an mbuf that is now ours alone.
            unsafe { slot.assume_init_ref().0.as_ptr().as_mut_unchecked().refresh(owner) };
        }
        // SAFETY: `n` slots behind the burst's end hold fresh mbufs, owned by nobody else.
        unsafe { burst.grow(n) };
        Ok(())
    }

    /// Fills `out` from the lcore's cache, or from the ring: all or nothing.
    #[inline]
    fn take(&self, out: &mut [MaybeUninit<MetaPtr>]) -> Result<(), NoMbufs> {
        let Some(cache) = self.own_cache() else { return self.take_shared(out) };
        let n = out.len();
        let mut len = cache.len.load(Ordering::Relaxed) as usize;
        // SAFETY: this thread holds the cache's identity, and nothing here calls back.
        let slots = unsafe { &mut *cache.slots.get() };
        if len < n {
            let want = self.cache_size.max(n) - len;
            if self.ring.dequeue_bulk(&mut slots[len..len + want]).is_some() {
                len += want;
            } else if self.ring.dequeue_bulk(&mut slots[len..n]).is_some() {
                len = n;
            } else {
                return Err(NoMbufs);
            }
        }
        out.copy_from_slice(&slots[len - n..len]);
        cache.len.store((len - n) as u32, Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    fn take_shared(&self, out: &mut [MaybeUninit<MetaPtr>]) -> Result<(), NoMbufs> {
        self.ring.dequeue_bulk(out).map(|_| ()).ok_or(NoMbufs)
    }

    /// Takes mbufs back: to the lcore's cache, and from there to the ring when it overflows.
    ///
    /// # Safety
    /// Each is out of this pool, held by nobody else, unchained (`next` none), not listed twice.
    #[inline]
    pub(crate) unsafe fn put(&self, mbufs: &[MetaPtr]) {
        for m in mbufs {
            // SAFETY: ours by contract.
            let meta = unsafe { m.0.as_ptr().as_mut_unchecked() };
            debug_assert!(meta.owner != FREE, "an mbuf was freed twice");
            meta.owner = FREE;
        }
        let Some(cache) = self.own_cache().filter(|_| mbufs.len() <= MAX_BURST) else {
            return self.put_shared(mbufs);
        };
        let mut len = cache.len.load(Ordering::Relaxed) as usize;
        // SAFETY: this thread holds the cache's identity, and nothing here calls back.
        let slots = unsafe { &mut *cache.slots.get() };
        for (slot, m) in slots[len..].iter_mut().zip(mbufs) {
            slot.write(*m);
        }
        len += mbufs.len();
        if len > self.cache_size * FLUSH_FACTOR_PERCENT / 100 {
            // SAFETY: slots[..len] are initialised; those from cache_size on leave the cache here.
            let spill = unsafe { slots[self.cache_size.min(len)..len].assume_init_ref() };
            self.put_shared(spill);
            len = self.cache_size.min(len);
        }
        cache.len.store(len as u32, Ordering::Relaxed);
    }

    #[cold]
    fn put_shared(&self, mbufs: &[MetaPtr]) {
        let done = self.ring.enqueue_bulk(mbufs);
        assert!(done.is_some(), "the ring holds all mbufs of its pool");
    }

    /// Returns the calling lcore's cache to the ring (before its thread ends, say).
    pub fn flush_cache(&self, _lcore: &LcoreId) {
        let Some(cache) = self.own_cache() else { return };
        let len = cache.len.load(Ordering::Relaxed) as usize;
        // SAFETY: this thread holds the identity; slots[..len] are initialised and leave the cache here.
        let all = unsafe { (&(*cache.slots.get()))[..len].assume_init_ref() };
        self.put_shared(all);
        cache.len.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn own_cache(&self) -> Option<&Cache> {
        lcore::current().map(|id| &*self.caches[id])
    }

    /// Counts where every mbuf is. Walks the whole pool: a control-plane call.
    #[must_use]
    pub fn balance(&self) -> PoolBalance {
        let free = self.ring.len();
        let cached = self.caches.iter().map(|c| c.len.load(Ordering::Relaxed) as usize).sum();
        let mut owners = std::collections::BTreeMap::new();
        for i in 0..self.total {
            // SAFETY: inside the zone; a racing writer makes this one count stale, and a u16 load is not torn.
            let owner = unsafe { (&raw const (*self.nth(i).as_ptr()).owner).read_volatile() };
            if owner != FREE {
                *owners.entry(owner).or_insert(0usize) += 1;
            }
        }
        let out_by_owner: Vec<_> = owners.into_iter().collect();
        let out = out_by_owner.iter().map(|(_, n)| n).sum();
        PoolBalance { total: self.total, free, cached, out, out_by_owner }
    }
}

impl Meta {
    #[inline(always)]
    fn refresh(&mut self, owner: u16) {
        self.next = None;
        self.data_len = 0;
        self.pkt_len = 0;
        self.data_off = HEADROOM as u16;
        self.tail_count = 0;
        self.owner = owner;
        self.offload = Offload::NONE;
        *self.refcnt.get_mut() = 1;
    }
}

//! Mempools: equal mbufs cut from a zone, a lockless ring of free ones, a cache per lcore in front of it.
#![expect(unsafe_code, reason = "cuts raw memory into mbufs and hands them out")]
// UNSAFETY: an mbuf is owned by exactly one of: the ring, one lcore's cache, or whoever took it out. Each block says which
// of the three it moves between. A cache belongs to the thread that holds its `LcoreId`; nobody else writes it.

mod cache;

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU16, Ordering};

use crossbeam_utils::CachePadded;
use ring::{Capacity, Mpmc};

use self::cache::{Cache, MAX_CACHE, give};
use crate::layout::{Body, FREE, HEADROOM, Meta, MetaPtr};
use crate::packet::Mbuf;
use crate::{Burst, LcoreId, MAX_BURST, MAX_LCORES, Offload, Zone, ZoneConfig, ZoneError, lcore};

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

/// Fixed-size mbufs and their free list. Lives as long as the process, so that no mbuf can outlive its pool.
pub struct Mempool {
    ring: Mpmc<MetaPtr>,
    /// By lcore; empty if caches are of size 0.
    caches: Box<[CachePadded<Cache>]>,
    cache_size: usize,
    total: usize,
    /// See [`Mempool::reserve`].
    reserve: usize,
    stride: usize,
    data_room: usize,
    zone: Zone,
}

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

/// The share of a pool that is kept for receive queues.
const RESERVE_SHARE: usize = 8;

/// Whole bursts only: a pool of less than 256 mbufs is for something small that looks after itself.
const fn reserve_of(total: usize) -> usize {
    let bursts = total / RESERVE_SHARE / MAX_BURST;
    (if bursts < MAX_LCORES { bursts } else { MAX_LCORES }) * MAX_BURST
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
        let lcores = if config.cache == 0 { 0 } else { MAX_LCORES };
        let caches = (0..lcores).map(|_| CachePadded::new(Cache::new())).collect();
        let total = config.mbufs;
        let pool: &'static Self = Box::leak(Box::new(Self {
            ring,
            caches,
            cache_size: config.cache,
            total,
            reserve: reserve_of(total),
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
            let body = Body {
                pool: self,
                next: None,
                tail: core::ptr::null(),
                data_len: 0,
                pkt_len: 0,
                buf_len,
                data_off: HEADROOM as u16,
                tail_count: 0,
                port: 0,
                offload: Offload::NONE,
            };
            let (refcnt, owner, queued) = (AtomicU16::new(1), AtomicU16::new(FREE), AtomicU16::new(0));
            let head = Meta { body, refcnt, owner, queued };
            // SAFETY: `nth` lies whole inside the zone, is aligned to 64, and nobody holds it yet.
            unsafe { meta.0.write(head) };
            give(&self.ring, &[meta]);
        }
    }

    fn nth(&self, i: usize) -> MetaPtr {
        debug_assert!(i < self.total);
        // SAFETY: (i + 1) * stride <= the zone's length, by construction.
        MetaPtr(unsafe { self.zone.base().add(i * self.stride).cast::<Meta>() })
    }

    /// All mbufs of this pool.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Mbufs that only receive queues are given: an eighth of the pool in whole bursts, at most a burst for each of
    /// [`MAX_LCORES`]. They are what is left in the shared ring when [`spare`](Self::spare) is 0.
    #[must_use]
    pub fn reserve(&self) -> usize {
        self.reserve
    }

    /// Free mbufs beyond the [reserve](Self::reserve), those in the lcores' caches not counted. Whoever keeps packets beyond
    /// their turn asks it first. Reads two words that other lcores write: once a burst, not once a packet.
    #[inline]
    #[must_use]
    pub fn spare(&self) -> usize {
        self.ring.len().saturating_sub(self.reserve)
    }

    /// Bytes of data that one mbuf holds behind its headroom (at least: what alignment adds is usable too).
    #[must_use]
    pub fn data_room(&self) -> usize {
        self.data_room
    }

    /// Bytes of headroom and data together of each mbuf: what lies from [`Mbuf::data_start`] of a fresh one minus
    /// [`HEADROOM`] on, and belongs to whoever holds it.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        self.stride - size_of::<Meta>()
    }

    /// The number, below [`total`](Self::total), of the mbuf whose buffer the byte `offset` of the zone lies in. For ports
    /// that lend mbufs to somebody who names them by address; `None` for an address that is in no buffer.
    #[inline]
    #[must_use]
    pub fn number_at(&self, offset: usize) -> Option<usize> {
        let number = offset / self.stride;
        (number < self.total && offset % self.stride >= size_of::<Meta>()).then_some(number)
    }

    /// The memory the mbufs lie in.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Takes one fresh mbuf, tagged with its `owner` (a port's number).
    ///
    /// # Errors
    /// [`NoMbufs`].
    ///
    /// # Panics
    /// As [`alloc_bulk`](Self::alloc_bulk).
    #[inline]
    pub fn alloc(&'static self, owner: u16) -> Result<Mbuf<'static>, NoMbufs> {
        let mut one = [MaybeUninit::uninit()];
        let [one] = self.take(&mut one, owner)? else { return Err(NoMbufs) };
        // SAFETY: fresh, and owned by nobody else.
        Ok(unsafe { Mbuf::from_raw(*one) })
    }

    /// [`alloc`](Self::alloc) for anything but receiving: copies, segments. Leaves the [reserve](Self::reserve) alone.
    ///
    /// # Errors
    /// [`NoMbufs`]: no mbuf is spare, though receive queues may find some.
    ///
    /// # Panics
    /// As [`alloc_bulk`](Self::alloc_bulk).
    #[inline]
    pub fn alloc_spare(&'static self, owner: u16) -> Result<Mbuf<'static>, NoMbufs> {
        let at_hand = self.own_cache().map_or(0, Cache::len);
        if self.reserve != 0 && at_hand <= MAX_BURST {
            self.refill_spare()?;
        }
        self.alloc(owner)
    }

    /// Sees to it that there is an mbuf that is not of the reserve: in the lcore's cache, beyond the burst that its next visit
    /// to a receive queue wants, or in the ring.
    #[cold]
    fn refill_spare(&self) -> Result<(), NoMbufs> {
        let spare = self.spare();
        match self.own_cache() {
            // SAFETY: this thread holds the cache's identity.
            Some(cache) => unsafe { cache.top_up(spare, &self.ring, self.cache_size) },
            None if spare > 0 => Ok(()),
            None => Err(NoMbufs),
        }
    }

    /// Appends `n` fresh mbufs to `burst`: all or none. Fresh: empty, [`HEADROOM`] in front, no offload, one segment, of port
    /// `owner`, which also tells in [`balance`](Self::balance) who holds them; any number but 65,535.
    ///
    /// # Errors
    /// [`NoMbufs`] if the pool has not `n`, or the burst has not the room.
    ///
    /// # Panics
    /// If `owner` is 65,535.
    #[inline]
    pub fn alloc_bulk(&'static self, burst: &mut Burst<'_>, n: usize, owner: u16) -> Result<(), NoMbufs> {
        let Some(room) = burst.room_for(n) else { return Err(NoMbufs) };
        self.take(room, owner)?;
        // SAFETY: `n` slots behind the burst's end hold fresh mbufs, owned by nobody else.
        unsafe { burst.grow(n) };
        Ok(())
    }

    /// Fills `out`, at most [`MAX_BURST`], with fresh mbufs from the lcore's cache or from the ring: all or nothing.
    #[inline]
    fn take<'o>(&self, out: &'o mut [MaybeUninit<MetaPtr>], owner: u16) -> Result<&'o [MetaPtr], NoMbufs> {
        assert!(owner != FREE, "owner 65535 stands for no owner");
        match self.own_cache() {
            // SAFETY: this thread holds the cache's identity.
            Some(cache) => unsafe { cache.take(out, &self.ring, self.cache_size, self.reserve) }?,
            None => self.take_shared(out)?,
        }
        // SAFETY: one of the two has filled all of it.
        let mbufs = unsafe { out.assume_init_ref() };
        for m in mbufs {
            // SAFETY: out of the pool since just now, and ours alone.
            unsafe { m.body_mut() }.refresh(owner);
            // SAFETY: `cut` wrote its head.
            unsafe { m.owner() }.store(owner, Ordering::Relaxed);
        }
        Ok(mbufs)
    }

    #[cold]
    fn take_shared(&self, out: &mut [MaybeUninit<MetaPtr>]) -> Result<(), NoMbufs> {
        self.ring.dequeue_bulk(out).map(|_| ()).ok_or(NoMbufs)
    }

    /// Takes mbufs back: to the lcore's cache, and from there to the ring when it overflows.
    ///
    /// # Safety
    /// Each is out of this pool, held by nobody else, unchained (`next` none), of count 1, not listed twice.
    #[inline]
    pub(crate) unsafe fn put(&self, mbufs: &[MetaPtr]) {
        debug_assert!(mbufs.len() <= MAX_BURST);
        for m in mbufs {
            // SAFETY: `cut` wrote its head.
            let owner = unsafe { m.owner() };
            debug_assert!(owner.load(Ordering::Relaxed) != FREE, "an mbuf was freed twice");
            owner.store(FREE, Ordering::Relaxed);
        }
        match self.own_cache() {
            // SAFETY: this thread holds the cache's identity; the mbufs are nobody else's by contract.
            Some(cache) => unsafe { cache.put(mbufs, &self.ring, self.cache_size) },
            None => self.put_shared(mbufs),
        }
    }

    #[cold]
    fn put_shared(&self, mbufs: &[MetaPtr]) {
        give(&self.ring, mbufs);
    }

    /// Returns the calling lcore's cache to the ring (before its thread ends, say).
    pub fn flush_cache(&self, _lcore: &LcoreId) {
        if let Some(cache) = self.own_cache() {
            // SAFETY: this thread holds the cache's identity.
            unsafe { cache.spill(0, &self.ring) };
        }
    }

    #[inline(always)]
    fn own_cache(&self) -> Option<&Cache> {
        self.caches.get(lcore::current()).map(|c| &**c)
    }

    /// Takes `n` mbufs out and puts them back without looking at them: what `rte_mempool` does, for the benchmark.
    #[doc(hidden)]
    #[inline]
    pub fn turn_over<const N: usize, const KEEP: usize>(&self) {
        let mut kept = [const { MaybeUninit::uninit() }; KEEP];
        let (own, size) = (self.own_cache(), self.cache_size);
        for chunk in kept.as_chunks_mut::<N>().0 {
            let taken = match own {
                // SAFETY: this thread holds the cache's identity.
                Some(cache) => unsafe { cache.take(chunk, &self.ring, size, self.reserve) }.is_ok(),
                // In line, as `rte_mempool` has it; what packets go by is a call, `take_shared`.
                None => self.ring.dequeue_bulk(chunk).is_some(),
            };
            assert!(taken, "the pool is large enough");
        }
        for chunk in kept.as_chunks::<N>().0 {
            // SAFETY: all chunks were filled.
            let mbufs = unsafe { chunk.assume_init_ref() };
            match own {
                // SAFETY: as in `take` and `put`; they come from the pool.
                Some(cache) => unsafe { cache.put(mbufs, &self.ring, self.cache_size) },
                None => give(&self.ring, mbufs),
            }
        }
    }

    /// Counts where every mbuf is. Walks the whole pool: a control-plane call.
    #[must_use]
    pub fn balance(&self) -> PoolBalance {
        let free = self.ring.len();
        let cached = self.caches.iter().map(|c| c.len()).sum();
        let mut owners = std::collections::BTreeMap::new();
        for i in 0..self.total {
            // SAFETY: `cut` wrote its head.
            let owner = unsafe { self.nth(i).owner() }.load(Ordering::Relaxed);
            if owner != FREE {
                *owners.entry(owner).or_insert(0usize) += 1;
            }
        }
        let out_by_owner: Vec<_> = owners.into_iter().collect();
        let out = out_by_owner.iter().map(|(_, n)| n).sum();
        PoolBalance { total: self.total, free, cached, out, out_by_owner }
    }
}

impl Body {
    /// Makes it that of an empty packet. `next` is none in the pool, and `pool` never changes.
    #[inline(always)]
    fn refresh(&mut self, owner: u16) {
        debug_assert!(self.next.is_none());
        self.data_len = 0;
        self.pkt_len = 0;
        self.tail_count = 0;
        self.data_off = HEADROOM as u16;
        self.port = owner;
        self.offload = Offload::NONE;
    }
}

//! One lcore's stock of free mbufs, in front of the pool's ring.
#![expect(unsafe_code, reason = "slots that only the thread with the cache's identity may touch")]
// UNSAFETY: slots[..len] hold mbufs that the cache owns; the rest is garbage. Only the thread that holds the cache's
// `LcoreId` calls the unsafe methods, one at a time (none of them calls back), so slots and `len` have one user.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

use ring::Mpmc;

use super::NoMbufs;
use crate::MAX_BURST;
use crate::layout::MetaPtr;

/// Most mbufs that a cache can be set to keep.
pub(super) const MAX_CACHE: usize = 512;
const SLOTS: usize = flush_threshold(MAX_CACHE) + MAX_BURST;

/// A cache may overshoot its size by a half before it is flushed down to it.
const fn flush_threshold(size: usize) -> usize {
    size + size / 2
}

/// LIFO, so that what was freed last, and is warm, goes out first.
pub(super) struct Cache {
    own: UnsafeCell<Own>,
    /// `Own::len`, for those who count. Written only: a call that read it would wait for what the call before it stored.
    shown: AtomicU32,
}

/// What the one user has.
struct Own {
    /// `[..len]` hold mbufs.
    slots: [MaybeUninit<MetaPtr>; SLOTS],
    len: usize,
}

// SAFETY: see UNSAFETY: whoever calls an unsafe method promises to be the only one.
unsafe impl Sync for Cache {}

impl Cache {
    pub(super) fn new() -> Self {
        let own = Own { slots: [const { MaybeUninit::uninit() }; SLOTS], len: 0 };
        Self { own: UnsafeCell::new(own), shown: AtomicU32::new(0) }
    }

    /// How many mbufs it holds.
    pub(super) fn len(&self) -> usize {
        self.shown.load(Ordering::Relaxed) as usize
    }

    /// # Safety
    /// The calling thread holds this cache's identity, and drops the reference before it calls another method.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the contract is that there is one user")]
    unsafe fn own(&self) -> &mut Own {
        // SAFETY: one user, by contract.
        unsafe { &mut *self.own.get() }
    }

    /// Fills `out`, refilling from `ring` where needed: all or nothing. Up to `size`, or by no more than is needed if less than
    /// `reserve` would be left: that is for others who receive.
    ///
    /// # Safety
    /// The calling thread holds this cache's identity.
    #[inline(always)]
    pub(super) unsafe fn take(
        &self,
        out: &mut [MaybeUninit<MetaPtr>],
        ring: &Mpmc<MetaPtr>,
        size: usize,
        reserve: usize,
    ) -> Result<(), NoMbufs> {
        // SAFETY: by contract.
        let own = unsafe { self.own() };
        if own.len < out.len() {
            own.refill(out.len(), ring, size, reserve)?;
        }
        let rest = own.len - out.len();
        copy(out, &own.slots[rest..own.len]);
        own.len = rest;
        self.show(rest);
        Ok(())
    }

    /// Takes mbufs back, at most [`MAX_BURST`]; if they become too many, the coldest go to `ring` until `size` are left.
    ///
    /// # Safety
    /// The calling thread holds this cache's identity; the mbufs are owned by nobody else.
    #[inline(always)]
    pub(super) unsafe fn put(&self, mbufs: &[MetaPtr], ring: &Mpmc<MetaPtr>, size: usize) {
        // SAFETY: by contract.
        let own = unsafe { self.own() };
        let len = own.len + mbufs.len();
        copy(&mut own.slots[own.len..len], as_slots(mbufs));
        own.len = len;
        if len > flush_threshold(size) {
            own.spill(size, ring);
        }
        self.show(own.len);
    }

    /// Has one mbuf more than a burst, if of the mbufs in `ring` so many are `spare`: up to `size` if they are plenty, or else
    /// one at a time, so that lcores that look at once take no more than one each beyond what is spare.
    ///
    /// # Safety
    /// As for `take`.
    pub(super) unsafe fn top_up(
        &self,
        spare: usize,
        ring: &Mpmc<MetaPtr>,
        size: usize,
    ) -> Result<(), NoMbufs> {
        // SAFETY: by contract.
        let own = unsafe { self.own() };
        let to = size.max(MAX_BURST + 1);
        if own.len <= MAX_BURST && spare >= 2 * to {
            own.fill(to, ring).ok_or(NoMbufs)?;
        } else if own.len <= MAX_BURST {
            (spare > 0).then(|| own.fill(own.len + 1, ring)).flatten().ok_or(NoMbufs)?;
        }
        self.show(own.len);
        Ok(())
    }

    /// Gives the oldest mbufs to `ring`, all but `keep`.
    ///
    /// # Safety
    /// As for `take`.
    pub(super) unsafe fn spill(&self, keep: usize, ring: &Mpmc<MetaPtr>) {
        // SAFETY: by contract.
        let own = unsafe { self.own() };
        own.spill(keep, ring);
        self.show(own.len);
    }

    #[inline(always)]
    fn show(&self, len: usize) {
        self.shown.store(len as u32, Ordering::Relaxed);
    }
}

impl Own {
    /// Gets `size` mbufs into the cache, or at least `need`. Only that if fewer than `reserve` would be left.
    #[cold]
    fn refill(
        &mut self,
        need: usize,
        ring: &Mpmc<MetaPtr>,
        size: usize,
        reserve: usize,
    ) -> Result<(), NoMbufs> {
        let whole = size.max(need);
        let plenty = reserve == 0 || ring.len() >= reserve + whole;
        let filled = if plenty { self.fill(whole, ring) } else { None };
        filled.or_else(|| self.fill(need, ring)).ok_or(NoMbufs)
    }

    /// Gets mbufs until there are `to`: all or none.
    fn fill(&mut self, to: usize, ring: &Mpmc<MetaPtr>) -> Option<()> {
        ring.dequeue_bulk(&mut self.slots[self.len..to])?;
        self.len = to;
        Some(())
    }

    /// Gives the oldest mbufs to `ring`, all but `keep`.
    #[cold]
    fn spill(&mut self, keep: usize, ring: &Mpmc<MetaPtr>) {
        let out = self.len.saturating_sub(keep);
        // SAFETY: slots[..len] are filled; the first `out` leave the cache here.
        give(ring, unsafe { self.slots[..out].assume_init_ref() });
        self.slots.copy_within(out..self.len, 0);
        self.len -= out;
    }
}

/// Mbufs as what may be some.
#[inline(always)]
fn as_slots(mbufs: &[MetaPtr]) -> &[MaybeUninit<MetaPtr>] {
    // SAFETY: of one layout, and behind a shared reference nobody makes them uninitialised.
    unsafe { core::slice::from_raw_parts(mbufs.as_ptr().cast(), mbufs.len()) }
}

/// Copies a slice onto one of the same length. A whole burst, which is what most bulks are, without a call: `memcpy` is one for
/// what is longer than 128 bytes.
#[inline(always)]
fn copy(to: &mut [MaybeUninit<MetaPtr>], from: &[MaybeUninit<MetaPtr>]) {
    const PIECE: usize = 8;
    if let (Ok(to), Ok(from)) = (<&mut [_; MAX_BURST]>::try_from(&mut *to), <&[_; MAX_BURST]>::try_from(from))
    {
        let (to, from) = (to.as_chunks_mut::<PIECE>().0, from.as_chunks::<PIECE>().0);
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        return;
    }
    to.copy_from_slice(from);
}

/// Puts mbufs into the pool's ring, which has room for all there are.
#[inline(always)]
pub(super) fn give(ring: &Mpmc<MetaPtr>, mbufs: &[MetaPtr]) {
    let done = ring.enqueue_bulk(mbufs);
    assert!(done.is_some(), "the ring holds all mbufs of its pool");
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use ring::Capacity;

    use super::*;

    fn mbufs(n: usize) -> Vec<MetaPtr> {
        (1..=n).map(|i| MetaPtr(NonNull::without_provenance((i * 64).try_into().unwrap()))).collect()
    }

    fn numbers(taken: &[MaybeUninit<MetaPtr>]) -> Vec<usize> {
        // SAFETY: the tests pass what `take` or `dequeue_bulk` has filled.
        taken.iter().map(|m| unsafe { m.assume_init() }.0.addr().get() / 64).collect()
    }

    /// A ring of `n` mbufs 1..=n, and an empty cache.
    fn full(n: usize) -> (Mpmc<MetaPtr>, Cache) {
        let ring = Mpmc::new(Capacity::Exact(n)).unwrap();
        give(&ring, &mbufs(n));
        (ring, Cache::new())
    }

    #[test]
    fn refills_to_its_size_or_to_what_is_needed() {
        let (ring, cache) = full(12);
        let mut out = [MaybeUninit::uninit(); 4];
        // SAFETY: one thread.
        unsafe {
            cache.take(&mut out, &ring, 8, 0).unwrap();
            assert_eq!((numbers(&out), cache.len(), ring.len()), (vec![5, 6, 7, 8], 4, 4));
            cache.take(&mut out[..3], &ring, 8, 0).unwrap();
            assert_eq!((cache.len(), ring.len()), (1, 4), "from stock");
            cache.take(&mut out, &ring, 8, 0).unwrap();
            assert_eq!((cache.len(), ring.len()), (0, 1), "the ring has not 7 more, but 3");
            assert_eq!(cache.take(&mut out[..2], &ring, 8, 0), Err(NoMbufs));
            assert_eq!((cache.len(), ring.len()), (0, 1), "nothing is lost by it");
            cache.take(&mut out[..1], &ring, 8, 0).unwrap();
        }
    }

    #[test]
    fn a_bulk_may_be_larger_than_the_cache() {
        let (ring, cache) = full(64);
        let mut out = [MaybeUninit::uninit(); MAX_BURST];
        // SAFETY: one thread.
        unsafe {
            cache.take(&mut out, &ring, 1, 0).unwrap();
            assert_eq!((cache.len(), ring.len()), (0, 32));
            cache.put(out.assume_init_ref(), &ring, 1);
            assert_eq!((cache.len(), ring.len()), (1, 63));
        }
    }

    #[test]
    fn the_coldest_leave_when_it_overflows() {
        let (ring, cache) = (Mpmc::new(Capacity::Exact(32)).unwrap(), Cache::new());
        let all = mbufs(13);
        // SAFETY: one thread.
        unsafe {
            all[..12].chunks(4).for_each(|some| cache.put(some, &ring, 8));
            assert_eq!((cache.len(), ring.len()), (12, 0), "half more than its size is borne");
            cache.put(&all[12..], &ring, 8);
            assert_eq!((cache.len(), ring.len()), (8, 5));
            let mut out = [MaybeUninit::uninit(); 5];
            ring.dequeue_bulk(&mut out).unwrap();
            assert_eq!(numbers(&out), [1, 2, 3, 4, 5]);
            cache.spill(0, &ring);
            assert_eq!((cache.len(), ring.len()), (0, 8));
        }
    }

    #[test]
    fn the_largest_cache_has_room_for_one_burst_more() {
        let all = mbufs(flush_threshold(MAX_CACHE) + MAX_BURST);
        let (ring, cache) = (Mpmc::new(Capacity::Exact(all.len())).unwrap(), Cache::new());
        // SAFETY: one thread.
        all.chunks(MAX_BURST).for_each(|some| unsafe { cache.put(some, &ring, MAX_CACHE) });
        assert_eq!((cache.len(), ring.len()), (MAX_CACHE, all.len() - MAX_CACHE));
    }
}

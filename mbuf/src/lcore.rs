//! Which lcore this thread is: the key to its own caches.

use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many threads can have an identity (and so a cache in each mempool) at a time.
pub const MAX_LCORES: usize = 64;

const NONE: usize = usize::MAX;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(NONE) };
}

/// A bit for each identity in use.
static IN_USE: AtomicU64 = AtomicU64::new(0);

/// A thread's identity as an lcore, from [`claim`](Self::claim) to drop. Threads without one may use mempools too; they go
/// to the shared ring for each bulk.
#[derive(Debug)]
pub struct LcoreId {
    id: usize,
    _not_send: PhantomData<*const ()>,
}

impl LcoreId {
    /// Gives the calling thread an identity of its own; `None` if it has one or all [`MAX_LCORES`] are taken.
    #[must_use]
    pub fn claim() -> Option<Self> {
        if CURRENT.get() != NONE {
            return None;
        }
        // ORDERING: L1 Acquire, pairs with L2 in `drop`: the last owner's writes to its caches are seen.
        let old = IN_USE
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |m| (m != u64::MAX).then(|| m | (m + 1)))
            .ok()?;
        let id = old.trailing_ones() as usize;
        CURRENT.set(id);
        Some(Self { id, _not_send: PhantomData })
    }

    /// 0 to [`MAX_LCORES`] - 1.
    #[must_use]
    pub fn get(&self) -> usize {
        self.id
    }
}

impl Drop for LcoreId {
    fn drop(&mut self) {
        CURRENT.set(NONE);
        // ORDERING: L2 Release, pairs with L1.
        IN_USE.fetch_and(!(1 << self.id), Ordering::Release);
    }
}

/// The calling thread's identity; a number beyond any if it has none.
#[inline(always)]
pub(crate) fn current() -> usize {
    CURRENT.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_unique_and_come_back() {
        let mine = LcoreId::claim().unwrap();
        assert!(LcoreId::claim().is_none(), "one a thread");
        assert_eq!(current(), mine.get());
        let other = std::thread::spawn(|| LcoreId::claim().map(|l| l.get())).join().unwrap().unwrap();
        assert_ne!(mine.get(), other);
        drop(mine);
        assert_eq!(current(), NONE);
        assert!(LcoreId::claim().is_some());
    }
}

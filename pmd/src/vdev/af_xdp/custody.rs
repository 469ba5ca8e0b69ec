//! The mbufs that the kernel has in its hands, each in the place of its number.

use mbuf::Mbuf;

use crate::vdev::af_xdp::umem::Umem;

/// What one half has lent to the kernel. The kernel names a buffer by its address; here it is found again. An address that
/// nobody lent finds nothing.
#[derive(Debug)]
pub(crate) struct Custody {
    umem: Umem,
    places: Box<[Option<Mbuf<'static>>]>,
    held: usize,
}

impl Custody {
    /// Room for all mbufs of the pool, and none of them yet.
    pub(crate) fn new(umem: Umem) -> Self {
        Self { umem, places: (0..umem.pool().total()).map(|_| None).collect(), held: 0 }
    }

    /// All that is lent, in a custody of its own; here none is left, nor room for any.
    pub(crate) fn hand_over(&mut self) -> Self {
        let places = core::mem::take(&mut self.places);
        Self { umem: self.umem, places, held: core::mem::take(&mut self.held) }
    }

    /// Its memory, as the kernel sees it.
    #[inline]
    pub(crate) fn umem(&self) -> &Umem {
        &self.umem
    }

    /// How many are lent.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Lends one; gives it back if it is not of this memory, or if another handle on the same packet is lent already.
    #[inline]
    pub(crate) fn lend(&mut self, mbuf: Mbuf<'static>) -> Result<(), Mbuf<'static>> {
        let number = self.umem.number_of(self.umem.chunk_of(&mbuf) as u64);
        match number.and_then(|n| self.places.get_mut(n)) {
            Some(place @ None) if self.umem.fits(&mbuf) => {
                *place = Some(mbuf);
                self.held += 1;
                Ok(())
            }
            _ => Err(mbuf),
        }
    }

    /// Whether the kernel has this very packet already, by another handle.
    #[inline]
    pub(crate) fn has(&self, mbuf: &Mbuf<'_>) -> bool {
        let number = self.umem.number_of(self.umem.chunk_of(mbuf) as u64);
        number.and_then(|n| self.places.get(n)).is_some_and(Option::is_some)
    }

    /// Takes back the one that an address of the kernel's lies in.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64) -> Option<Mbuf<'static>> {
        let mbuf = self.umem.number_of(address).and_then(|n| self.places.get_mut(n))?.take()?;
        self.held -= 1;
        Some(mbuf)
    }
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig};

    use super::*;

    fn pool() -> &'static Mempool {
        Mempool::new(&MempoolConfig { mbufs: 8, cache: 0, ..MempoolConfig::default() }).unwrap()
    }

    #[test]
    fn each_comes_back_once_by_any_address_within() {
        let pool = pool();
        let mut custody = Custody::new(Umem::of(pool).unwrap());
        let mbufs: Vec<_> = (0..8).map(|_| pool.alloc(3).unwrap()).collect();
        let chunks: Vec<_> = mbufs.iter().map(|m| custody.umem().chunk_of(m) as u64).collect();
        mbufs.into_iter().for_each(|m| custody.lend(m).unwrap());
        assert_eq!((custody.held(), pool.balance().out), (8, 8));
        for (i, chunk) in chunks.iter().enumerate() {
            let mbuf = custody.take_back(chunk + 300 * i as u64).unwrap();
            assert_eq!(custody.umem().chunk_of(&mbuf) as u64, *chunk);
            assert!(custody.take_back(*chunk).is_none(), "it is back already");
        }
        for stray in [0, chunks[0] - 1, pool.zone().len() as u64, u64::MAX] {
            assert!(custody.take_back(stray).is_none(), "{stray:#x}");
        }
        assert_eq!((custody.held(), pool.balance().out), (0, 0));
    }

    #[test]
    fn two_handles_on_one_packet_are_not_lent_at_once() {
        let (pool, other) = (pool(), pool());
        let mut custody = Custody::new(Umem::of(pool).unwrap());
        let mbuf = pool.alloc(0).unwrap();
        assert!(!custody.has(&mbuf));
        custody.lend(mbuf.share()).unwrap();
        assert!(custody.has(&mbuf));
        assert!(custody.lend(mbuf).is_err());
        assert!(custody.lend(other.alloc(0).unwrap()).is_err(), "memory that the kernel does not know");
        let all = custody.hand_over();
        assert_eq!((custody.held(), all.held(), pool.balance().out), (0, 1, 1));
        drop(all);
        assert_eq!((pool.balance().out, other.balance().out), (0, 0));
    }
}

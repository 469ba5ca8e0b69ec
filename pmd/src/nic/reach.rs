//! Which packets a device can reach: those whose bytes lie in the pool that was mapped for it.

use core::ptr::NonNull;

use mbuf::{Iova, Mbuf, Mempool, NoMbufs};

use crate::QueueEnv;
use crate::bus::{BusError, DmaMapping, PciDevice};

/// A pool's memory, mapped for a device. A ring keeps it as long as the device may read or write the ring's mbufs.
#[derive(Debug)]
pub struct Reach {
    mapping: DmaMapping,
    /// The zone's first address, and its bytes.
    start: usize,
    len: usize,
    pool: &'static Mempool,
    owner: u16,
}

impl Reach {
    /// Maps the pool of a port's queues.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn new<D: PciDevice>(device: &D, env: QueueEnv) -> Result<Self, BusError> {
        let zone = env.pool.zone();
        let mapping = device.map(zone)?;
        let start = zone.base().addr().get();
        Ok(Self { mapping, start, len: zone.len(), pool: env.pool, owner: env.port })
    }

    /// What is added (wrapping) to a virtual address to make it the device's.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.mapping.offset()
    }

    /// The device's address of `bytes`, if all of them lie in the pool.
    #[inline(always)]
    #[must_use]
    pub fn iova(&self, bytes: &[u8]) -> Option<Iova> {
        let at = bytes.as_ptr().addr().wrapping_sub(self.start);
        let inside = at < self.len && bytes.len() <= self.len - at;
        inside.then(|| Iova((bytes.as_ptr().addr() as u64).wrapping_add(self.mapping.offset())))
    }

    /// The device's address of a byte of the pool's.
    #[inline(always)]
    #[must_use]
    pub fn iova_at(&self, at: NonNull<u8>) -> Iova {
        debug_assert!(at.addr().get().wrapping_sub(self.start) < self.len, "an mbuf of another pool");
        self.mapping.iova(at)
    }

    /// Whether the device reaches all of a packet as it is.
    #[inline(always)]
    #[must_use]
    pub fn reaches(&self, mbuf: &Mbuf<'_>) -> bool {
        !mbuf.has_tail() && mbuf.segments().all(|segment| self.iova(segment).is_some())
    }

    /// A packet of the same bytes that the device reaches and that may go anywhere: itself, or a copy in the pool if it has
    /// a tail or lies in another pool.
    ///
    /// # Errors
    /// [`NoMbufs`]; the packet is dropped then.
    #[inline]
    pub fn bring(&self, mbuf: Mbuf<'_>) -> Result<Mbuf<'static>, NoMbufs> {
        if self.reaches(&mbuf) { mbuf.own() } else { self.copy(&mbuf) }
    }

    #[cold]
    fn copy(&self, mbuf: &Mbuf<'_>) -> Result<Mbuf<'static>, NoMbufs> {
        let mut copy = self.part(mbuf, 0)?;
        let mut at = copy.len();
        while at < mbuf.len() {
            let more = self.part(mbuf, at)?;
            at += more.len();
            copy.chain(more).map_err(|_| NoMbufs)?;
        }
        copy.set_offload(*mbuf.offload());
        copy.set_port(mbuf.port());
        Ok(copy)
    }

    /// A fresh mbuf, filled from byte `at` on.
    fn part(&self, mbuf: &Mbuf<'_>, at: usize) -> Result<Mbuf<'static>, NoMbufs> {
        let mut part = self.pool.alloc_spare(self.owner)?;
        let want = (mbuf.len() - at).min(part.tailroom());
        let room = part.append(want).ok_or(NoMbufs)?;
        mbuf.copy_to(at, room);
        Ok(part)
    }
}

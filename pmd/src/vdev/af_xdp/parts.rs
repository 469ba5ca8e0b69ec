//! A packet as the transmit ring takes it: each part in an mbuf of its own, of the memory that the kernel knows.

use mbuf::{Burst, Mbuf};

use crate::DropReason;
use crate::vdev::af_xdp::umem::Umem;

/// Descriptors of one frame at most: in copy mode the kernel takes as many as an skb has fragments (MAX_SKB_FRAGS, 17
/// unless configured for more), and drops what has more with its buffers.
pub(crate) const MAX_PARTS: usize = 17;

/// Takes packets apart, and copies what lies elsewhere.
#[derive(Debug)]
pub(crate) struct Parts {
    umem: Umem,
    /// The port that copies are tagged with.
    port: u16,
    at_most: usize,
}

impl Parts {
    /// `several`: a frame may lie in more than one buffer.
    pub(crate) fn new(umem: Umem, port: u16, several: bool) -> Self {
        Self { umem, port, at_most: if several { MAX_PARTS } else { 1 } }
    }

    /// Parts of one packet at most.
    #[inline]
    pub(crate) fn at_most(&self) -> usize {
        self.at_most
    }

    /// Whether a packet is one part as it is.
    #[inline]
    pub(crate) fn is_one(&self, mbuf: &Mbuf<'_>) -> bool {
        !mbuf.has_tail() && mbuf.segment_count() == 1 && self.is_part(mbuf)
    }

    fn is_part(&self, mbuf: &Mbuf<'_>) -> bool {
        self.umem.fits(mbuf) && mbuf.len() <= self.umem.chunk()
    }

    /// The parts of any other packet: its segments, if it is nobody else's, or copies.
    pub(crate) fn of(&self, mbuf: Mbuf<'_>) -> Result<Burst<'static>, DropReason> {
        let mut parts = Burst::new();
        if mbuf.has_tail() || !mbuf.is_unique() || mbuf.segment_count() > self.at_most {
            self.copy(&mbuf, &mut parts)?;
            return Ok(parts);
        }
        let mut rest = mbuf.own().ok();
        while let Some(chain) = rest {
            let (part, more) = chain.unchain();
            if self.is_part(&part) && part.len() > 0 {
                self.push(part, &mut parts)?;
            } else {
                self.copy(&part, &mut parts)?;
            }
            rest = more;
        }
        if parts.is_empty() { Err(DropReason::TxError) } else { Ok(parts) }
    }

    fn push(&self, part: Mbuf<'static>, parts: &mut Burst<'static>) -> Result<(), DropReason> {
        if parts.len() == self.at_most {
            return Err(DropReason::TxTooLong);
        }
        parts.push(part).map_err(|_| DropReason::TxTooLong)
    }

    /// Appends copies of all bytes, in as many fresh mbufs as it takes.
    fn copy(&self, mbuf: &Mbuf<'_>, parts: &mut Burst<'static>) -> Result<(), DropReason> {
        let mut at = 0;
        while at < mbuf.len() {
            let mut part = self.umem.pool().alloc_spare(self.port).map_err(|_| DropReason::NoMbufs)?;
            let n = (mbuf.len() - at).min(part.tailroom()).min(self.umem.chunk());
            mbuf.copy_to(at, part.append(n).ok_or(DropReason::NoMbufs)?);
            at += n;
            if !self.is_part(&part) {
                return Err(DropReason::NoMbufs);
            }
            self.push(part, parts)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig};

    use super::*;

    fn pool(mbufs: usize, data_room: usize) -> &'static Mempool {
        let config = MempoolConfig { mbufs, data_room, cache: 0, ..MempoolConfig::default() };
        Mempool::new(&config).unwrap()
    }

    /// A chain of segments of these lengths, its bytes counting up.
    fn chain(pool: &'static Mempool, lens: &[usize]) -> Mbuf<'static> {
        let mut next = 0;
        let mut segment = |len: &usize| {
            let mut mbuf = pool.alloc(0).unwrap();
            mbuf.append(*len).unwrap().fill_with(|| {
                next += 1;
                (next % 251) as u8
            });
            mbuf
        };
        let mut head = segment(&lens[0]);
        lens[1..].iter().for_each(|len| head.chain(segment(len)).unwrap());
        head
    }

    fn bytes<'a>(packets: impl IntoIterator<Item = &'a Mbuf<'static>>) -> Vec<u8> {
        packets.into_iter().flat_map(|m| m.segments()).flatten().copied().collect()
    }

    #[test]
    fn a_chain_of_ours_goes_out_as_it_lies() {
        let pool = pool(8, 2048);
        let parts = Parts::new(Umem::of(pool).unwrap(), 1, true);
        let packet = chain(pool, &[100, 2000, 7]);
        assert!(!parts.is_one(&packet) && parts.is_one(&chain(pool, &[60])));
        let (before, first) = (bytes([&packet]), packet.data_start());
        let out = parts.of(packet).unwrap();
        assert_eq!(out.iter().map(Mbuf::len).collect::<Vec<_>>(), [100, 2000, 7]);
        assert_eq!((bytes(out.iter()), out[0].data_start()), (before, first), "not copied");
        drop(out);
        assert_eq!(pool.balance().out, 0);
    }

    #[test]
    fn what_is_shared_or_not_ours_is_copied() {
        let (ours, theirs) = (pool(16, 2048), pool(16, 9000));
        let parts = Parts::new(Umem::of(ours).unwrap(), 1, true);
        let large = chain(theirs, &[9000, 100]);
        let before = bytes([&large]);
        let out = parts.of(large).unwrap();
        assert_eq!(bytes(out.iter()), before);
        assert!(out.iter().all(|m| parts.is_one(m)) && out.len() == 6);
        assert_eq!(theirs.balance().out, 0);
        let shared = chain(ours, &[1000]);
        let out2 = parts.of(shared.share()).unwrap();
        assert_eq!((bytes(out2.iter()), out2.len()), (bytes([&shared]), 1));
        assert_ne!(out2[0].data_start(), shared.data_start());
        drop((out, out2, shared));
        assert_eq!(ours.balance().out, 0);
    }

    #[test]
    fn more_parts_than_the_kernel_takes_become_fewer_or_none() {
        let pool = pool(64, 2048);
        let umem = Umem::of(pool).unwrap();
        let small = chain(pool, &[100; 20]);
        let before = bytes([&small]);
        let out = Parts::new(umem, 1, true).of(small).unwrap();
        assert_eq!((out.len(), bytes(out.iter())), (1, before));
        let large = chain(pool, &[2000; 19]);
        assert_eq!(Parts::new(umem, 1, true).of(large).err(), Some(DropReason::TxTooLong));
        let one = Parts::new(umem, 1, false);
        assert_eq!(one.of(chain(pool, &[1000, 900])).unwrap().len(), 1);
        assert_eq!(one.of(chain(pool, &[1500, 900])).err(), Some(DropReason::TxTooLong));
        drop(out);
        assert_eq!(pool.balance().out, 0);
    }
}

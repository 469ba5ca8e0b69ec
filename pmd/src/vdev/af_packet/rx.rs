//! The receive half.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mbuf::{Burst, MAX_BURST, Mbuf};
use rustix::io::Errno;

use crate::offload::{VirtioNetHdr, from_virtio_net, moved};
use crate::vdev::af_packet::ALLOWED;
use crate::vdev::af_packet::mmsg::{Landed, Slot, receive};
use crate::vdev::burst::{Counters, count};
use crate::vdev::frame::{MAX_FRAME, MIN_FRAME, extend};
use crate::vdev::life::Life;
use crate::wake::is_readable;
use crate::{DropReason, QueueEnv, RxQueue};

pub(crate) struct AfPacketRx {
    life: Life,
    fd: Arc<OwnedFd>,
    counters: Counters,
    env: QueueEnv,
    /// Empty mbufs, each filled with whatever stands in it: the next frames' first bytes go there.
    fresh: Burst<'static>,
    headers: [[u8; VirtioNetHdr::LEN]; MAX_BURST],
    /// For each slot, room for what does not fit into its mbuf. Large frames alone reach it; the rest is never touched,
    /// so never backed by memory.
    rest: Box<[u8]>,
}

impl AfPacketRx {
    pub(crate) fn new(life: Life, fd: Arc<OwnedFd>, counters: Counters, env: QueueEnv) -> Self {
        let rest = vec![0; MAX_FRAME * MAX_BURST].into_boxed_slice();
        Self { life, fd, counters, env, fresh: Burst::new(), headers: [[0; _]; MAX_BURST], rest }
    }

    /// Tops the empty mbufs up to `want`, if the pool has so many.
    fn refill(&mut self, want: usize) {
        let have = self.fresh.len();
        if have < want && self.env.pool.alloc_bulk(&mut self.fresh, want - have, self.env.port).is_ok() {
            for mbuf in &mut self.fresh[have..] {
                mbuf.set_filled(0, mbuf.tailroom());
            }
        }
    }

    /// Receives up to `want` frames.
    fn receive(&mut self, want: usize, landed: &mut [Landed; MAX_BURST]) -> Result<usize, Errno> {
        // The last mbuf first: `pop` then gives them in the frames' order.
        let firsts = self.fresh.iter_mut().rev().filter_map(Mbuf::data_mut);
        let rests = self.rest.chunks_exact_mut(MAX_FRAME);
        let slots = firsts.zip(&mut self.headers).zip(rests).take(want);
        receive(self.fd.as_fd(), slots.map(|((first, header), rest)| Slot { header, first, rest }), landed)
    }

    /// Counts a frame that the kernel lost for us.
    #[cold]
    fn lost_one(&self) -> usize {
        self.counters.drop_packets(DropReason::RxError, 1);
        count(&self.counters, 1, 0);
        0
    }

    /// The frame that landed in slot `i`, as a packet.
    fn accept(&mut self, i: usize, landed: Landed) -> Result<Mbuf<'static>, DropReason> {
        let mut mbuf = self.fresh.pop().ok_or(DropReason::NoMbufs)?;
        let Landed { len, truncated, tag } = landed;
        if len < MIN_FRAME {
            return Err(DropReason::RxTooShort);
        }
        if truncated || len > MAX_FRAME {
            return Err(DropReason::RxTooLong);
        }
        let first = len.min(mbuf.len());
        mbuf.set_filled(0, first);
        let rest = &self.rest[i * MAX_FRAME..][..len - first];
        extend(&mut mbuf, rest, self.env.port).map_err(|_| DropReason::NoMbufs)?;
        mbuf.set_port(self.env.port);
        let header = VirtioNetHdr::from_ne_bytes(&self.headers[i]);
        let offload = from_virtio_net(&header, mbuf.data(), len, ALLOWED)?;
        mbuf.set_offload(offload);
        if let Some(tag) = tag {
            put_back(&mut mbuf, tag)?;
        }
        Ok(mbuf)
    }
}

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// Puts a VLAN tag where the kernel took it out: behind the addresses.
fn put_back(mbuf: &mut Mbuf<'static>, (tpid, tci): (u16, u16)) -> Result<(), DropReason> {
    let offload = moved(mbuf.offload(), TAG as i16).ok_or(DropReason::RxBadOffload)?;
    mbuf.prepend(TAG).ok_or(DropReason::RxError)?;
    let head = mbuf.data_mut().and_then(|d| d.first_chunk_mut::<16>()).ok_or(DropReason::RxError)?;
    head.copy_within(TAG.., 0);
    head[12..14].copy_from_slice(&tpid.to_be_bytes());
    head[14..16].copy_from_slice(&tci.to_be_bytes());
    mbuf.set_offload(offload);
    Ok(())
}

impl RxQueue for AfPacketRx {
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        if !self.life.is_alive() {
            return 0;
        }
        let want = burst.room();
        self.refill(want);
        let mut landed = [Landed::default(); MAX_BURST];
        let n = match self.receive(want, &mut landed) {
            Ok(n) => n,
            // The kernel has no virtio-net header for what the frame asks for, and has dropped it.
            Err(Errno::INVAL) => return self.lost_one(),
            // No frame there, or the interface is down: the next poll asks again.
            Err(_) => return 0,
        };
        let (before, mut bytes) = (burst.len(), 0);
        for (i, landed) in landed[..n].iter().enumerate() {
            bytes += landed.len as u64 + if landed.tag.is_some() { TAG as u64 } else { 0 };
            match self.accept(i, *landed) {
                Ok(mbuf) => {
                    let pushed = burst.push(mbuf);
                    debug_assert!(pushed.is_ok(), "no more than there was room for");
                }
                Err(reason) => self.counters.drop_packets(reason, 1),
            }
        }
        count(&self.counters, n as u64, bytes);
        burst.len() - before
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn arm(&mut self) -> bool {
        !is_readable(self.fd.as_fd())
    }
}

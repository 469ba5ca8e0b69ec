//! The transmit half.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mbuf::{Burst, MAX_BURST, Mbuf};
use rustix::io::Errno;

use crate::offload::{Adapted, Segmenter, VirtioNetHdr, adapt, to_virtio_net};
use crate::vdev::af_packet::ACCEPTED;
use crate::vdev::af_packet::mmsg::send;
use crate::vdev::burst::{Counters, count, drop_all};
use crate::vdev::life::Life;
use crate::{DropReason, TxQueue};

pub(crate) struct AfPacketTx {
    life: Life,
    fd: Arc<OwnedFd>,
    counters: Counters,
}

impl AfPacketTx {
    pub(crate) fn new(life: Life, fd: Arc<OwnedFd>, counters: Counters) -> Self {
        Self { life, fd, counters }
    }

    /// Sends all of `ready` that the kernel has room for; drops and counts what it refuses; the rest stays.
    fn send_all(&self, ready: &mut Burst<'static>) {
        let (mut packets, mut bytes, mut told_down) = (0, 0, false);
        while !ready.is_empty() {
            match send(self.fd.as_fd(), ready, &headers(ready)) {
                Ok(n) => {
                    packets += n as u64;
                    bytes += ready[..n].iter().map(|m| m.len() as u64).sum::<u64>();
                    ready.drop_front(n);
                }
                Err(e) => match reason(e) {
                    DropReason::TxFull => break,
                    // A socket tells once that its interface was down, even when it is up again.
                    DropReason::TxNotReady if !told_down => told_down = true,
                    DropReason::TxNotReady => {
                        drop_all(ready, &self.counters, DropReason::TxNotReady);
                    }
                    reason => {
                        self.counters.drop_packets(reason, 1);
                        ready.drop_front(1);
                    }
                },
            }
        }
        count(&self.counters, packets, bytes);
    }

    /// Sends what one packet is cut into. It counts as one, sent or dropped.
    fn send_segments(&self, mut segments: Segmenter<'_>) -> Result<(), DropReason> {
        while segments.remaining() > 0 {
            let mut batch = Burst::new();
            segments.fill(&mut batch).map_err(|_| DropReason::NoMbufs)?;
            while !batch.is_empty() {
                let n = send(self.fd.as_fd(), &batch, &headers(&batch)).map_err(reason)?;
                batch.drop_front(n);
            }
        }
        count(&self.counters, 1, segments.packet().len() as u64);
        Ok(())
    }
}

fn headers(packets: &[Mbuf<'_>]) -> [[u8; VirtioNetHdr::LEN]; MAX_BURST] {
    let mut headers = [[0; VirtioNetHdr::LEN]; MAX_BURST];
    for (header, packet) in headers.iter_mut().zip(packets) {
        *header = to_virtio_net(packet.offload(), ACCEPTED).to_ne_bytes();
    }
    headers
}

/// Why the kernel did not take a packet (packet(7), `packet_snd`).
fn reason(e: Errno) -> DropReason {
    match e {
        Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => DropReason::TxFull,
        Errno::NETDOWN | Errno::NXIO | Errno::NODEV => DropReason::TxNotReady,
        Errno::MSGSIZE | Errno::TOOBIG => DropReason::TxTooLong,
        _ => DropReason::TxError,
    }
}

impl TxQueue for AfPacketTx {
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        if !self.life.is_alive() {
            return drop_all(burst, &self.counters, DropReason::TxNotReady);
        }
        let before = burst.len();
        let mut ready = Burst::new();
        for mbuf in burst.drain() {
            let done = match adapt(mbuf, ACCEPTED) {
                Ok(Adapted::One(mbuf)) => mbuf.own().map_err(|_| DropReason::NoMbufs).map(|owned| {
                    let pushed = ready.push(owned);
                    debug_assert!(pushed.is_ok(), "no more than there were");
                }),
                Ok(Adapted::Many(segments)) => {
                    self.send_all(&mut ready);
                    if ready.is_empty() { self.send_segments(segments) } else { Err(DropReason::TxFull) }
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = done {
                self.counters.drop_packets(reason, 1);
            }
        }
        self.send_all(&mut ready);
        let taken = before - ready.len();
        *burst = ready;
        taken
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        drop_all(burst, &self.counters, reason);
    }

    fn keeps(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        self.life.is_alive()
    }
}

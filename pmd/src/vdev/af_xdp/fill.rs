//! The buffers that the kernel is given to receive into.

use std::sync::Arc;

use mbuf::{Burst, HEADROOM, MAX_BURST, Mbuf};

use crate::QueueEnv;
use crate::vdev::af_xdp::custody::Custody;
use crate::vdev::af_xdp::queue::QueueEnd;
use crate::vdev::af_xdp::ring::Producer;
use crate::vdev::af_xdp::umem::Umem;

/// Buffers go out so many at a time.
const BULK: usize = MAX_BURST;

/// A fill ring and what was lent by it. The ring comes first, so that it is unmapped before the queue's end, which comes
/// last, closes the socket.
#[derive(Debug)]
pub(crate) struct Fill {
    ring: Producer<u64>,
    pub(crate) custody: Custody,
    pub(crate) env: QueueEnv,
    /// Buffers that the kernel is to have.
    wanted: usize,
    /// Mbufs that the device cannot use; kept, so that the pool does not give them again.
    unusable: Vec<Mbuf<'static>>,
    /// None until the socket is bound: before, the kernel does nothing with what it was lent.
    end: Option<Arc<QueueEnd>>,
}

impl Fill {
    /// Posts `wanted` buffers, as far as the pool has them.
    ///
    /// To be called before the socket is bound: a driver looks for buffers then, and some (igb, with vectors apart for
    /// receiving and sending) wake up for no others until a frame has come, which cannot come.
    pub(crate) fn new(ring: Producer<u64>, umem: Umem, env: QueueEnv, wanted: usize) -> Self {
        let (custody, unusable) = (Custody::new(umem), Vec::with_capacity(wanted));
        let mut fill = Self { ring, custody, env, wanted, unusable, end: None };
        fill.refill();
        fill
    }

    /// The socket is bound: what is lent from here on outlives it.
    pub(crate) fn belong_to(&mut self, end: &Arc<QueueEnd>) {
        self.end = Some(Arc::clone(end));
    }

    /// Gives the kernel buffers for those that it has filled.
    #[inline]
    pub(crate) fn refill(&mut self) {
        if self.custody.held() + BULK > self.wanted {
            return;
        }
        let mut fresh = Burst::new();
        while self.custody.held() + BULK <= self.wanted && self.ring.room(BULK as u32) >= BULK as u32 {
            if self.env.pool.alloc_bulk(&mut fresh, BULK, self.env.port).is_err() {
                break;
            }
            for mbuf in fresh.drain() {
                let chunk = self.custody.umem().chunk_of(&mbuf);
                match self.custody.lend(mbuf) {
                    Ok(()) => self.ring.put(chunk as u64),
                    Err(mbuf) => put_aside(&mut self.unusable, mbuf),
                }
            }
        }
        self.ring.publish();
        // The driver ran out of buffers and says that it has stopped looking for some.
        if self.ring.needs_wakeup()
            && let Some(end) = &self.end
        {
            end.wake_rx();
        }
    }
}

/// Keeps an mbuf that lies where the device cannot write (one of some 900 on hugepages, none in copy mode).
#[cold]
fn put_aside(unusable: &mut Vec<Mbuf<'static>>, mbuf: Mbuf<'static>) {
    debug_assert!(mbuf.headroom() == HEADROOM, "fresh");
    if unusable.len() < unusable.capacity() {
        unusable.push(mbuf);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end.inherit(self.custody.hand_over());
        }
    }
}

//! A started ring: its format, what was negotiated, the guest's memory, and whom to tell.

use std::collections::TryReserveError;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::vring::enqueue::Short;
use crate::vring::format::{Buffer, Format, Long, Used};
use crate::vring::packed::Packed;
use crate::vring::split::Split;
use crate::vring::view::View;
use crate::vring::{Fault, RingNotifier, VringSetup};
use crate::wire::net;

/// A ring that runs.
#[derive(Debug)]
pub(crate) struct Vring {
    pub(super) ring: Ring,
    pub(super) terms: Terms,
    pub(super) view: View,
    /// TX: a chain at the front that is too long to be dealt with, and how far it was walked.
    pub(super) long: Option<Long>,
    /// RX: buffers at the front that hold too little.
    pub(super) short: Option<Short>,
    call: Option<Arc<OwnedFd>>,
    notifier: Arc<RingNotifier>,
}

/// The ring itself, of one format or the other: told apart once a burst.
#[derive(Debug)]
pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

/// What was negotiated, as far as the data plane asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) features: u64,
    /// Bytes of the virtio-net header.
    pub(super) hdr_len: u8,
    pub(super) mergeable: bool,
    pub(super) indirect: bool,
}

impl Terms {
    fn new(features: u64) -> Self {
        Self {
            features,
            hdr_len: net::hdr_len(features) as u8,
            mergeable: features & net::F_MRG_RXBUF != 0,
            indirect: features & net::F_INDIRECT_DESC != 0,
        }
    }

    #[inline(always)]
    pub(super) fn hdr_len(&self) -> usize {
        usize::from(self.hdr_len)
    }
}

impl Vring {
    /// A ring that runs by this set-up, or an error if there is no memory for its bookkeeping.
    pub(crate) fn new(setup: VringSetup, notifier: Arc<RingNotifier>) -> Result<Self, TryReserveError> {
        let ring = if setup.is_packed() {
            Ring::Packed(Packed::new(&setup)?)
        } else {
            Ring::Split(Split::new(&setup))
        };
        Ok(Self {
            ring,
            terms: Terms::new(setup.features),
            view: View::new(setup.memory),
            long: None,
            short: None,
            call: setup.call,
            notifier,
        })
    }

    /// Where the ring stands (GET_VRING_BASE), if nothing is in hand.
    pub(crate) fn base(&self) -> u32 {
        match &self.ring {
            Ring::Split(ring) => ring.base(),
            Ring::Packed(ring) => ring.base(),
        }
    }

    pub(crate) fn set_call(&mut self, call: Option<Arc<OwnedFd>>) {
        self.call = call;
        match &mut self.ring {
            Ring::Split(ring) => ring.forget_calls(),
            Ring::Packed(ring) => ring.forget_calls(),
        }
    }

    /// Whether guest memory was taken away under us.
    #[inline(always)]
    pub(crate) fn memory_is_gone(&self) -> bool {
        self.view.is_gone()
    }

    /// Gives buffers back into which nothing was written: all that are in hand, in order. A driver that polls may see the last
    /// few of them late.
    #[inline]
    pub(super) fn give_back(&mut self, buffers: &[Buffer]) -> Result<(), Fault> {
        match &mut self.ring {
            Ring::Split(ring) => give_back(ring, buffers),
            Ring::Packed(ring) => give_back(ring, buffers),
        }
    }

    /// Whether the guest does not see yet all that was given back.
    #[inline(always)]
    pub(super) fn is_late(&self) -> bool {
        match &self.ring {
            Ring::Split(ring) => ring.is_late(),
            Ring::Packed(ring) => ring.is_late(),
        }
    }

    /// Has the guest see all that was given back, and calls it if it asked for that meanwhile. True if it was called.
    #[cold]
    pub(super) fn show(&mut self) -> bool {
        match &mut self.ring {
            Ring::Split(ring) => ring.show(),
            Ring::Packed(ring) => ring.show(),
        }
        self.notify()
    }

    /// Calls the guest if it asked for it. True if it was called.
    #[inline]
    pub(crate) fn notify(&mut self) -> bool {
        let wanted = match &mut self.ring {
            Ring::Split(ring) => ring.wants_call(),
            Ring::Packed(ring) => ring.wants_call(),
        };
        wanted && self.call()
    }

    /// Asks the guest to kick at the next buffer. False if there is one already.
    pub(super) fn arm(&self) -> bool {
        match &self.ring {
            Ring::Split(ring) => ring.arm(),
            Ring::Packed(ring) => ring.arm(),
        }
    }

    /// Tells the guest that it need not kick.
    pub(super) fn disarm(&self) {
        match &self.ring {
            Ring::Split(ring) => ring.disarm(),
            Ring::Packed(ring) => ring.disarm(),
        }
    }

    #[cold]
    fn call(&self) -> bool {
        let Some(call) = &self.call else { return false };
        self.notifier.call(call.as_fd());
        true
    }
}

#[inline(always)]
fn give_back<F: Used>(ring: &mut F, buffers: &[Buffer]) -> Result<(), Fault> {
    for (i, &buffer) in buffers.iter().enumerate() {
        ring.stage(i, buffer, 0);
    }
    ring.publish_late(buffers.len())
}

//! One vring as both halves of the program see it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::gate::Gate;
use crate::memory::{GuestMemory, Window};
use crate::vring::Fault;

/// Everything a ring needs to run: a frozen snapshot, checked by the control plane. Changing any of it means stop, new
/// setup, start (I7).
#[derive(Debug)]
pub(crate) struct VringSetup {
    /// Descriptors: a power of two, 1 to 32,768.
    pub(crate) size: u16,
    /// The table: `desc_bytes(size)`, aligned to 16.
    pub(crate) desc: Window,
    /// The available ring: `avail_bytes(size)`, aligned to 2.
    pub(crate) avail: Window,
    /// The used ring: `used_bytes(size)`, aligned to 4.
    pub(crate) used: Window,
    /// The next available index to look at (SET_VRING_BASE).
    pub(crate) base: u16,
    /// Negotiated features.
    pub(crate) features: u64,
    /// The memory that the windows point into.
    pub(crate) memory: Arc<GuestMemory>,
    /// Whom to tell of used buffers; checked to be an eventfd, non-blocking.
    pub(crate) call: Option<OwnedFd>,
    /// Whom to tell that the ring broke.
    pub(crate) err: Option<OwnedFd>,
    /// Whether the front end enabled the ring.
    pub(crate) enabled: bool,
}

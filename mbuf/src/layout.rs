//! What stands at the head of each mbuf in memory. Layout alone.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU16;

use crate::{Mempool, Offload, TailSegment};

/// Bytes that stand free in front of the data of a fresh mbuf, for headers that are put in front on the way.
pub const HEADROOM: usize = 128;

/// The owner tag of an mbuf that lies in its pool.
pub(crate) const FREE: u16 = u16::MAX;

/// An mbuf's first cache line; headroom and data follow it. Only the holder of the packet touches it, but for `refcnt`.
#[repr(C, align(64))]
pub(crate) struct Meta {
    /// The pool it goes back to.
    pub(crate) pool: &'static Mempool,
    /// The next segment of a chained packet; owned by this one.
    pub(crate) next: Option<NonNull<Meta>>,
    /// Foreign memory that ends the packet, or dangling if `tail_count` is 0.
    pub(crate) tail: *const TailSegment,
    /// Bytes of this segment.
    pub(crate) data_len: u32,
    /// Bytes of the whole packet: all segments and the tail.
    pub(crate) pkt_len: u32,
    /// Where the data starts, from the end of `Meta`.
    pub(crate) data_off: u16,
    /// Bytes behind `Meta`: headroom, data and tailroom.
    pub(crate) buf_len: u16,
    /// How many handles share this mbuf.
    pub(crate) refcnt: AtomicU16,
    pub(crate) tail_count: u16,
    /// The port it came in by.
    pub(crate) port: u16,
    /// Who took it out of the pool, or [`FREE`].
    pub(crate) owner: u16,
    pub(crate) offload: Offload,
}

const _: () = assert!(size_of::<Meta>() == 64);
const _: () = assert!(align_of::<Meta>() == 64);

/// The pool's own way to name an mbuf: a pointer that may change threads.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MetaPtr(pub(crate) NonNull<Meta>);

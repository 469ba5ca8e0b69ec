//! What stands at the head of each mbuf in memory. Layout and the way to its parts alone.
#![expect(unsafe_code, reason = "reaches the parts of an mbuf's head through a raw pointer")]
// UNSAFETY: a head has three parts with different rules. `body` belongs to whoever holds the mbuf (several sharers: to be
// read only); `refcnt` and `queued` are changed by any sharer; `owner` is changed by the holder and read by
// `Mempool::balance` at any time. So nobody ever makes a `&mut Meta`: `&mut` covers the body alone.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU16;

use crate::{Mempool, Offload, Stretch};

/// Bytes that stand free in front of the data of a fresh mbuf, for headers that are put in front on the way.
pub const HEADROOM: usize = 128;

/// The owner tag of an mbuf that lies in its pool.
pub(crate) const FREE: u16 = u16::MAX;

/// An mbuf's first cache line; headroom and data follow it.
#[repr(C, align(64))]
pub(crate) struct Meta {
    pub(crate) body: Body,
    /// How many handles share this mbuf; 1 while it lies in its pool.
    pub(crate) refcnt: AtomicU16,
    /// Who took it out of the pool, or [`FREE`].
    pub(crate) owner: AtomicU16,
    /// How many queues hold the packet; see [`Mbuf::enter_queue`](crate::Mbuf::enter_queue). Of no meaning in the pool.
    pub(crate) queued: AtomicU16,
}

/// What only the holder of the packet touches.
#[repr(C)]
pub(crate) struct Body {
    /// The pool it goes back to.
    pub(crate) pool: &'static Mempool,
    /// The next segment of a chained packet, owned by this one; none while it lies in its pool.
    pub(crate) next: Option<MetaPtr>,
    /// Foreign memory that ends the packet, if `tail_count` is not 0.
    pub(crate) tail: *const Stretch,
    /// Bytes of this segment.
    pub(crate) data_len: u32,
    /// Bytes of the whole packet: all segments and the tail.
    pub(crate) pkt_len: u32,
    /// Bytes behind `Meta`: headroom, data and tailroom.
    pub(crate) buf_len: u16,
    /// Where the data starts, from the end of `Meta`.
    pub(crate) data_off: u16,
    pub(crate) tail_count: u16,
    /// The port it came in by.
    pub(crate) port: u16,
    pub(crate) offload: Offload,
}

const _: () = assert!(size_of::<Meta>() == 64);
const _: () = assert!(align_of::<Meta>() == 64);

/// The pool's own way to name an mbuf: a pointer that may change threads. Its provenance is the pool's whole zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MetaPtr(pub(crate) NonNull<Meta>);

// SAFETY: an mbuf out of its pool is owned by one holder; the pointer says only where it is.
unsafe impl Send for MetaPtr {}

impl MetaPtr {
    /// # Safety
    /// The mbuf's head was written, and nobody writes its body during `'a`.
    #[inline(always)]
    pub(crate) unsafe fn meta<'a>(self) -> &'a Meta {
        // SAFETY: by contract; the rest are atomics.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    /// The mbuf's head was written, and nobody else reads or writes its body during `'a`.
    #[inline(always)]
    pub(crate) unsafe fn body_mut<'a>(self) -> &'a mut Body {
        // SAFETY: by contract.
        unsafe { &mut (*self.0.as_ptr()).body }
    }

    /// # Safety
    /// The mbuf's head was written.
    #[inline(always)]
    pub(crate) unsafe fn owner<'a>(self) -> &'a AtomicU16 {
        // SAFETY: by contract; only this field is named, and it is atomic.
        unsafe { &(*self.0.as_ptr()).owner }
    }

    /// Where the bytes behind the head start.
    #[inline(always)]
    pub(crate) fn buf(self) -> *mut u8 {
        self.0.as_ptr().wrapping_add(1).cast()
    }
}

//! A split virtqueue as its driver sees it (virtio 1.3 §2.7): three areas of guest RAM, and nothing remembered.
//!
//! [`TxRing`](super::TxRing) and [`RxRing`](super::RxRing) stand on it; a hostile test writes here whatever it likes.

use core::sync::atomic::{Ordering, fence};

use super::ram::{GuestRam, RamError, Span};
use crate::wire::message::VringAddr;
use crate::wire::ring::{
    AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, DESC_SIZE, Desc, USED_ELEM_SIZE, USED_IDX_OFFSET, USED_RING_OFFSET,
    avail_bytes, desc_bytes, used_bytes,
};

/// A split ring's three areas. Positions in the available and used rings count on for ever and are cut to the ring's size
/// here.
#[derive(Clone, Debug)]
pub struct SplitRing {
    size: u16,
    /// The descriptor table.
    pub desc: Span,
    /// The available ring.
    pub avail: Span,
    /// The used ring.
    pub used: Span,
}

impl SplitRing {
    /// A ring of `size` descriptors (not 0) in fresh, zeroed RAM, each area on cache lines of its own.
    ///
    /// # Errors
    /// [`RamError::Full`].
    pub fn alloc(ram: &GuestRam, size: u16) -> Result<Self, RamError> {
        assert!(size > 0, "a ring without descriptors");
        let (desc, avail) = (ram.alloc(desc_bytes(size), 128)?, ram.alloc(avail_bytes(size), 128)?);
        let used = ram.alloc(used_bytes(size), 128)?;
        Ok(Self { size, desc, avail, used })
    }

    /// Its descriptors.
    #[inline(always)]
    #[must_use]
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// What SET_VRING_ADDR is to say of it.
    #[must_use]
    pub fn addr(&self, index: u32) -> VringAddr {
        let (desc, used, avail) = (self.desc.va(), self.used.va(), self.avail.va());
        VringAddr { index, flags: 0, desc, used, avail, log: self.used.gpa() }
    }

    /// Position `at` within the ring.
    #[inline(always)]
    fn entry(&self, at: u16) -> usize {
        usize::from(if self.size.is_power_of_two() { at & (self.size - 1) } else { at % self.size })
    }

    /// Writes descriptor `i`.
    pub fn set_desc(&self, i: u16, desc: Desc) {
        self.desc.store_u64(usize::from(i) * DESC_SIZE, desc.addr);
        self.set_desc_rest(i, desc.rest_word());
    }

    /// Writes the second word of descriptor `i`: all but its address.
    #[inline(always)]
    pub(super) fn set_desc_rest(&self, i: u16, rest: u64) {
        self.desc.store_u64(usize::from(i) * DESC_SIZE + 8, rest);
    }

    /// Reads descriptor `i`.
    #[must_use]
    pub fn desc(&self, i: u16) -> Desc {
        let at = usize::from(i) * DESC_SIZE;
        Desc::from_words(self.desc.load_u64(at), self.desc.load_u64(at + 8))
    }

    /// Writes the available ring's entry at position `at`.
    #[inline(always)]
    pub fn set_avail_entry(&self, at: u16, head: u16) {
        self.avail.store_u16(AVAIL_RING_OFFSET + 2 * self.entry(at), head, Ordering::Relaxed);
    }

    /// Publishes all entries before position `idx`.
    #[inline(always)]
    pub fn set_avail_idx(&self, idx: u16) {
        // ORDERING: D1 Release, pairs with V1: who sees the index sees the entries, descriptors and buffers behind it.
        self.avail.store_u16(AVAIL_IDX_OFFSET, idx, Ordering::Release);
    }

    /// Sets the available ring's flags: whether calls are wanted, without EVENT_IDX (§2.7.7).
    pub fn set_avail_flags(&self, flags: u16) {
        self.avail.store_u16(0, flags, Ordering::Relaxed);
    }

    /// Sets after which used position a call is wanted, with EVENT_IDX (§2.7.7).
    pub fn set_used_event(&self, at: u16) {
        self.avail.store_u16(AVAIL_RING_OFFSET + 2 * usize::from(self.size), at, Ordering::Relaxed);
    }

    /// The position before which all used entries are there.
    #[inline(always)]
    #[must_use]
    pub fn used_idx(&self) -> u16 {
        // ORDERING: D2 Acquire, pairs with V2: the entries and buffers behind the index are seen.
        self.used.load_u16(USED_IDX_OFFSET, Ordering::Acquire)
    }

    /// Sets the used index: before the ring starts, so that it can start anywhere.
    pub fn set_used_idx(&self, idx: u16) {
        self.used.store_u16(USED_IDX_OFFSET, idx, Ordering::Relaxed);
    }

    /// The used entry's `id` at position `at`.
    #[inline(always)]
    #[must_use]
    pub fn used_id(&self, at: u16) -> u32 {
        self.used.load_u32(USED_RING_OFFSET + USED_ELEM_SIZE * self.entry(at))
    }

    /// The used entry's `len` at position `at`.
    #[inline(always)]
    #[must_use]
    pub fn used_len(&self, at: u16) -> u32 {
        self.used.load_u32(USED_RING_OFFSET + USED_ELEM_SIZE * self.entry(at) + 4)
    }

    /// The used ring's flags: whether kicks are wanted, without EVENT_IDX (§2.7.10).
    #[inline(always)]
    #[must_use]
    pub fn used_flags(&self) -> u16 {
        self.used.load_u16(0, Ordering::Relaxed)
    }

    /// After which available position a kick is wanted, with EVENT_IDX (§2.7.10).
    #[inline(always)]
    #[must_use]
    pub fn avail_event(&self) -> u16 {
        self.used.load_u16(USED_RING_OFFSET + USED_ELEM_SIZE * usize::from(self.size), Ordering::Relaxed)
    }

    /// Between publishing the available index and reading whether a kick is wanted.
    #[inline(always)]
    pub(super) fn fence_before_kick_check(&self) {
        // ORDERING: D3 full fence, pairs with V4: either the device sees the new index, or its wish for a kick is seen.
        fence(Ordering::SeqCst);
    }

    /// Between asking for a call and looking at the used index once more.
    pub(super) fn fence_after_arming(&self) {
        // ORDERING: D4 full fence, pairs with V3: either the device sees the wish, or its used index is seen.
        fence(Ordering::SeqCst);
    }
}

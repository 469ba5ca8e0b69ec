//! A packed virtqueue as its driver sees it (virtio 1.3 §2.8): its descriptors and the two event suppression structures in
//! guest RAM, and nothing remembered.
//!
//! [`TxRing`](super::TxRing) and [`RxRing`](super::RxRing) stand on it; a hostile test writes here whatever it likes.

use core::sync::atomic::{Ordering, fence};

use super::ram::{GuestRam, RamError, Span};
use crate::wire::message::VringAddr;
use crate::wire::packed::{
    DESC_FLAGS_OFFSET, DESC_ID_OFFSET, DESC_LEN_OFFSET, DESC_SIZE, EVENT_SIZE, PackedDesc, Position,
    desc_bytes,
};

/// A packed ring's three areas.
#[derive(Clone, Debug)]
pub struct PackedRing {
    size: u16,
    /// The descriptors.
    pub desc: Span,
    /// What the driver says of calls.
    pub driver: Span,
    /// What the device says of kicks.
    pub device: Span,
}

impl PackedRing {
    /// A ring of `size` descriptors (not 0) in fresh, zeroed RAM, each area on cache lines of its own.
    ///
    /// # Errors
    /// [`RamError::Full`].
    pub fn alloc(ram: &GuestRam, size: u16) -> Result<Self, RamError> {
        assert!(size > 0, "a ring without descriptors");
        let desc = ram.alloc(desc_bytes(size), 128)?;
        let (driver, device) = (ram.alloc(EVENT_SIZE, 128)?, ram.alloc(EVENT_SIZE, 128)?);
        Ok(Self { size, desc, driver, device })
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
        let (desc, avail, used) = (self.desc.va(), self.driver.va(), self.device.va());
        VringAddr { index, flags: 0, desc, used, avail, log: self.desc.gpa() }
    }

    /// Empties the ring, so that it can start at `start`: what stands there was used in the round before.
    pub fn reset(&self, start: Position) {
        for at in 0..self.size {
            let wrap = start.wrap ^ (at >= start.at);
            let flags = Position { at, wrap }.used_flags();
            self.set_desc(at, PackedDesc { flags, ..PackedDesc::default() });
        }
    }

    /// Writes descriptor `at`, its second word last.
    #[inline(always)]
    pub fn set_desc(&self, at: u16, desc: PackedDesc) {
        let offset = usize::from(at) * DESC_SIZE;
        self.desc.store_u64(offset, desc.addr);
        self.desc.store_u64(offset + 8, desc.rest_word());
    }

    /// Writes descriptor `at` but for its flags: it is not available before [`set_flags`](Self::set_flags).
    #[inline(always)]
    pub fn set_desc_but_flags(&self, at: u16, desc: PackedDesc) {
        let offset = usize::from(at) * DESC_SIZE;
        self.desc.store_u64(offset, desc.addr);
        self.desc.store_u32(offset + DESC_LEN_OFFSET, desc.len);
        self.desc.store_u16(offset + DESC_ID_OFFSET, desc.id, Ordering::Relaxed);
    }

    /// Writes the flags of descriptor `at`: with that it, and all that was written before, is the device's.
    #[inline(always)]
    pub fn set_flags(&self, at: u16, flags: u16) {
        let offset = usize::from(at) * DESC_SIZE + DESC_FLAGS_OFFSET;
        // ORDERING: D1 Release, pairs with V1: who sees these flags sees the rest of the descriptor, all descriptors behind
        // it that were written before, and their buffers.
        self.desc.store_u16(offset, flags, Ordering::Release);
    }

    /// The flags of descriptor `at`.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self, at: u16) -> u16 {
        // ORDERING: D2 Acquire, pairs with V2: the used descriptor's id and length, those behind it, and their buffers are
        // seen.
        self.desc.load_u16(usize::from(at) * DESC_SIZE + DESC_FLAGS_OFFSET, Ordering::Acquire)
    }

    /// Reads descriptor `at`.
    #[inline(always)]
    #[must_use]
    pub fn desc(&self, at: u16) -> PackedDesc {
        let offset = usize::from(at) * DESC_SIZE;
        let flags = self.flags(at);
        let rest = PackedDesc::from_words(0, self.desc.load_u64(offset + 8));
        PackedDesc { addr: self.desc.load_u64(offset), flags, ..rest }
    }

    /// Id and length of the descriptor at `at`, whose flags were seen.
    #[inline(always)]
    pub(super) fn id_and_len(&self, at: u16) -> (u16, u32) {
        let rest = PackedDesc::from_words(0, self.desc.load_u64(usize::from(at) * DESC_SIZE + 8));
        (rest.id, rest.len)
    }

    /// Says when calls are wanted (§2.8.10): `EVENT_F_*`, and for which descriptor.
    pub fn set_driver_event(&self, flags: u16, at: Position) {
        self.driver.store_u32(0, u32::from(at.to_bits()) | u32::from(flags) << 16);
    }

    /// When kicks are wanted: `EVENT_F_*`, and for which descriptor.
    #[inline(always)]
    #[must_use]
    pub fn device_event(&self) -> (u16, Position) {
        let word = self.device.load_u32(0);
        ((word >> 16) as u16, Position::from_bits(word as u16))
    }

    /// Between making descriptors available and reading whether a kick is wanted.
    #[inline(always)]
    pub(super) fn fence_before_kick_check(&self) {
        // ORDERING: D3 full fence, pairs with V4: either the device sees the descriptors, or its wish for a kick is seen.
        fence(Ordering::SeqCst);
    }

    /// Between asking for a call and looking at the next used descriptor once more.
    pub(super) fn fence_after_arming(&self) {
        // ORDERING: D4 full fence, pairs with V3: either the device sees the wish, or its used descriptor is seen.
        fence(Ordering::SeqCst);
    }
}

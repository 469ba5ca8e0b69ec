//! The room in a fresh mbuf.

use core::ptr::NonNull;

use crate::layout::Body;

/// The free bytes of a fresh mbuf; see [`Mbuf::room`](crate::Mbuf::room).
pub struct Room<'m> {
    body: &'m mut Body,
    start: NonNull<u8>,
}

impl core::fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Room").field("start", &self.start).field("len", &self.len()).finish()
    }
}

impl<'m> Room<'m> {
    /// Of an mbuf that has one handle, where its data is to start.
    #[inline(always)]
    pub(crate) fn new(body: &'m mut Body, start: NonNull<u8>) -> Self {
        Self { body, start }
    }

    /// Where they start.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many they are.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a fresh mbuf has room")]
    pub fn len(&self) -> usize {
        usize::from(self.body.buf_len) - usize::from(self.body.data_off)
    }

    /// As [`Mbuf::set_filled`](crate::Mbuf::set_filled).
    ///
    /// # Panics
    /// If `skip + len` is more than there was room for: a bug of the caller, not of a peer.
    #[inline(always)]
    pub fn fill(self, skip: usize, len: usize) {
        assert!(skip + len <= self.len(), "{skip} + {len} bytes in {}", self.len());
        self.body.data_off += skip as u16;
        self.body.data_len = len as u32;
        self.body.pkt_len = len as u32;
    }
}

//! Where the slots' buffers lie, and the descriptors that name them, whatever the ring's format.

use super::ram::{GuestRam, Span};
use super::ring_config::{RingConfig, RingConfigError, pieces_of, stride};
use crate::wire::net::hdr_len;
use crate::wire::ring::DESC_SIZE;

/// A slot is one buffer: header and frame.
#[derive(Debug)]
pub(super) struct Slots {
    /// All slots' buffers, `stride` apart.
    pub(super) buffers: Span,
    /// All slots' indirect tables.
    tables: Option<Span>,
    stride: usize,
    /// Bytes of a slot's first piece, and of each other.
    first: u32,
    rest: u32,
    /// Entries of a table.
    pieces: usize,
    /// `DESC_F_WRITE` on a receive ring.
    pub(super) direction: u16,
}

/// A piece of a buffer: one descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) addr: u64,
    pub(super) len: u32,
    /// Whether another one follows.
    pub(super) more: bool,
}

impl Slots {
    pub(super) fn alloc(
        ram: &GuestRam,
        config: &RingConfig,
        slots: u16,
        direction: u16,
    ) -> Result<Self, RingConfigError> {
        let (stride, pieces) = (stride(config.buffer_bytes), pieces_of(*config)?);
        let buffers = ram.alloc(usize::from(slots) * stride, 64)?;
        let tables = match config.indirect {
            true => Some(ram.alloc(usize::from(slots) * pieces * DESC_SIZE, 64)?),
            false => None,
        };
        let (first, rest) = config.cut.sizes(hdr_len(config.features) as u32);
        Ok(Self { buffers, tables, stride, first, rest, pieces, direction })
    }

    /// Where a slot's buffer starts in `buffers`.
    #[inline(always)]
    pub(super) fn buffer(&self, slot: u16) -> usize {
        usize::from(slot) * self.stride
    }

    /// Where a slot's buffer starts in guest memory.
    #[inline(always)]
    pub(super) fn addr(&self, slot: u16) -> u64 {
        self.buffers.gpa() + self.buffer(slot) as u64
    }

    /// Whether `bytes` of a slot are one piece in the ring.
    #[inline(always)]
    pub(super) fn is_whole(&self, bytes: u32) -> bool {
        bytes <= self.first && self.tables.is_none()
    }

    /// The pieces of a slot's first `bytes`.
    pub(super) fn pieces(&self, slot: u16, bytes: u32) -> impl Iterator<Item = Piece> + use<> {
        let (addr, first, rest) = (self.addr(slot), self.first, self.rest);
        let mut done = 0;
        std::iter::from_fn(move || {
            let len = if done == 0 { first } else { rest }.min(bytes - done);
            let piece = Piece { addr: addr + u64::from(done), len, more: done + len < bytes };
            done += len;
            (len > 0).then_some(piece)
        })
    }

    /// Writes a slot's table of the first `bytes`, if it has one, each entry by the two words that `entry` makes of it and
    /// its number. Where the table lies, and its bytes.
    pub(super) fn write_table(
        &self,
        slot: u16,
        bytes: u32,
        entry: impl Fn(u16, Piece) -> (u64, u64),
    ) -> Option<(u64, u32)> {
        let tables = self.tables.as_ref()?;
        let start = usize::from(slot) * self.pieces * DESC_SIZE;
        let mut len = 0;
        for (i, piece) in (0..).zip(self.pieces(slot, bytes)) {
            let (addr, rest) = entry(i, piece);
            tables.store_u64(start + len, addr);
            tables.store_u64(start + len + 8, rest);
            len += DESC_SIZE;
        }
        Some((tables.gpa() + start as u64, len as u32))
    }

    /// Where a slot's table lies, and its bytes if the slot says so many.
    pub(super) fn table(&self, slot: u16, bytes: u32) -> Option<(u64, u32)> {
        let tables = self.tables.as_ref()?;
        let entries = 1 + bytes.saturating_sub(self.first).div_ceil(self.rest);
        let start = usize::from(slot) * self.pieces * DESC_SIZE;
        Some((tables.gpa() + start as u64, entries * DESC_SIZE as u32))
    }
}

//! Walking a descriptor chain: the way for everything that is not one plain descriptor.
#![expect(unsafe_code, reason = "reads descriptor tables that the guest shares")]
// UNSAFETY: an indirect table was translated whole; an index into it is checked against its length before each load.
// Tables may lie at any address, so their words are copied, not loaded as aligned atomics.

use core::ptr::NonNull;

use mbuf::{TailSegment, foreign};

use crate::vring::{Fault, MAX_PIECES, Vring};
use crate::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, Desc};

/// What a chain's buffers are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device reads them (guest's TX).
    Read,
    /// The device writes them (guest's RX).
    Write,
}

/// Why a chain could not be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// It breaks the rules.
    Fault(Fault),
    /// It is legal, but has more pieces than there was room for.
    NoRoom,
}

impl From<Fault> for ChainError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Where the descriptors of a chain stand.
enum Table {
    Ring,
    Indirect { start: NonNull<u8>, entries: u16 },
}

impl Table {
    fn desc(&self, ring: &Vring, i: u16) -> Result<Desc, Fault> {
        match self {
            Self::Ring if i < ring.size() => Ok(ring.desc(i)),
            Self::Indirect { start, entries } if i < *entries => {
                let mut words = [0u64; 2];
                // SAFETY: i < entries, and the table's `entries * 16` bytes were translated; `words` has 16.
                unsafe {
                    let at = start.as_ptr().add(usize::from(i) * DESC_SIZE);
                    foreign::copy(words.as_mut_ptr().cast(), at, DESC_SIZE);
                }
                Ok(Desc::from_words(u64::from_le(words[0]), u64::from_le(words[1])))
            }
            _ => Err(Fault::DescIndex),
        }
    }
}

/// A chain that was collected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// Pieces written.
    pub(crate) pieces: usize,
    /// What it cost: pieces or descriptors, whichever are more. Empty descriptors have no pieces, and take time all the same.
    pub(crate) cost: usize,
    /// Bytes of all its descriptors.
    pub(crate) bytes: u64,
}

/// Writes the chain's pieces in host memory to `pieces`, in order and without the empty ones. It costs no more than there is
/// room for. `first` is the private copy of the chain's first descriptor.
pub(crate) fn collect(
    ring: &mut Vring,
    first: Desc,
    direction: Direction,
    pieces: &mut [TailSegment],
) -> Result<Chain, ChainError> {
    let (table, mut desc) = enter(ring, first)?;
    let (mut count, mut bytes) = (0, 0u64);
    // I3: no chain is longer than the ring, loops included, and none takes more steps than there is room for.
    for walked in 1..=usize::from(ring.size()) {
        if walked > pieces.len() {
            return Err(ChainError::NoRoom);
        }
        if desc.flags & DESC_F_INDIRECT != 0 {
            return Err(Fault::Indirect.into());
        }
        if (desc.flags & DESC_F_WRITE != 0) != (direction == Direction::Write) {
            return Err(Fault::Direction.into());
        }
        bytes += u64::from(desc.len);
        count += pieces_of(ring, desc, &mut pieces[count..])?;
        if desc.flags & DESC_F_NEXT == 0 {
            return Ok(Chain { pieces: count, cost: walked.max(count), bytes });
        }
        desc = table.desc(ring, desc.next)?;
    }
    Err(Fault::ChainTooLong.into())
}

/// The table that the chain stands in and its first descriptor there.
fn enter(ring: &mut Vring, first: Desc) -> Result<(Table, Desc), Fault> {
    if first.flags & DESC_F_INDIRECT == 0 {
        return Ok((Table::Ring, first));
    }
    // §2.7.5.3.1: no chaining on, no empty or broken table, none longer than the ring.
    let entries = first.len / DESC_SIZE as u32;
    let shape =
        first.len != 0 && first.len.is_multiple_of(DESC_SIZE as u32) && entries <= u32::from(ring.size());
    if !ring.indirect() || first.flags & DESC_F_NEXT != 0 || !shape {
        return Err(Fault::Indirect);
    }
    let start = ring.translate(first.addr, first.len).ok_or(Fault::Address)?;
    let table = Table::Indirect { start, entries: entries as u16 };
    let desc = table.desc(ring, 0)?;
    Ok((table, desc))
}

/// Splits one buffer where regions meet.
fn pieces_of(ring: &mut Vring, desc: Desc, pieces: &mut [TailSegment]) -> Result<usize, ChainError> {
    let (mut addr, mut left) = (desc.addr, u64::from(desc.len));
    // I2: the end, too, must be an address.
    addr.checked_add(left).ok_or(Fault::Address)?;
    let mut count = 0;
    while left > 0 {
        let (start, len) = ring.translate_part(addr, left).ok_or(Fault::Address)?;
        let slot = pieces.get_mut(count).ok_or(ChainError::NoRoom)?;
        // SAFETY: translated to lie inside a mapping that the ring's memory keeps; the turn holds the ring's gate.
        *slot = unsafe { TailSegment::new(start, len as u32) };
        count += 1;
        addr += len;
        left -= len;
    }
    Ok(count)
}

/// Room for the pieces of any chain that is dealt with.
pub(crate) fn scratch() -> Box<[TailSegment]> {
    vec![TailSegment::EMPTY; MAX_PIECES].into_boxed_slice()
}

//! Walking a descriptor chain: the way for everything that is not one plain descriptor.
#![expect(unsafe_code, reason = "reads descriptor tables that the guest shares")]
// UNSAFETY: an indirect table was translated whole; an index into it is checked against its length before each load.
// Tables may lie at any address, so their words are copied, not loaded as aligned atomics.

use core::num::NonZeroU16;
use core::ptr::NonNull;

use mbuf::{Stretch, foreign};

use crate::vring::format::{Available, Buffer, Head, Long};
use crate::vring::ring::Terms;
use crate::vring::view::View;
use crate::vring::{Fault, MAX_PIECES, hook};
use crate::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, Desc};

/// What a chain's buffers are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The device reads them (guest's TX).
    Read,
    /// The device writes them (guest's RX).
    Write,
}

/// Why a chain could not be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChainError {
    /// It breaks the rules.
    Fault(Fault),
    /// It is legal, but has more pieces than there was room for: so far it was walked.
    NoRoom(Long),
}

impl From<Fault> for ChainError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A chain that was collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// What gives it back.
    pub(super) buffer: Buffer,
    /// Pieces written.
    pub(super) pieces: usize,
    /// What it cost: pieces or descriptors, whichever are more. Empty descriptors have no pieces, and take time all the same.
    pub(super) cost: usize,
    /// Bytes of all its descriptors.
    pub(super) bytes: u64,
}

/// What a chain is walked with.
pub(super) struct Walker<'r, F: Available> {
    pub(super) ring: &'r F,
    pub(super) view: &'r mut View,
    pub(super) terms: Terms,
    pub(super) direction: Direction,
}

/// Where the descriptors of a chain stand.
#[derive(Clone, Copy)]
enum Table {
    Ring,
    /// Of split rings: each entry names the next.
    Linked {
        start: NonNull<u8>,
        entries: u16,
    },
    /// Of packed rings: each entry is followed by the next, and the last one is the last (§2.8.7).
    Listed {
        start: NonNull<u8>,
        entries: u16,
    },
}

impl<F: Available> Walker<'_, F> {
    /// Writes the pieces of the chain of `head`, which stands at `at`, to `pieces`: where they lie in host memory, in order
    /// and without the empty ones. It costs no more than there is room for.
    pub(super) fn collect(
        mut self,
        at: F::Place,
        head: &Head,
        pieces: &mut [Stretch],
    ) -> Result<Chain, ChainError> {
        let (table, mut desc) = self.enter(head.desc)?;
        let (mut count, mut bytes) = (0, 0u64);
        // I3: no chain is longer than the ring, loops included, and none takes more steps than there is room for.
        for walked in 1..=self.ring.size() {
            let steps = usize::from(walked);
            if steps > pieces.len() {
                return Err(no_room(table, head, walked, desc));
            }
            self.check_flags(table, desc.flags)?;
            bytes += u64::from(desc.len);
            let Some(more) = pieces_of(self.view, desc, &mut pieces[count..])? else {
                return Err(no_room(table, head, walked, desc));
            };
            count += more;
            let Some(next) = self.next(table, at, walked, desc)? else {
                let (walked, last) = match table {
                    Table::Ring => (walked, desc),
                    _ => (1, head.desc),
                };
                let walked = NonZeroU16::new(walked).unwrap_or(NonZeroU16::MIN);
                let buffer = self.ring.buffer(head, walked, last)?;
                return Ok(Chain { buffer, pieces: count, cost: steps.max(count), bytes });
            };
            desc = next;
        }
        Err(Fault::ChainTooLong.into())
    }

    /// The descriptor behind the `walked`-th, if there is one.
    #[inline]
    fn next(&self, table: Table, at: F::Place, walked: u16, desc: Desc) -> Result<Option<Desc>, Fault> {
        let more = match table {
            Table::Listed { entries, .. } => walked < entries,
            _ => desc.flags & DESC_F_NEXT != 0,
        };
        if !more {
            return Ok(None);
        }
        match table {
            Table::Ring => self.ring.follow(at, walked, desc),
            Table::Linked { start, entries } => entry::<F>(start, entries, desc.next),
            Table::Listed { start, entries } => entry::<F>(start, entries, walked),
        }
        .map(Some)
    }

    /// The table that the chain stands in and its first descriptor there.
    fn enter(&mut self, first: Desc) -> Result<(Table, Desc), Fault> {
        if first.flags & DESC_F_INDIRECT == 0 {
            return Ok((Table::Ring, first));
        }
        // §2.7.5.3.1: no chaining on, no empty or broken table, none longer than the ring.
        let entries = first.len / DESC_SIZE as u32;
        let shape = first.len != 0
            && first.len.is_multiple_of(DESC_SIZE as u32)
            && entries <= u32::from(self.ring.size());
        if !self.terms.indirect || first.flags & DESC_F_NEXT != 0 || !shape {
            return Err(Fault::Indirect);
        }
        let start = self.view.translate(first.addr, first.len).ok_or(Fault::Address)?;
        let entries = entries as u16;
        let table = if F::CHAINS_ARE_RUNS {
            Table::Listed { start, entries }
        } else {
            Table::Linked { start, entries }
        };
        Ok((table, entry::<F>(start, entries, 0)?))
    }

    fn check_flags(&self, table: Table, flags: u16) -> Result<(), Fault> {
        if flags & DESC_F_INDIRECT != 0 {
            return Err(Fault::Indirect);
        }
        let writable = flags & DESC_F_WRITE != 0;
        let right = match self.direction {
            Direction::Write => writable,
            // DPDK's driver marks the header's entry in the tables of what it sends as writable. It is only read.
            Direction::Read => !writable || matches!(table, Table::Listed { .. }),
        };
        if right { Ok(()) } else { Err(Fault::Direction) }
    }
}

/// A chain that goes on behind `desc`, the `walked`-th. A table's descriptors are not the ring's: there it is one.
#[cold]
fn no_room(table: Table, head: &Head, walked: u16, desc: Desc) -> ChainError {
    ChainError::NoRoom(match table {
        Table::Ring => Long { head: *head, walked, desc },
        _ => Long { head: *head, walked: 1, desc: head.desc },
    })
}

/// A private copy of entry `i` of an indirect table, whose `entries` were translated from `start` on.
fn entry<F: Available>(start: NonNull<u8>, entries: u16, i: u16) -> Result<Desc, Fault> {
    if i >= entries {
        return Err(Fault::DescIndex);
    }
    let mut words = [0u64; 2];
    // SAFETY: i < entries, and the table's `entries * 16` bytes were translated; `words` has 16.
    unsafe {
        let at = start.as_ptr().add(usize::from(i) * DESC_SIZE);
        foreign::copy(words.as_mut_ptr().cast(), at, DESC_SIZE);
    }
    let desc = F::entry(u64::from_le(words[0]), u64::from_le(words[1]));
    hook::read(desc);
    Ok(desc)
}

/// Splits one buffer where regions meet; `None` if there is no room for all its pieces.
fn pieces_of(view: &mut View, desc: Desc, pieces: &mut [Stretch]) -> Result<Option<usize>, Fault> {
    let (mut addr, mut left) = (desc.addr, u64::from(desc.len));
    // I2: the end, too, must be an address.
    addr.checked_add(left).ok_or(Fault::Address)?;
    let mut count = 0;
    while left > 0 {
        let (start, len) = view.translate_part(addr, left).ok_or(Fault::Address)?;
        let Some(slot) = pieces.get_mut(count) else { return Ok(None) };
        *slot = Stretch::new(start, len as u32);
        count += 1;
        addr += len;
        left -= len;
    }
    Ok(Some(count))
}

/// Room for the pieces of any chain that is dealt with.
pub(super) fn scratch() -> Box<[Stretch]> {
    vec![Stretch::EMPTY; MAX_PIECES].into_boxed_slice()
}

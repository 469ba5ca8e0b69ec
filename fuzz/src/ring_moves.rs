//! What a guest does with its rings, as bytes: what the target `rings` reads and its seeds are written as.

use crate::input::Input;

/// One step. Rings are 0 (what the guest receives by) and 1 (what it sends by).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Writes a descriptor of a ring, or of one of the indirect tables: their numbers start at 2.
    Describe {
        /// Ring or table.
        table: u8,
        /// Which entry, modulo the table's size.
        at: u8,
        /// The buffer's address, by [`Move::address`].
        addr: u16,
        /// Its length.
        len: u32,
        /// The flags' low byte: NEXT, WRITE, INDIRECT. In a packed ring the two that say "available" are added, unless bit 7
        /// is set.
        flags: u8,
        /// `next`, or the id.
        next: u16,
    },
    /// Makes a head available in a split ring, and moves avail.idx by so many.
    Offer { ring: u8, head: u16, by: u8 },
    /// Writes two bytes of RAM.
    Write { at: u16, value: u16 },
    /// The switch takes what is sent.
    Receive,
    /// The switch sends so many frames of about this length, which say `fill` again and again.
    Send { count: u8, len: u16, fill: u16 },
    /// The lcore wants to sleep, and is woken.
    Sleep,
    /// From now on another thread writes these two values to eight bytes of RAM, in turn, until the end.
    Race { at: u16, values: [u64; 2] },
    /// The same, but all that changes is a bit of them.
    Flip { at: u16, bit: u8 },
}

/// Longest run of moves.
pub const MOST: usize = 96;

impl Move {
    /// The next one.
    pub fn read(input: &mut Input<'_>) -> Option<Self> {
        Some(match input.byte()? % 16 {
            0..4 => Self::Describe {
                table: input.byte()?,
                at: input.byte()?,
                addr: input.u16()?,
                len: length(input.u16()?),
                flags: input.byte()?,
                next: u16::from(input.byte()?),
            },
            4 | 5 => Self::Offer { ring: input.byte()? % 2, head: input.byte()?.into(), by: input.byte()? },
            6 => Self::Write { at: input.u16()?, value: input.u16()? },
            7 | 8 => Self::Receive,
            9 | 10 => Self::Send { count: input.byte()?, len: input.u16()?, fill: input.u16()? },
            11 => Self::Sleep,
            12 | 13 => Self::Flip { at: input.u16()?, bit: input.byte()? % 64 },
            _ => Self::Race { at: input.u16()?, values: [input.u64()?, input.u64()?] },
        })
    }

    /// The guest-physical address that a descriptor's two bytes mean: most of them lie in 64 KiB of RAM, the last 256 around
    /// the ends of the address space and of the RAM.
    #[must_use]
    pub const fn address(addr: u16) -> u64 {
        let low = (addr & 0xf) as u64;
        match addr >> 4 {
            0xfff => low.wrapping_sub(8),
            0xffe => (1 << 63) + low,
            0xffd => (1 << 32) + low,
            0xffc => 0x1_0000 + low - 8,
            _ => addr as u64,
        }
    }

    /// Writes it as [`read`](Self::read) reads it.
    pub fn write(self, to: &mut Vec<u8>) {
        match self {
            Self::Describe { table, at, addr, len, flags, next } => {
                to.extend([0, table, at]);
                to.extend(addr.to_le_bytes());
                to.extend((len as u16).to_le_bytes());
                to.extend([flags, next as u8]);
            }
            Self::Offer { ring, head, by } => to.extend([4, ring, head as u8, by]),
            Self::Write { at, value } => {
                to.push(6);
                to.extend(at.to_le_bytes());
                to.extend(value.to_le_bytes());
            }
            Self::Receive => to.push(7),
            Self::Send { count, len, fill } => {
                to.extend([9, count]);
                to.extend(len.to_le_bytes());
                to.extend(fill.to_le_bytes());
            }
            Self::Sleep => to.push(11),
            Self::Flip { at, bit } => {
                to.push(12);
                to.extend(at.to_le_bytes());
                to.push(bit);
            }
            Self::Race { at, values } => {
                to.push(14);
                to.extend(at.to_le_bytes());
                values.iter().for_each(|v| to.extend(v.to_le_bytes()));
            }
        }
    }
}

/// A descriptor's length from its two bytes: themselves, but for the last 16.
const fn length(len: u16) -> u32 {
    match len {
        0xfff0..=0xfff7 => u32::MAX - (len & 7) as u32,
        0xfff8..=0xffff => 0x1_0000 + (len & 7) as u32,
        _ => len as u32,
    }
}

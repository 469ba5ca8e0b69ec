//! Every small ring there is, against models that are written as the specification tells it: what a chain of descriptors means,
//! or why it means nothing.
//!
//! The models know nothing of places, tables or views; they read a table entry by entry and memory byte by byte.

mod index;
mod packed;
mod receive;
mod rig;
mod split;

use crate::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Desc};
use rig::{HOLE, LOW_END, TABLE, TOP, UPPER_END};

/// Every combination of these is a descriptor: address and length.
const BUFFERS: [(u64, u32); 8] = [
    // A header, and a header with a frame.
    (0x1_0000, 12),
    (0x1_0040, 30),
    // Nothing, inside and outside.
    (0x1_0080, 0),
    (HOLE, 0),
    // Over the seam between two regions; up to the end of the upper one, and one too far.
    (LOW_END - 16, 64),
    (UPPER_END - 32, 32),
    (UPPER_END - 32, 33),
    // Over the end of the address space.
    (TOP, 30),
];

/// A table in memory, of one and of two entries, and what is none: a part of one, too long, over the seam, nowhere.
const TABLES: [(u64, u32); 6] =
    [(TABLE, 16), (TABLE, 32), (TABLE, 24), (TABLE, 16 * 9), (LOW_END - 16, 32), (HOLE, 16)];

const NEXT: u16 = DESC_F_NEXT;
const WRITE: u16 = DESC_F_WRITE;
const INDIRECT: u16 = DESC_F_INDIRECT;

/// Descriptors of all buffers and flags; with `NEXT`, of all `nexts`.
fn alphabet(buffers: &[(u64, u32)], flags: &[u16], nexts: &[u16]) -> Vec<Desc> {
    let mut all = Vec::new();
    for (&(addr, len), &flags) in buffers.iter().flat_map(|b| flags.iter().map(move |f| (b, f))) {
        let nexts = if flags & NEXT == 0 { &nexts[..1] } else { nexts };
        all.extend(nexts.iter().map(|&next| Desc { addr, len, flags, next }));
    }
    all
}

/// Calls `each` with every table of `size` entries of `alphabet`.
fn every_table(alphabet: &[Desc], size: usize, mut each: impl FnMut(&[Desc])) {
    let mut table = vec![alphabet[0]; size];
    for mut number in 0..alphabet.len().pow(size as u32) {
        for entry in &mut table {
            *entry = alphabet[number % alphabet.len()];
            number /= alphabet.len();
        }
        each(&table);
    }
}

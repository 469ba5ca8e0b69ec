//! Guests that send and receive by their rings as drivers do.

use polder_fuzz::ring_moves::Move;

use crate::Seeds;

/// Bits of the byte that chooses the features.
mod with {
    pub(super) const PACKED: u8 = 1;
    pub(super) const MERGEABLE: u8 = 1 << 1;
    pub(super) const INDIRECT: u8 = 1 << 2;
    pub(super) const EVENT_IDX: u8 = 1 << 3;
    pub(super) const IN_ORDER: u8 = 1 << 4;
    pub(super) const CSUM: u8 = 1 << 5;
    pub(super) const GUEST_CSUM: u8 = 1 << 6;
}

const NEXT: u8 = 1;
const WRITE: u8 = 2;
const INDIRECT: u8 = 4;
/// Of a packed ring's descriptor: of the round of wrap counter 0.
const SECOND_ROUND: u8 = 0x40;
/// The header's bytes.
const HEADER: u16 = 12;
/// Where buffers start, apart from rings and tables.
const BUFFERS: u16 = 0x2000;
/// Where the target has its indirect tables; the first of them is table 2 of a [`Move`], modulo 4.
const TABLES: u16 = 0x7f00;

/// Where the target has the descriptors of both rings, by format.
const SPLIT: [u16; 2] = [0, 0x480];
const PACKED: [u16; 2] = [0x280, 0x700];

fn seed(features: u8, size: u8, start: u16, moves: &[Move]) -> Vec<u8> {
    let mut bytes = vec![features, size];
    bytes.extend(start.to_le_bytes());
    moves.iter().for_each(|m| m.write(&mut bytes));
    bytes
}

/// Buffer `n`, of one descriptor.
fn whole(ring: u8, n: u16, round: u8) -> Move {
    let write = if ring == 0 { WRITE } else { 0 };
    Move::Describe {
        table: ring,
        at: n as u8,
        addr: BUFFERS + 0x800 * n,
        len: if ring == 0 { 1526 } else { u32::from(HEADER) + 60 },
        flags: write | round,
        next: n,
    }
}

fn offer(ring: u8, head: u16) -> Move {
    Move::Offer { ring, head, by: 1 }
}

/// Eight buffers each way, and a burst each way; then again.
fn both_ways(packed: bool, rounds: u8) -> Vec<Move> {
    let mut moves = Vec::new();
    for round in 0..rounds {
        let flag = if packed && round % 2 == 1 { SECOND_ROUND } else { 0 };
        for ring in 0..2 {
            for n in 0..8 {
                moves.push(whole(ring, n, flag));
                if !packed {
                    moves.push(offer(ring, n));
                }
            }
        }
        moves.extend([Move::Receive, Move::Send { count: 8, len: 400, fill: 0x5a5a }, Move::Sleep]);
    }
    moves
}

/// A header and a payload in descriptors of their own, as Linux sends.
fn chained(packed: bool) -> Vec<Move> {
    let part = |at: u8, addr, len, flags, next| Move::Describe { table: 1, at, addr, len, flags, next };
    // In a packed ring the second descriptor has the id.
    let mut moves = vec![
        part(1, BUFFERS + 0x100, 1000, 0, 0),
        part(0, BUFFERS, HEADER.into(), NEXT, if packed { 0 } else { 1 }),
        part(3, 0x7000, 0x1800, 0, 2),
        part(2, BUFFERS, HEADER.into(), NEXT, if packed { 2 } else { 3 }),
    ];
    if !packed {
        moves.extend([offer(1, 0), offer(1, 2)]);
    }
    moves.push(Move::Receive);
    moves
}

/// The same in an indirect table each, for both directions.
fn indirect(packed: bool) -> Vec<Move> {
    let mut moves = Vec::new();
    for (ring, table) in [(0u8, 2u8), (1, 3)] {
        let write = if ring == 0 { WRITE } else { 0 };
        let next = if packed { 0 } else { NEXT };
        let part =
            |at, addr, len, flags, next| Move::Describe { table, at, addr, len, flags: flags | write, next };
        moves.push(part(0, BUFFERS, HEADER.into(), next, 1));
        moves.push(part(1, BUFFERS + 0x100, 1514, 0, 0));
        let addr = TABLES + 0x80 * (u16::from(table) % 4);
        moves.push(Move::Describe { table: ring, at: 0, addr, len: 32, flags: INDIRECT, next: 0 });
        if !packed {
            moves.push(offer(ring, 0));
        }
    }
    moves.extend([Move::Receive, Move::Send { count: 2, len: 900, fill: 0x5a5a }]);
    moves
}

/// Two buffers of the guest's that are written over while the switch works on them.
fn raced(packed: bool) -> Vec<Move> {
    let mut moves = Vec::new();
    // The second word of a descriptor of each ring: its NEXT in either format, its length; and avail.idx.
    let descriptor = if packed { PACKED } else { SPLIT };
    for ring in descriptor {
        moves.push(Move::Flip { at: ring + 0x18, bit: if packed { 48 } else { 32 } });
        moves.push(Move::Flip { at: ring + 0x28, bit: 8 });
    }
    moves.push(Move::Race { at: BUFFERS, values: [0, 0x0022_0010_0000_0101] });
    moves.extend(both_ways(packed, 2));
    moves
}

pub(crate) fn all() -> Seeds {
    let plain = with::EVENT_IDX;
    let rich = with::MERGEABLE | with::INDIRECT | with::CSUM | with::GUEST_CSUM;
    vec![
        ("split", seed(plain, 0, 0, &both_ways(false, 2))),
        ("split-mergeable", seed(rich, 4, 0xfff8, &both_ways(false, 2))),
        ("split-chained", seed(plain, 0, 0, &chained(false))),
        ("split-indirect", seed(rich, 0, 0, &indirect(false))),
        ("split-raced", seed(rich, 0, 0, &raced(false))),
        ("packed", seed(with::PACKED | plain, 0, 0, &both_ways(true, 3))),
        ("packed-in-order", seed(with::PACKED | with::IN_ORDER | rich, 0, 0, &both_ways(true, 2))),
        ("packed-chained", seed(with::PACKED | plain, 0, 0, &chained(true))),
        ("packed-indirect", seed(with::PACKED | rich, 0, 0, &indirect(true))),
        ("packed-raced", seed(with::PACKED | rich, 0, 0, &raced(true))),
    ]
}

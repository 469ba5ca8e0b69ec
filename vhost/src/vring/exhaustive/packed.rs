//! Packed rings (virtio 1.3 §2.8.1, §2.8.5 to §2.8.8).

use super::rig::{Outcome, Rig, TABLE, bytes, table_words};
use super::{BUFFERS, INDIRECT, NEXT, TABLES, WRITE, alphabet, every_table};
use crate::vring::Fault;
use crate::wire::net::{F_INDIRECT_DESC, F_RING_PACKED};
use crate::wire::packed::{DESC_F_AVAIL, DESC_F_USED, PackedDesc, Position};
use crate::wire::ring::{DESC_SIZE, Desc};

/// In these tests a descriptor of the alphabet that has this flag is not available.
const ABSENT: u16 = 1 << 12;

/// Where the device stands, counted one by one.
#[derive(Clone, Copy)]
struct At {
    at: usize,
    wrap: bool,
}

impl At {
    fn step(&mut self, size: usize) {
        self.at += 1;
        if self.at == size {
            *self = Self { at: 0, wrap: !self.wrap };
        }
    }
}

/// The chain that starts where `at` stands: its bytes and its id. Leaves `at` behind it; `room` descriptors are not lent twice.
fn chain(ring: &[Desc], at: &mut At, room: &mut usize, table: &[Desc]) -> Result<(Vec<u8>, u16), Fault> {
    let head = ring[at.at];
    let mut found = Vec::new();
    let mut last = head;
    if head.flags & INDIRECT != 0 {
        let count = head.len as usize / DESC_SIZE;
        let shaped = count * DESC_SIZE == head.len as usize && (1..=ring.len()).contains(&count);
        if head.flags & NEXT != 0 || !shaped {
            return Err(Fault::Indirect);
        }
        let table = if head.addr == TABLE { table[..count].to_vec() } else { table_at(head)? };
        // One entry behind the other, whatever their flags say of a next one; WRITE is suffered.
        for entry in table {
            if entry.flags & INDIRECT != 0 {
                return Err(Fault::Indirect);
            }
            found.extend(bytes(entry.addr, entry.len).ok_or(Fault::Address)?);
        }
        at.step(ring.len());
        *room -= 1;
    } else {
        loop {
            let desc = ring[at.at];
            if desc.flags & INDIRECT != 0 {
                return Err(Fault::Indirect);
            }
            if desc.flags & WRITE != 0 {
                return Err(Fault::Direction);
            }
            found.extend(bytes(desc.addr, desc.len).ok_or(Fault::Address)?);
            at.step(ring.len());
            *room -= 1;
            last = desc;
            if desc.flags & NEXT == 0 {
                break;
            }
            if *room == 0 {
                return Err(Fault::ChainTooLong);
            }
            if ring[at.at].flags & ABSENT != 0 {
                return Err(Fault::ChainBroken);
            }
        }
    }
    if usize::from(last.next) < ring.len() { Ok((found, last.next)) } else { Err(Fault::BufferId) }
}

/// What stands in memory where no table was written.
fn table_at(head: Desc) -> Result<Vec<Desc>, Fault> {
    let words = table_words(head.addr, head.len).ok_or(Fault::Address)?;
    let entry = |(addr, rest)| {
        let PackedDesc { addr, len, id, flags } = PackedDesc::from_words(addr, rest);
        Desc { addr, len, flags, next: id }
    };
    Ok(words.into_iter().map(entry).collect())
}

fn model(ring: &[Desc], start: At, table: &[Desc]) -> Outcome {
    let (mut at, mut room) = (start, ring.len());
    let (mut chains, mut ids, mut fault) = (Vec::new(), Vec::new(), None);
    while room > 0 && fault.is_none() && ring[at.at].flags & ABSENT == 0 {
        match chain(ring, &mut at, &mut room, table) {
            Ok((bytes, id)) => {
                chains.push(bytes);
                ids.push(id);
            }
            Err(f) => fault = Some(f),
        }
    }
    // An id that comes twice is found out when the buffers go back.
    if (1..ids.len()).any(|i| ids[..i].contains(&ids[i])) {
        fault = fault.or(Some(Fault::BufferId));
    }
    Outcome::of(&chains, fault)
}

/// Puts the ring there as it is seen from `start`, and compares.
fn check(rig: &mut Rig, ring: &[Desc], start: At, table: &[Desc]) {
    for (at, desc) in ring.iter().enumerate() {
        let wrap = start.wrap ^ (at < start.at);
        let round = match (desc.flags & ABSENT != 0, wrap) {
            (false, true) | (true, false) => DESC_F_AVAIL,
            (false, false) | (true, true) => DESC_F_USED,
        };
        let flags = desc.flags & !ABSENT | round;
        let PackedDesc { addr, len, id, .. } =
            PackedDesc { addr: desc.addr, len: desc.len, id: desc.next, flags };
        rig.set_words(at, addr, PackedDesc { addr, len, id, flags }.rest_word());
    }
    let base = Position { at: start.at as u16, wrap: start.wrap }.base();
    rig.start(ring.len() as u16, base, F_RING_PACKED | F_INDIRECT_DESC);
    let want = model(ring, start, table);
    assert_eq!(rig.burst(), want, "at {}, {} of {ring:x?}, table {table:x?}", start.at, start.wrap);
}

fn every_start(size: usize) -> impl Iterator<Item = At> {
    (0..size).flat_map(|at| [At { at, wrap: true }, At { at, wrap: false }])
}

/// Every id with every descriptor: only a chain's last one counts, and it need not be the last.
fn with_ids(all: &[Desc], ids: &[u16]) -> Vec<Desc> {
    all.iter().flat_map(|desc| ids.iter().map(|&next| Desc { next, ..*desc })).collect()
}

fn set_table(rig: &Rig, table: &[Desc]) {
    let words = |d: &Desc| PackedDesc { addr: d.addr, len: d.len, id: d.next, flags: d.flags };
    rig.set_table(&table.iter().map(|d| (d.addr, words(d).rest_word())).collect::<Vec<_>>());
}

/// Header and frame in two entries.
fn sound_table() -> [Desc; 2] {
    [
        Desc { addr: BUFFERS[0].0, len: 12, flags: 0, next: 9 },
        Desc { addr: BUFFERS[1].0, len: 30, flags: WRITE, next: 9 },
    ]
}

#[test]
fn v36_every_packed_ring_of_one_and_two() {
    let mut rig = Rig::new();
    let table = sound_table();
    set_table(&rig, &table);
    let flags = [0, WRITE, NEXT, NEXT | INDIRECT];
    let mut all = alphabet(&BUFFERS, &flags, &[0]);
    all.extend(alphabet(&TABLES, &[INDIRECT], &[0]));
    all.extend(alphabet(&BUFFERS[1..2], &[ABSENT], &[0]));
    let all = with_ids(&all, &[0, 1, 2]);
    for size in [1, 2] {
        every_table(&all, size, |ring| {
            every_start(size).for_each(|start| check(&mut rig, ring, start, &table));
        });
    }
}

#[test]
fn v11_every_way_through_a_packed_ring_of_three_and_four() {
    let mut rig = Rig::new();
    let mut all = alphabet(&[BUFFERS[1]], &[0, NEXT], &[0]);
    all.extend(alphabet(&[BUFFERS[2]], &[NEXT], &[0]));
    let mut all = with_ids(&all, &[0, 2, 4]);
    all.extend(alphabet(&BUFFERS[1..2], &[ABSENT, ABSENT | NEXT], &[0]));
    for size in [3, 4] {
        every_table(&all, size, |ring| {
            let starts = every_start(size).filter(|start| size == 3 || start.at == 2);
            starts.for_each(|start| check(&mut rig, ring, start, &[]));
        });
    }
}

#[test]
fn v26_every_indirect_table_of_a_packed_ring() {
    let mut rig = Rig::new();
    let flags = [0, WRITE, INDIRECT, NEXT];
    for count in 1..=3u16 {
        let all = alphabet(if count < 3 { &BUFFERS } else { &BUFFERS[1..5] }, &flags, &[0]);
        every_table(&all, count.into(), |table| {
            set_table(&rig, table);
            let head = Desc { addr: TABLE, len: 16 * u32::from(count), flags: INDIRECT, next: 3 };
            let absent = Desc { flags: ABSENT, ..Desc::default() };
            check(&mut rig, &[absent, head, absent, absent], At { at: 1, wrap: true }, table);
        });
    }
}

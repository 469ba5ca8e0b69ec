//! What a guest receives by a split ring (virtio 1.3 §2.7.4, §5.1.6.3): one frame into every pair of buffers.

use super::rig::{HEADER, LOW, Rig, TABLE, bytes, words};
use super::{BUFFERS, INDIRECT, NEXT, WRITE, alphabet, every_table};
use crate::vring::Fault;
use crate::wire::net::{F_INDIRECT_DESC, F_MRG_RXBUF};
use crate::wire::ring::Desc;

/// Longer than any one buffer but two.
const FRAME: usize = 40;

/// Where the bytes of the chain at `head` lie, one after the other. The table at [`TABLE`] is `table`.
fn chain(ring: &[Desc], head: u16, table: &[Desc]) -> Result<Vec<u64>, Fault> {
    let first = *ring.get(usize::from(head)).ok_or(Fault::DescIndex)?;
    let (entries, mut at) = if first.flags & INDIRECT != 0 { (table, 0) } else { (ring, usize::from(head)) };
    if entries.len() > ring.len() {
        return Err(Fault::Indirect);
    }
    let mut found = Vec::new();
    for steps in 1.. {
        let Desc { addr, len, flags, next } = entries[at];
        if flags & WRITE == 0 {
            return Err(Fault::Direction);
        }
        bytes(addr, len).ok_or(Fault::Address)?;
        found.extend(addr..addr + u64::from(len));
        if flags & NEXT == 0 {
            break;
        }
        at = next.into();
        if at >= entries.len() {
            return Err(Fault::DescIndex);
        }
        if steps == ring.len() {
            return Err(Fault::ChainTooLong);
        }
    }
    Ok(found)
}

/// What becomes of the frame.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Bytes of it and its header written, by buffer: heads and lengths.
    Sent(Vec<(u32, u32)>),
    Dropped,
    /// It waits for more buffers.
    Stays,
    Broken(Fault),
}

/// The frame's fate, and guest memory behind it.
fn model(
    ring: &[Desc],
    heads: &[u16],
    table: &[Desc],
    mergeable: bool,
    memory: &mut [u8],
    frame: &[u8],
) -> Fate {
    let mut places: Vec<u64> = Vec::new();
    let mut used = Vec::new();
    let need = HEADER + frame.len();
    for &head in heads {
        let room = match chain(ring, head, table) {
            Ok(room) => room,
            Err(fault) => return Fate::Broken(fault),
        };
        if mergeable && room.len() < HEADER {
            return Fate::Broken(Fault::BufferTooShort);
        }
        let part = room.len().min(need - places.len());
        places.extend(&room[..part]);
        used.push((head.into(), part as u32));
        if places.len() == need {
            break;
        }
        if !mergeable {
            return Fate::Dropped;
        }
    }
    if places.len() < need {
        return Fate::Stays;
    }
    let header = [[0; 10].as_slice(), &(used.len() as u16).to_le_bytes()].concat();
    for (place, byte) in places.into_iter().zip(header.iter().chain(frame)) {
        memory[(place - LOW) as usize] = *byte;
    }
    Fate::Sent(used)
}

fn check(rig: &mut Rig, before: &[u8], ring: &[Desc], heads: &[u16], table: &[Desc], mergeable: bool) {
    for (at, desc) in ring.iter().enumerate() {
        let (addr, rest) = words(desc);
        rig.set_words(at, addr, rest);
    }
    rig.offer(heads);
    rig.start(ring.len() as u16, 0, F_INDIRECT_DESC | if mergeable { F_MRG_RXBUF } else { 0 });
    let frame: Vec<u8> = (0..FRAME as u8).map(|i| 0x80 | i).collect();
    let mut memory = before.to_vec();
    let want = model(ring, heads, table, mergeable, &mut memory, &frame);
    let got = match rig.send(&frame) {
        (_, _, Some(fault)) => Fate::Broken(fault),
        (false, ..) => Fate::Stays,
        (true, true, _) => Fate::Dropped,
        (true, false, _) => Fate::Sent(rig.used()),
    };
    assert_eq!(got, want, "{heads:?} of {ring:x?}, table {table:x?}, mergeable: {mergeable}");
    assert!(rig.memory() == memory, "other bytes than it had: {heads:?} of {ring:x?}, table {table:x?}");
    if matches!(want, Fate::Sent(_)) {
        rig.set_memory(before);
    } else {
        assert_eq!(rig.used(), [], "nothing was given back");
    }
}

#[test]
fn v25_every_pair_of_buffers_to_receive_into() {
    let mut rig = Rig::new();
    let table = [
        Desc { addr: BUFFERS[0].0, len: 12, flags: WRITE | NEXT, next: 1 },
        Desc { addr: BUFFERS[4].0, len: 64, flags: WRITE, next: 0 },
    ];
    rig.set_table(&table.map(|desc| words(&desc)));
    let before = rig.memory();
    let mut all = alphabet(&BUFFERS, &[WRITE, 0, WRITE | NEXT], &[0, 1, 2]);
    all.push(Desc { addr: TABLE, len: 32, flags: INDIRECT, next: 0 });
    for mergeable in [false, true] {
        every_table(&all, 1, |ring| check(&mut rig, &before, ring, &[0], &table, mergeable));
        every_table(&all, 2, |ring| {
            for heads in [[0, 1], [1, 1], [0, 2]] {
                // Within a ring a table is what a head names, never a later descriptor: those are the other tests'.
                let followed = |i: usize| ring[1 - i].flags & NEXT != 0 && usize::from(ring[1 - i].next) == i;
                if !(0..2).any(|i| ring[i].flags & INDIRECT != 0 && followed(i)) {
                    check(&mut rig, &before, ring, &heads, &table, mergeable);
                }
            }
        });
    }
}

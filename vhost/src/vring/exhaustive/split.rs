//! Split rings (virtio 1.3 §2.7.4, §2.7.5).

use super::rig::{Outcome, Rig, TABLE, bytes, table_words, words};
use super::{BUFFERS, INDIRECT, NEXT, TABLES, WRITE, alphabet, every_table};
use crate::vring::Fault;
use crate::wire::net::F_INDIRECT_DESC;
use crate::wire::ring::{DESC_SIZE, Desc};

/// The bytes of the chain at `head` of a ring that the device reads, or why there are none. `table` is the one that lies at
/// [`TABLE`].
fn model(ring: &[Desc], head: u16, table: &[Desc], negotiated: bool) -> Result<Vec<u8>, Fault> {
    let first = *ring.get(usize::from(head)).ok_or(Fault::DescIndex)?;
    let (entries, mut at) = if first.flags & INDIRECT != 0 {
        let count = first.len as usize / DESC_SIZE;
        let shaped = count * DESC_SIZE == first.len as usize && (1..=ring.len()).contains(&count);
        if !negotiated || first.flags & NEXT != 0 || !shaped {
            return Err(Fault::Indirect);
        }
        if first.addr == TABLE {
            (table[..count].to_vec(), 0)
        } else {
            let words = table_words(first.addr, first.len).ok_or(Fault::Address)?;
            (words.into_iter().map(|(addr, rest)| Desc::from_words(addr, rest)).collect(), 0)
        }
    } else {
        (ring.to_vec(), usize::from(head))
    };
    let mut chain = Vec::new();
    for steps in 1.. {
        let Desc { addr, len, flags, next } = entries[at];
        if flags & INDIRECT != 0 {
            return Err(Fault::Indirect);
        }
        if flags & WRITE != 0 {
            return Err(Fault::Direction);
        }
        chain.extend(bytes(addr, len).ok_or(Fault::Address)?);
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
    Ok(chain)
}

/// Puts the ring there, offers `head`, and compares.
fn check(rig: &mut Rig, ring: &[Desc], head: u16, table: &[Desc], features: u64) {
    for (at, desc) in ring.iter().enumerate() {
        let (addr, rest) = words(desc);
        rig.set_words(at, addr, rest);
    }
    rig.offer(&[head]);
    rig.start(ring.len() as u16, 0, features);
    let want = match model(ring, head, table, features & F_INDIRECT_DESC != 0) {
        Ok(chain) => Outcome::of(&[chain], None),
        Err(fault) => Outcome::of(&[], Some(fault)),
    };
    assert_eq!(rig.burst(), want, "head {head} of {ring:x?}, table {table:x?}");
}

/// Header and frame in two entries.
fn sound_table() -> [Desc; 2] {
    [
        Desc { addr: BUFFERS[0].0, len: 12, flags: NEXT, next: 1 },
        Desc { addr: BUFFERS[1].0, len: 30, flags: 0, next: 0 },
    ]
}

#[test]
fn i02_every_split_ring_of_one_and_two() {
    let mut rig = Rig::new();
    let table = sound_table();
    rig.set_table(&table.map(|desc| words(&desc)));
    let flags = [0, WRITE, INDIRECT, NEXT, NEXT | WRITE, NEXT | INDIRECT];
    let mut all = alphabet(&BUFFERS, &flags, &[0, 1, 2]);
    all.extend(alphabet(&TABLES, &[INDIRECT], &[0]));
    for size in [1, 2] {
        every_table(&all, size, |ring| {
            (0..=size as u16).for_each(|head| check(&mut rig, ring, head, &table, F_INDIRECT_DESC));
        });
    }
}

#[test]
fn v08_every_way_through_a_split_ring_of_four() {
    let mut rig = Rig::new();
    let nexts = [0, 1, 2, 3, 4, u16::MAX];
    let mut all = alphabet(&[BUFFERS[1], BUFFERS[2]], &[NEXT], &nexts);
    all.extend(alphabet(&[BUFFERS[1]], &[0], &[0]));
    every_table(&all, 4, |ring| check(&mut rig, ring, 0, &[], 0));
}

#[test]
fn v26_every_indirect_table_of_up_to_three() {
    let mut rig = Rig::new();
    let flags = [0, WRITE, INDIRECT, NEXT];
    let some = [BUFFERS[1], BUFFERS[3], BUFFERS[4], BUFFERS[7]];
    for count in 1..=3u16 {
        let all = alphabet(if count < 3 { &BUFFERS } else { &some[..2] }, &flags, &[0, 1, 2, 3]);
        every_table(&all, count.into(), |table| {
            rig.set_table(&table.iter().map(words).collect::<Vec<_>>());
            let head = Desc { addr: TABLE, len: 16 * u32::from(count), flags: INDIRECT, next: 0 };
            check(
                &mut rig,
                &[head, Desc::default(), Desc::default(), Desc::default()],
                0,
                table,
                F_INDIRECT_DESC,
            );
        });
    }
}

#[test]
fn v26_no_indirect_table_without_the_feature() {
    let mut rig = Rig::new();
    let table = sound_table();
    rig.set_table(&table.map(|desc| words(&desc)));
    for ring in alphabet(&TABLES, &[INDIRECT, INDIRECT | NEXT, INDIRECT | WRITE], &[0, 1]) {
        check(&mut rig, &[ring, Desc::default()], 0, &table, 0);
    }
}

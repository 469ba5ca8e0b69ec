//! Indirect tables that lie: V2, V9, V22, V26, and P1's odd but legal ones.

use vhost::wire::net::F_INDIRECT_DESC;
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_SIZE, Desc};

use crate::attacker::{Attacker, Plan, Side, cut, part, set_entry};
use crate::chains::refused_in;
use crate::frames;
use crate::scene::{Scene, both, case};

/// Offers the descriptors that `lie` makes, on both rings; they stop for `fault`.
fn refused(scene: &mut Scene, plan: Plan, fault: &str, lie: impl Fn(&mut Attacker, Side) -> Vec<Desc>) {
    refused_in(scene, plan, fault, |attacker, side| {
        let chain = lie(attacker, side);
        attacker.side(side).lay_raw(&chain)
    });
}

/// The same for one descriptor, in both formats.
fn refused_in_both(fault: &str, lie: impl Fn(&mut Attacker, Side) -> Desc) {
    both(|scene, plan| refused(scene, plan, fault, |attacker, side| vec![lie(attacker, side)]));
}

/// The same on split rings, where a table's entries name each other.
fn refused_in_split(fault: &str, lie: impl Fn(&mut Attacker, Side) -> Desc) {
    case(|scene| refused(scene, Plan::default(), fault, |attacker, side| vec![lie(attacker, side)]));
}

/// A table of two good halves of a buffer.
fn halves(attacker: &Attacker, side: Side) -> Desc {
    let whole = attacker.frame(&frames::plain(100, 26));
    let [front, back] = [part(whole, 0, 50), part(whole, 50, 62)].map(|d| Desc { flags: side.flag(), ..d });
    attacker.indirect(&[front, back])
}

#[test]
fn v02_next_beyond_the_table() {
    refused_in_split("descriptor_index_out_of_range", |attacker, side| {
        let whole = attacker.frame(&frames::plain(100, 2));
        // 2 is in the ring's own table, but not in this one.
        attacker.indirect(&[
            Desc { flags: side.flag(), ..part(whole, 0, 9) },
            Desc { flags: side.flag() | DESC_F_NEXT, next: 2, ..whole },
        ])
    });
}

#[test]
fn v08_cycle_in_a_table() {
    refused_in_split("chain_too_long", |attacker, side| {
        let whole = Desc { flags: side.flag(), ..part(attacker.frame(&frames::plain(100, 8)), 0, 1) };
        attacker.indirect(&[whole, Desc { flags: whole.flags | DESC_F_NEXT, next: 0, ..whole }])
    });
}

/// As many entries as the ring has descriptors: legal.
#[test]
fn v09_table_as_long_as_the_ring() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let frame = frames::plain(256 - 12, 9);
        let table = attacker.indirect(&cut(attacker.frame(&frame), 1));
        attacker.tx.post(&[table]);
        scene.expect_at_y(&[frame]);
        attacker.tx.expect_used(1);
    });
}

#[test]
fn v09_table_longer_than_the_ring() {
    refused_in_both("bad_indirect_table", |attacker, side| {
        let whole = attacker.frame(&frames::plain(257 - 12, 9));
        attacker.indirect(&cut(Desc { flags: side.flag(), ..whole }, 1))
    });
}

#[test]
fn v26_table_within_a_table() {
    refused_in_both("bad_indirect_table", |attacker, side| {
        let inner = halves(attacker, side);
        attacker.indirect(&[inner])
    });
}

#[test]
fn v26_table_chained_on() {
    refused_in_both("bad_indirect_table", |attacker, side| {
        let table = halves(attacker, side);
        Desc { flags: DESC_F_INDIRECT | DESC_F_NEXT, next: 1, ..table }
    });
}

#[test]
fn v26_length_is_no_multiple_of_16() {
    for off in [1, 8, 15, 17] {
        refused_in_both("bad_indirect_table", |attacker, side| Desc { len: off, ..halves(attacker, side) });
    }
}

#[test]
fn v26_empty_table() {
    refused_in_both("bad_indirect_table", |attacker, side| Desc { len: 0, ..halves(attacker, side) });
}

#[test]
fn v26_table_of_4_gib() {
    refused_in_both("bad_indirect_table", |attacker, side| Desc {
        len: 0xffff_fff0,
        ..halves(attacker, side)
    });
}

#[test]
fn v26_table_outside_of_memory() {
    refused_in_both("buffer_outside_memory", |attacker, side| Desc {
        addr: 0x1000,
        ..halves(attacker, side)
    });
}

#[test]
fn v26_not_negotiated() {
    both(|scene, plan| {
        let plan = plan.without(F_INDIRECT_DESC);
        refused(scene, plan, "bad_indirect_table", |attacker, side| vec![halves(attacker, side)]);
    });
}

/// A table in the middle of a chain of the ring's own descriptors.
#[test]
fn v26_table_behind_a_plain_descriptor() {
    both(|scene, plan| {
        refused(scene, plan, "bad_indirect_table", |attacker, side| {
            let table = halves(attacker, side);
            let whole = attacker.frame(&frames::plain(100, 26));
            vec![Desc { flags: side.flag() | DESC_F_NEXT, next: 1, ..part(whole, 0, 20) }, table]
        });
    });
}

/// Legal, if odd: a table at any address (its alignment is nowhere asked for), its entries linked back to front.
#[test]
fn p01_unaligned_table_linked_backwards() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let frame = frames::plain(300, 1);
        let whole = attacker.frame(&frame);
        let aligned = attacker.ram.alloc(4 * DESC_SIZE, 64).expect("room");
        let pieces = [part(whole, 200, 112), part(whole, 100, 100), part(whole, 0, 100)];
        let links = [(0, 0), (DESC_F_NEXT, 0), (DESC_F_NEXT, 1)];
        // Entry 0 is the head, so entries are put in the order 2, 1, 0 behind it by one more of no bytes.
        set_entry(&aligned, 0, Desc { flags: DESC_F_NEXT, next: 3, ..part(whole, 0, 0) });
        for (i, (piece, (flags, next))) in pieces.iter().zip(links).enumerate() {
            set_entry(&aligned, i + 1, Desc { flags, next: next + 1, ..*piece });
        }
        let mut bytes = vec![0; aligned.len()];
        aligned.read(0, &mut bytes);
        let odd = attacker.ram.alloc(bytes.len() + 8, 64).expect("room");
        odd.write(3, &bytes);
        let addr = odd.gpa() + 3;
        attacker.tx.post(&[Desc { addr, len: bytes.len() as u32, flags: DESC_F_INDIRECT, next: 0 }]);
        scene.expect_at_y(&[frame]);
        attacker.tx.expect_used(1);
    });
}

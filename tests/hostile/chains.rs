//! Descriptor chains that lie, sent: V2, V8 to V10, V15, V16, V18 to V20, V25, V40.

use pmd::DropReason;
use vhost::driver::NetHdr;
use vhost::wire::ring::{DESC_F_NEXT, DESC_F_WRITE, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side, cut, largest, part, read, write};
use crate::frames;
use crate::scene::{Scene, both, case};

/// Offers a chain of what `lie` makes up, on both rings; they stop for `fault`, and nothing else happens. In both formats.
fn refused(fault: &str, lie: impl Fn(&mut Attacker, Side) -> Vec<Desc>) {
    both(|scene, plan| {
        refused_in(scene, plan, fault, |attacker, side| {
            let chain = lie(attacker, side);
            attacker.side(side).lay_raw(&chain)
        });
    });
}

/// The same with a table that `lie` writes, of which head 0 is offered. Only split rings have such tables.
fn refused_in_table(fault: &str, lie: impl Fn(&mut Attacker, Side)) {
    case(|scene| {
        refused_in(scene, Plan::default(), fault, |attacker, side| {
            lie(attacker, side);
            0
        });
    });
}

/// Offers what `lie` has laid out.
pub(crate) fn refused_in(
    scene: &mut Scene,
    plan: Plan,
    fault: &str,
    lie: impl Fn(&mut Attacker, Side) -> u16,
) {
    let mut attacker = Attacker::start(scene, plan);
    let (tx, rx) = (lie(&mut attacker, Side::Tx), lie(&mut attacker, Side::Rx));
    attacker.picture();
    attacker.tx.offer(tx);
    scene.expect_ring("tx0", fault);
    attacker.tx.expect_used(0);
    attacker.rx.offer(rx);
    scene.y_sends_plain(1, 60);
    scene.expect_ring("rx0", fault);
    attacker.rx.expect_used(0);
    attacker.judge();
    scene.expect_nothing_at_y();
}

/// A buffer of the ring's direction that is legal in itself.
fn buffer(attacker: &Attacker, side: Side, len: usize) -> Desc {
    let span = attacker.ram.alloc(len, 64).expect("room");
    span.fill(0, len, 0);
    Desc { flags: side.flag(), ..read(&span) }
}

#[test]
fn v02_next_is_the_queue_size() {
    refused_in_table("descriptor_index_out_of_range", |attacker, side| {
        let desc = buffer(attacker, side, 8);
        attacker.side(side).ring().set_desc(0, Desc { flags: desc.flags | DESC_F_NEXT, next: 256, ..desc });
    });
}

#[test]
fn v02_next_is_ffff() {
    refused_in_table("descriptor_index_out_of_range", |attacker, side| {
        let desc = buffer(attacker, side, 8);
        attacker
            .side(side)
            .ring()
            .set_desc(0, Desc { flags: desc.flags | DESC_F_NEXT, next: 0xffff, ..desc });
    });
}

/// A cycle of `n` descriptors, from the first on: walked as many steps as the ring has descriptors.
fn cycle(n: u16) {
    refused_in_table("chain_too_long", |attacker, side| {
        let desc = buffer(attacker, side, 1);
        for i in 0..n {
            let next = (i + 1) % n;
            attacker.side(side).ring().set_desc(i, Desc { flags: desc.flags | DESC_F_NEXT, next, ..desc });
        }
    });
}

#[test]
fn v08_next_is_itself() {
    cycle(1);
}

#[test]
fn v08_two_in_a_cycle() {
    cycle(2);
}

#[test]
fn v08_chain_cycle() {
    cycle(256);
}

/// Sends `frame` in pieces of one byte; it arrives.
fn in_single_bytes(scene: &mut Scene, plan: Plan, len: usize) {
    let mut attacker = Attacker::start(scene, plan);
    let frame = frames::plain(len - 12, 9);
    let buffer = attacker.frame(&frame);
    let head = attacker.tx.lay(&cut(buffer, 1));
    attacker.picture();
    attacker.tx.offer(head);
    scene.expect_at_y(&[frame]);
    assert_eq!(attacker.tx.expect_used(1), [(0, 0)]);
    attacker.judge();
}

/// A chain of as many descriptors as the ring has is legal.
#[test]
fn v09_chain_of_the_whole_ring() {
    both(|scene, plan| in_single_bytes(scene, plan, 256));
}

/// As many segments as a careless host has room for, and one more.
#[test]
fn v10_segments_256_257_1024() {
    both(|scene, plan| {
        for segments in [256, 257, 1024] {
            in_single_bytes(scene, Plan { size: 1024, ..plan }, segments);
        }
    });
}

/// One more than 1,024 is legal in a larger ring; policy: dropped, completed, and the ring goes on (decision 0005).
#[test]
fn v10_segments_1025() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, Plan { size: 2048, ..plan });
        let frame = frames::plain(1025 - 12, 10);
        let buffer = attacker.frame(&frame);
        attacker.tx.post(&cut(buffer, 1));
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
        scene.expect_dropped(DropReason::RxBadDescriptor, 1);
        attacker.tx.expect_used(2);
        assert_eq!(scene.x_ring("tx0"), "running");
    });
}

#[test]
fn v15_zero_length_pieces() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let frame = frames::plain(400, 15);
        let whole = attacker.frame(&frame);
        let (empty, outside) = (part(whole, 0, 0), Desc { addr: u64::MAX, len: 0, ..whole });
        let (front, back) = (part(whole, 0, 100), part(whole, 100, whole.len - 100));
        for chain in
            [[empty, front, back], [front, empty, back], [front, back, empty], [outside, front, back]]
        {
            attacker.tx.post(&chain);
        }
        scene.expect_at_y(&vec![frame.clone(); 4]);
        attacker.tx.post(&[empty]);
        attacker.tx.post(&[empty; 200]);
        scene.expect_dropped(DropReason::RxTooShort, 2);
        attacker.tx.expect_used(6);
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
    });
}

/// I3: 32,768 heads, each of a chain of 32,767 empty descriptors. Legal as far as the ring goes; to walk them all takes a
/// thousand million steps. A turn walks 1,024, whatever they hold (policy: dropped as too long).
#[test]
fn v15_empty_chains_fill_the_largest_ring() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, largest());
        let frame = frames::plain(60, 15);
        let good = attacker.frame(&frame);
        let last = attacker.plan.size - 1;
        for i in 0..last - 1 {
            attacker.tx.ring().set_desc(i, Desc { addr: GPA, len: 0, flags: DESC_F_NEXT, next: i + 1 });
        }
        attacker.tx.ring().set_desc(last - 1, Desc { addr: GPA, len: 0, flags: 0, next: 0 });
        attacker.tx.ring().set_desc(last, good);
        (0..2000).for_each(|_| attacker.tx.stage(0));
        attacker.tx.stage(last);
        attacker.tx.publish();
        scene.expect_at_y(&[frame]);
        scene.expect_dropped(DropReason::RxBadDescriptor, 2000);
        attacker.tx.expect_used(2001);
    });
}

#[test]
fn v16_header_and_no_payload() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let header = read(&attacker.place(&[0; 12]));
        attacker.tx.post(&[header]);
        attacker.tx.post(&cut(header, 5));
        scene.expect_dropped(DropReason::RxTooShort, 2);
        attacker.tx.expect_used(2);
        scene.expect_nothing_at_y();
    });
}

/// 4 GiB from anywhere in 1 MiB.
#[test]
fn v18_length_of_4_gib() {
    refused("buffer_outside_memory", |attacker, side| {
        vec![Desc { len: u32::MAX, ..buffer(attacker, side, 100) }]
    });
}

/// Sums at and around 2³², each piece inside of memory: I6, summed without wrapping; policy: dropped as too long.
#[test]
fn v18_sums_around_4_gib() {
    both(|scene, plan| {
        let plan = Plan { ram_bytes: 64 << 20, ..plan };
        let mut attacker = Attacker::start(scene, plan);
        let all = Desc { addr: GPA, len: 64 << 20, flags: 0, next: 0 };
        let frame = frames::plain(100, 18);
        let good = attacker.frame(&frame);
        let mut sums = 0;
        for rest in [all.len - 1, all.len] {
            let mut chain = vec![all; 63];
            chain.push(part(all, 0, rest));
            attacker.tx.post(&chain);
            sums += 1;
        }
        // 2³² and a good frame's length: what is left if the sum wraps.
        attacker.tx.post(&[vec![good], vec![all; 64]].concat());
        sums += 1;
        scene.expect_dropped(DropReason::RxTooLong, sums);
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
        attacker.tx.expect_used(sums as u16 + 1);
    });
}

/// The longest frame is 64 KiB of IP packet, Ethernet and two tags; one byte more is too long.
#[test]
fn v18_the_longest_frame_and_one_byte_more() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        const LONGEST: usize = 65_535 + 14 + 8;
        let frame = frames::plain(LONGEST, 18);
        let buffer = attacker.frame(&frames::plain(LONGEST + 1, 19));
        attacker.tx.post(&[buffer]);
        attacker.tx.post(&cut(buffer, 1000));
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
        scene.expect_dropped(DropReason::RxTooLong, 2);
        attacker.tx.expect_used(3);
    });
}

/// 16 MiB by naming 64 KiB 256 times.
#[test]
fn v19_one_buffer_256_times() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let buffer = buffer(&attacker, Side::Tx, 65_536);
        let head = attacker.tx.lay(&[buffer; 256]);
        attacker.picture();
        // A packed ring is full of one of them.
        let at_once = if plan.is_packed() { 1 } else { 256 };
        for n in 1..=256 / at_once {
            (0..at_once).for_each(|_| attacker.tx.stage(head));
            attacker.tx.publish();
            attacker.tx.expect_used(n * at_once);
        }
        scene.expect_dropped(DropReason::RxTooLong, 256);
        attacker.judge();
        assert!(scene.pool.balance().out < 1024, "mbufs of a chain are bounded");
        scene.expect_nothing_at_y();
    });
}

#[test]
fn v20_address_0() {
    refused("buffer_outside_memory", |attacker, side| vec![Desc { addr: 0, ..buffer(attacker, side, 100) }]);
}

#[test]
fn v20_address_at_the_end_of_all() {
    refused("buffer_outside_memory", |attacker, side| {
        vec![Desc { addr: u64::MAX, ..buffer(attacker, side, 100) }]
    });
}

/// addr + len is 2⁶⁴ and something, and lies in memory if it wraps.
#[test]
fn v20_end_wraps() {
    refused("buffer_outside_memory", |attacker, side| {
        vec![Desc { addr: u64::MAX - 49, ..buffer(attacker, side, 100) }]
    });
}

/// One byte before the RAM, and one byte behind it.
#[test]
fn v20_one_byte_outside() {
    refused("buffer_outside_memory", |_, side| {
        vec![Desc { addr: GPA - 1, len: 100, flags: side.flag(), next: 0 }]
    });
    refused("buffer_outside_memory", |attacker, side| {
        let end = GPA + attacker.ram.bytes() as u64;
        vec![Desc { addr: end - 99, len: 100, flags: side.flag(), next: 0 }]
    });
}

/// A buffer of the wrong direction; read-only bytes stay as they are.
#[test]
fn v25_wrong_direction() {
    refused("buffer_direction", |attacker, side| {
        let desc = buffer(attacker, side, 100);
        vec![Desc { flags: desc.flags ^ DESC_F_WRITE, ..desc }]
    });
}

/// The wrong direction further down the chain: readable after writable and the other way round.
#[test]
fn v25_wrong_direction_behind_a_right_one() {
    refused("buffer_direction", |attacker, side| {
        let desc = buffer(attacker, side, 30);
        vec![
            Desc { flags: desc.flags | DESC_F_NEXT, next: 1, ..desc },
            Desc { flags: desc.flags ^ DESC_F_WRITE, ..desc },
        ]
    });
}

/// Chains shorter than a header and an Ethernet header.
#[test]
fn v40_shorter_than_the_header() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let buffer = attacker.frame(&frames::plain(60, 40));
        let lengths = [1, 9, 10, 11, 12, 13, 25];
        for len in lengths {
            attacker.tx.post(&[part(buffer, 0, len)]);
            attacker.tx.post(&cut(part(buffer, 0, len), 4));
        }
        scene.expect_dropped(DropReason::RxTooShort, 2 * lengths.len() as u64);
        attacker.tx.expect_used(2 * lengths.len() as u16);
        scene.expect_nothing_at_y();
    });
}

/// A header that speaks of more than there is.
#[test]
fn v40_header_claims_more_than_there_is() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan.with(crate::headers::OFFLOADS));
        let hdr = NetHdr {
            flags: 1,
            gso_type: 1,
            hdr_len: 54,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        };
        let short = attacker.packet(hdr, &frames::plain(20, 40));
        let buffer = read(&attacker.place(&short));
        attacker.tx.post(&[buffer]);
        attacker.tx.post(&cut(buffer, 3));
        scene.expect_dropped(DropReason::RxBadOffload, 2);
        attacker.tx.expect_used(2);
        scene.expect_nothing_at_y();
    });
}

/// Both rings at once hold one writable and one readable half of the same memory.
#[test]
fn v28_one_buffer_on_both_rings() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.place(&attacker.packet(NetHdr::default(), &frames::plain(200, 28)));
        attacker.allow(&span);
        attacker.rx.post(&[write(&span)]);
        attacker.picture();
        scene.y_sends_plain(1, 200);
        attacker.tx.post(&[read(&span)]);
        attacker.tx.expect_used(1);
        attacker.rx.expect_used(1);
        scene.discard_at_y();
    });
}

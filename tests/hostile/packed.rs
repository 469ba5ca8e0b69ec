//! What only packed rings can lie about: V11, V12, V15, V17, V28, V36, V37, K7; and P1's odd but legal ones.
//! All that both formats have is in the other files ([`both`](crate::scene::both)).

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pmd::DropReason;
use vhost::driver::{FrontEndError, PackedRing};
use vhost::wire::net::F_EVENT_IDX;
use vhost::wire::packed::{
    DESC_F_AVAIL, DESC_F_USED, EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, PackedDesc, Position,
};
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side, cut, part, read, write};
use crate::chains::refused_in;
use crate::frames;
use crate::numbers::Numbers;
use crate::packed_races::PACKED_FAULTS;
use crate::races::racing;
use crate::scene::{Scene, case, eventually, race_time};

/// What breaks a ring of mergeable buffers that are shorter than the header (virtio 1.3 §5.1.6.3.1).
pub(crate) const SHORT: &str = "mergeable_buffer_too_short";

/// A whole round of available descriptors, each with these flags, that lead nowhere but on.
fn full_round(raw: &PackedRing, start: Position, each: impl Fn(u16) -> PackedDesc) {
    for i in (0..raw.size()).rev() {
        let at = start.after(i, raw.size());
        let desc = each(i);
        raw.set_desc(at.at, PackedDesc { flags: desc.flags | at.available_flags(), ..desc });
    }
}

/// Writes descriptors by hand from the start on; the ring stops for `fault`, with so many of them back.
fn by_hand(size: u16, fault: &str, back: RangeInclusive<u16>, write: impl Fn(&Attacker, Side)) {
    for side in [Side::Tx, Side::Rx] {
        case(|scene| {
            let mut attacker = Attacker::start(scene, Plan { size, ..Plan::packed().largest() });
            write(&attacker, side);
            eventually(fault, || {
                if side == Side::Rx {
                    scene.y_sends_plain(4, 60);
                }
                scene.x_ring(side.name()) == fault
            });
            let ring = attacker.side(side).packed();
            let is_used = |at| {
                let flags = ring.desc(at).flags;
                flags & Position::START.used_flags() == Position::START.used_flags()
            };
            let used = (0..size).take_while(|&at| is_used(at)).count() as u16;
            assert!(back.contains(&used), "{used} used on {}", side.name());
            scene.discard_at_y();
        });
    }
}

/// A buffer of the side's direction, legal in itself.
pub(crate) fn sound(attacker: &Attacker, side: Side, len: usize) -> PackedDesc {
    let span = attacker.ram.alloc(len, 64).expect("room");
    span.fill(0, len, crate::attacker::CANARY);
    span.fill(0, 12.min(len), 0);
    PackedDesc { addr: span.gpa(), len: len as u32, id: 0, flags: side.flag() }
}

#[test]
fn v11_next_in_every_descriptor() {
    for size in [1, 3, 256, 1024] {
        by_hand(size, "chain_too_long", 0..=0, chain_without_end);
    }
}

fn chain_without_end(attacker: &Attacker, side: Side) {
    let desc = sound(attacker, side, 1);
    let raw = if side == Side::Rx { &attacker.rx } else { &attacker.tx };
    full_round(raw.packed(), Position::START, |_| PackedDesc { flags: desc.flags | DESC_F_NEXT, ..desc });
}

/// In larger rings a frame that comes in is dropped after 1,024 steps. What is sent is walked to the end, to find the next.
#[test]
fn v11_next_in_every_descriptor_of_the_largest_ring() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::packed().largest());
        chain_without_end(&attacker, Side::Tx);
        scene.expect_ring("tx0", "chain_too_long");
        chain_without_end(&attacker, Side::Rx);
        scene.y_sends_plain(3, 60);
        scene.expect_dropped(DropReason::TxTooLong, 3);
        assert_eq!(scene.x_ring("rx0"), "running");
        attacker.tx.expect_used(0);
        attacker.rx.expect_used(0);
        attacker.front.vring_base(0).expect("it stops");
    });
}

/// Chains of all lengths over the end of the ring, from each position before it: legal.
#[test]
fn v12_chains_across_the_wrap() {
    case(|scene| {
        for size in [8u16, 13] {
            for base in 0..2 * size {
                let mut attacker = Attacker::start(scene, Plan { size, base, ..Plan::packed() });
                for pieces in [size, 3, 1, 2] {
                    let frame = frames::plain(100 + usize::from(pieces), base.into());
                    let buffer = attacker.frame(&frame);
                    let piece = buffer.len.div_ceil(u32::from(pieces));
                    attacker.tx.post(&cut(buffer, piece));
                    scene.expect_at_y(&[frame]);
                }
                attacker.tx.expect_used(4);
                let span = attacker.ram.alloc(300, 64).expect("room");
                attacker.rx.post(&cut(write(&span), 300 / u32::from(size - 2)));
                scene.y_sends_plain(1, 200);
                assert_eq!(attacker.rx.expect_used(1), [(0, 212)], "size {size}, base {base}");
            }
        }
    });
}

/// The chain's third descriptor says that it is not available, or of another round.
#[test]
fn v12_wrap_bit_flipped_in_mid_chain() {
    for lie in [DESC_F_AVAIL | DESC_F_USED, DESC_F_AVAIL, DESC_F_USED] {
        by_hand(8, "chain_not_available", 0..=0, |attacker, side| {
            let desc = sound(attacker, side, 10);
            let raw = if side == Side::Rx { &attacker.rx } else { &attacker.tx };
            full_round(raw.packed(), Position::START, |i| {
                let more = if i < 5 { DESC_F_NEXT } else { 0 };
                PackedDesc { flags: desc.flags | more, ..desc }
            });
            let third = raw.packed().desc(2);
            raw.packed().set_desc(2, PackedDesc { flags: third.flags ^ lie, ..third });
        });
    }
}

/// I3: a chain of 32,767 empty descriptors, and a good frame behind it. More than 1,024 are not dealt with (policy: dropped as
/// too long), but they are walked, as only the last one says where the next chain starts: once a round, all in all.
#[test]
fn v15_empty_descriptors_fill_the_largest_ring() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::packed().largest());
        let frame = frames::plain(60, 15);
        let good = attacker.frame(&frame);
        let empty = Desc { addr: GPA, len: 0, flags: 0, next: 0 };
        let long = attacker.tx.lay(&vec![empty; 32_767]);
        let good = attacker.tx.lay(&[good]);
        for n in 1..=20u16 {
            attacker.tx.stage(long);
            attacker.tx.offer(good);
            scene.expect_at_y(std::slice::from_ref(&frame));
            attacker.tx.expect_used(2 * n);
        }
        scene.expect_dropped(DropReason::RxBadDescriptor, 20);
    });
}

/// The same where frames come in: none fits, and none is waited for.
#[test]
fn v15_empty_buffers_fill_the_largest_ring() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::packed().largest());
        let empty = Desc { addr: GPA, len: 0, flags: DESC_F_WRITE, next: 0 };
        attacker.rx.post(&vec![empty; 32_768]);
        scene.y_sends_plain(64, 60);
        let dropped = |scene: &Scene| {
            [DropReason::TxTooLong, DropReason::TxFull]
                .map(|reason| scene.dropped(reason))
                .iter()
                .sum::<u64>()
        };
        eventually("all dropped", || dropped(scene) == 64);
        attacker.rx.expect_used(0);
    });
}

/// An address outside of memory with no bytes, in each place of a group of four that others read as one: not a byte is read
/// there, and its neighbours arrive.
#[test]
fn v17_no_bytes_from_nowhere_in_a_group_of_four() {
    for place in 0..4usize {
        case(|scene| {
            let mut attacker = Attacker::start(scene, Plan::packed());
            let good: Vec<_> = (0..4).map(|tag| frames::plain(60, tag)).collect();
            for (i, frame) in good.iter().enumerate() {
                let buffer = attacker.frame(frame);
                let nowhere = Desc { addr: u64::MAX - 7, len: 0, ..buffer };
                let head = attacker.tx.lay(&[if i == place { nowhere } else { buffer }]);
                attacker.tx.stage(head);
            }
            attacker.picture();
            attacker.tx.publish();
            let rest: Vec<_> = (0..4).filter(|i| *i != place).map(|i| good[i].clone()).collect();
            scene.expect_at_y(&rest);
            scene.expect_dropped(DropReason::RxTooShort, 1);
            attacker.tx.expect_used(4);
            attacker.judge();
            // As a mergeable buffer for what comes in it is shorter than the header, and breaks the ring if it is looked at.
            let spans: Vec<_> = (0..3).map(|_| attacker.ram.alloc(256, 64).expect("room")).collect();
            let mut spans = spans.iter();
            for i in 0..4 {
                let nowhere = Desc { addr: u64::MAX - 7, len: 0, flags: DESC_F_WRITE, next: 0 };
                let buffer = if i == place { nowhere } else { write(spans.next().expect("three")) };
                attacker.rx.post(&[buffer]);
            }
            scene.y_sends_plain(3, 60);
            // The last one is not needed.
            scene.expect_ring("rx0", if place == 3 { "running" } else { SHORT });
            let used = attacker.rx.expect_used(place as u16);
            assert!(used.iter().all(|(_, len)| *len == 72), "{used:?}");
        });
    }
}

/// Flags that say anything but "available, in this round" are nothing: no turn looks further.
#[test]
fn v36_flags_that_lie() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::packed());
        let frame = frames::plain(60, 36);
        let buffer = attacker.frame(&frame);
        let desc = PackedDesc { addr: buffer.addr, len: buffer.len, id: 0, flags: 0 };
        attacker.picture();
        for lie in [0, DESC_F_USED, DESC_F_AVAIL | DESC_F_USED] {
            attacker.tx.packed().set_desc(0, PackedDesc { flags: lie, ..desc });
            scene.expect_nothing_at_y();
            assert_eq!(attacker.tx.packed().desc(0).flags, lie, "left alone");
        }
        // Good ones in the places behind are not looked at either.
        attacker.tx.packed().set_desc(1, PackedDesc { flags: DESC_F_AVAIL, ..desc });
        scene.expect_nothing_at_y();
        attacker.judge();
        attacker.tx.packed().set_desc(0, PackedDesc { flags: DESC_F_AVAIL, id: 7, ..desc });
        scene.expect_at_y(&vec![frame; 2]);
        assert_eq!(scene.x_ring("tx0"), "running");
    });
}

/// Ids that name no descriptor. Of what is sent the one before comes back; of what is received, too, if it was filled by an
/// earlier burst.
#[test]
fn v36_ids_out_of_range() {
    for id in [256, 0x7fff, 0xffff] {
        by_hand(256, "bad_buffer_id", 0..=1, |attacker, side| {
            let desc = sound(attacker, side, 100);
            let raw = if side == Side::Rx { &attacker.rx } else { &attacker.tx };
            full_round(raw.packed(), Position::START, |i| PackedDesc {
                id: if i == 0 { 0 } else { id },
                ..desc
            });
        });
    }
}

/// One id for all buffers: in each burst it comes back once, and that stops the ring.
#[test]
fn v36_duplicate_ids() {
    by_hand(32, "bad_buffer_id", 1..=31, |attacker, side| {
        let desc = sound(attacker, side, 100);
        let raw = if side == Side::Rx { &attacker.rx } else { &attacker.tx };
        full_round(raw.packed(), Position::START, |_| PackedDesc { id: 9, ..desc });
    });
}

#[test]
fn v36_a_table_that_goes_on() {
    case(|scene| {
        refused_in(scene, Plan::packed(), "bad_indirect_table", |attacker, side| {
            let whole = attacker.frame(&frames::plain(100, 36));
            let table = attacker.indirect(&[Desc { flags: side.flag(), ..whole }]);
            let rest = Desc { flags: side.flag(), ..whole };
            let chain = [Desc { flags: DESC_F_INDIRECT | DESC_F_NEXT, ..table }, rest];
            attacker.side(side).lay_raw(&chain)
        });
    });
}

/// Flags with all bits or reserved ones, events outside of the ring, all of it changing: at most that guest gets a call too
/// many or too few.
#[test]
fn v37_garbage_in_event_suppression() {
    for features in [0, F_EVENT_IDX] {
        case(|scene| {
            let mut attacker = Attacker::start(scene, Plan::packed().with(features));
            let ring = attacker.tx.packed().clone();
            let flip = |numbers: &mut Numbers| {
                ring.driver.store_u32(0, numbers.next() as u32);
                ring.driver.store_u16(2, numbers.pick(&[0, 1, 2, 3, 0xffff]), Ordering::Relaxed);
                ring.device.store_u32(0, numbers.next() as u32);
            };
            let frame = frames::plain(60, 37);
            let buffer = attacker.frame(&frame);
            racing(flip, || {
                for n in 1..=1000u16 {
                    attacker.tx.post(&[buffer]);
                    eventually("used", || attacker.tx.used() == n);
                }
            });
            assert_eq!(scene.frames_at_y(1000).len(), 1000);
            assert_eq!(scene.x_ring("tx0"), "running");
        });
    }
}

/// What the driver asked for it gets, at each position of two rounds: silence, every call, or the one at its descriptor.
#[test]
fn v37_calls_as_asked_for() {
    case(|scene| {
        let plan = Plan { size: 5, ..Plan::packed().with(F_EVENT_IDX) };
        let mut attacker = Attacker::start(scene, plan);
        let frame = frames::plain(60, 37);
        let buffer = attacker.frame(&frame);
        let called = |attacker: &Attacker| rustix::io::read(&attacker.tx.call, &mut [0; 8]).is_ok();
        // A ring that is set up or enabled calls once.
        called(&attacker);
        let mut next = Position::START;
        for n in 1..=40u16 {
            let (how, due) =
                [(EVENT_F_ENABLE, true), (EVENT_F_DISABLE, false), (EVENT_F_DESC, true), (3, true)]
                    [usize::from(n % 4)];
            attacker.tx.packed().set_driver_event(how, next);
            attacker.tx.post(&[buffer]);
            next = next.after(1, 5);
            attacker.tx.expect_used(n);
            if due {
                eventually("a call", || called(&attacker));
            } else {
                scene.expect_at_y(std::slice::from_ref(&frame));
                scene.expect_nothing_at_y();
                assert!(!called(&attacker), "nobody asked for call {n}");
            }
            scene.discard_at_y();
        }
    });
}

/// The buffers are the ring itself, and its event suppression, and the other ring's. Only the guest's own rings suffer.
#[test]
fn v28_buffers_are_the_rings_themselves() {
    for which in 0..6 {
        case(|scene| {
            let mut attacker = Attacker::start(scene, Plan::packed());
            let (rx, tx) = (attacker.rx.packed().clone(), attacker.tx.packed().clone());
            let target = [&rx.desc, &rx.driver, &rx.device, &tx.desc, &tx.driver, &tx.device][which].clone();
            for own in [&rx.desc, &rx.driver, &rx.device, &tx.desc, &tx.driver, &tx.device] {
                attacker.allow(own);
            }
            let head = attacker.rx.lay(&[write(&target)]);
            (0..64).for_each(|_| attacker.rx.stage(head));
            attacker.picture();
            attacker.rx.publish();
            scene.y_sends_plain(64, 300);
            let end = Instant::now() + race_time() / 10;
            while Instant::now() < end {
                scene.discard_at_y();
                std::thread::yield_now();
            }
            attacker.judge();
            for ring in ["rx0", "tx0"] {
                let state = scene.x_ring(ring);
                assert!(state == "running" || PACKED_FAULTS.contains(&state.as_str()), "{ring} is {state}");
            }
        });
    }
}

/// Legal, if odd: a table at any address, entries whose other flags and ids mean nothing, the header's among them marked as
/// writable, as DPDK's driver does.
#[test]
fn p01_tables_full_of_flags_that_mean_nothing() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::packed());
        let frame = frames::plain(300, 1);
        let whole = attacker.frame(&frame);
        let table = attacker.ram.alloc(4 * DESC_SIZE + 8, 64).expect("room");
        let pieces = [part(whole, 0, 12), part(whole, 12, 100), part(whole, 112, 0), part(whole, 112, 200)];
        let flags = [DESC_F_WRITE, DESC_F_NEXT | DESC_F_AVAIL, DESC_F_USED, DESC_F_NEXT];
        for (i, (piece, flags)) in pieces.iter().zip(flags).enumerate() {
            let desc = PackedDesc { addr: piece.addr, len: piece.len, id: 0xffff, flags };
            table.write(3 + i * DESC_SIZE, &desc.addr.to_le_bytes());
            table.write(3 + i * DESC_SIZE + 8, &desc.rest_word().to_le_bytes());
        }
        let len = 4 * DESC_SIZE as u32;
        attacker.tx.post(&[Desc { addr: table.gpa() + 3, len, flags: DESC_F_INDIRECT, next: 0 }]);
        scene.expect_at_y(&[frame]);
        attacker.tx.expect_used(1);
    });
}

/// K7: the ring goes on where a front end says after a crash. What is said to be in flight is begun anew.
#[test]
fn k07_base_with_buffers_in_flight() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 16, ..Plan::packed() });
        let frame = frames::plain(60, 7);
        let buffer = read(&attacker.place(&attacker.packet(Default::default(), &frame)));
        (0..10).for_each(|_| _ = attacker.tx.post(&[buffer]));
        attacker.tx.expect_used(10);
        scene.frames_at_y(10);
        assert_eq!(attacker.front.vring_base(1).expect("BASE"), 0x800a_800a);
        // As if the last two had been taken by somebody who died: they still say available.
        let ring = attacker.tx.packed();
        for at in 8..10 {
            let desc = PackedDesc { addr: buffer.addr, len: buffer.len, id: at, flags: DESC_F_AVAIL };
            ring.set_desc(at, desc);
        }
        attacker.front.set_vring_base(1, 0x8008_800a).expect("BASE");
        attacker.front.set_vring_addr(attacker.tx.addr(1)).expect("ADDR");
        attacker.front.set_vring_kick(1, Some(attacker.tx.kick.as_fd())).expect("KICK");
        scene.frames_at_y(2);
        scene.expect_nothing_at_y();
        assert_eq!(attacker.front.vring_base(1).expect("BASE"), 0x800a_800a);
        attacker.front.set_vring_base(1, 16).expect("judged when it starts");
        attacker.front.set_vring_addr(attacker.tx.addr(1)).expect("ADDR");
        let refused = attacker.front.set_vring_kick(1, Some(attacker.tx.kick.as_fd()));
        assert!(matches!(refused, Err(FrontEndError::Refused { .. })), "a position outside of the ring");
    });
}

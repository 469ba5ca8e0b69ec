//! What a guest posts to be written: V15, V28, V39, V41, V43, V44, H3, H18.

use pmd::DropReason;
use vhost::driver::Span;
use vhost::wire::net::{F_INDIRECT_DESC, F_MRG_RXBUF};
use vhost::wire::ring::{DESC_F_NEXT, DESC_F_WRITE, Desc};

use crate::attacker::{Attacker, CANARY, GPA, Plan, cut, largest, part, read, write};
use crate::packed::SHORT;
use crate::scene::{Scene, both, case, eventually, race_time};

/// What is left out where buffers are not mergeable, and whole.
const UNMERGED: u64 = F_MRG_RXBUF | F_INDIRECT_DESC;

/// Header and frame as they lie in a buffer.
fn lies_in(span: &Span, frame: &[u8]) {
    let mut bytes = vec![0; 12 + frame.len()];
    span.read(0, &mut bytes);
    assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "the header");
    assert!(bytes[12..] == *frame, "the frame");
}

/// Empty pieces around a good one count for nothing.
#[test]
fn v15_empty_pieces_in_a_chain() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.ram.alloc(256, 64).expect("room");
        attacker.allow(&span);
        let whole = write(&span);
        let (empty, outside) = (part(whole, 0, 0), Desc { addr: u64::MAX, len: 0, ..whole });
        attacker.rx.post(&[empty, part(whole, 0, 5), empty, outside, part(whole, 5, 251), empty]);
        attacker.picture();
        let sent = scene.y_sends_plain(1, 100);
        assert_eq!(attacker.rx.expect_used(1), [(0, 112)]);
        lies_in(&span, &sent[0]);
        attacker.judge();
    });
}

/// Buffers of no bytes are no room: as mergeable ones they break the ring, and without that a frame does not fit.
#[test]
fn v15_buffers_of_no_bytes() {
    for left_out in [0, UNMERGED] {
        both(|scene, plan| {
            let mut attacker = Attacker::start(scene, plan.without(left_out));
            let empty = Desc { addr: GPA, len: 0, flags: DESC_F_WRITE, next: 0 };
            (0..200).for_each(|_| _ = attacker.rx.post(&[empty]));
            attacker.picture();
            scene.y_sends_plain(40, 100);
            if left_out == UNMERGED {
                scene.expect_dropped(DropReason::TxTooLong, 40);
            } else {
                scene.expect_ring("rx0", SHORT);
            }
            attacker.rx.expect_used(0);
            attacker.judge();
        });
    }
}

/// I3: 32,768 buffers, each a chain of 32,767 empty descriptors: a frame would walk a thousand million steps to find
/// out that it does not fit. It walks 1,024 (policy: dropped as too long), once: what a walk found is not found out again.
#[test]
fn v15_empty_chains_fill_the_largest_ring() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, largest());
        let last = attacker.plan.size - 1;
        for i in 0..=last {
            let (more, next) = if i < last { (DESC_F_NEXT, i + 1) } else { (0, 0) };
            attacker.rx.ring().set_desc(i, Desc { addr: GPA, len: 0, flags: DESC_F_WRITE | more, next });
        }
        (0..attacker.plan.size).for_each(|_| attacker.rx.stage(1));
        attacker.rx.publish();
        scene.y_sends_plain(64, 60);
        let dropped =
            |scene: &Scene| [DropReason::TxTooLong, DropReason::TxFull].map(|reason| scene.dropped(reason));
        eventually("all dropped", || dropped(scene).iter().sum::<u64>() == 64);
        assert!(dropped(scene)[0] > 0);
        attacker.rx.expect_used(0);
    });
}

/// The buffers are the ring itself: its table, its available ring, its used ring, and those of the other ring. Only the
/// guest's own rings suffer.
#[test]
fn v28_buffers_are_the_rings_themselves() {
    for which in 0..6 {
        case(|scene| {
            let mut attacker = Attacker::usual(scene);
            let (rx, tx) = (attacker.rx.ring().clone(), attacker.tx.ring().clone());
            let target = [&rx.desc, &rx.avail, &rx.used, &tx.desc, &tx.avail, &tx.used][which].clone();
            for own in [&rx.desc, &rx.avail, &tx.desc, &tx.avail] {
                attacker.allow(own);
            }
            (0..64).for_each(|_| _ = attacker.rx.post(&[write(&target)]));
            attacker.picture();
            scene.y_sends_plain(64, 300);
            let end = std::time::Instant::now() + race_time() / 10;
            while std::time::Instant::now() < end {
                attacker.tx.offer(0);
                scene.discard_at_y();
                std::thread::yield_now();
            }
            attacker.judge();
            let states = ["running", "avail_index_jump", "descriptor_index_out_of_range", "chain_too_long"];
            let more = ["bad_indirect_table", "buffer_outside_memory", "buffer_direction", SHORT];
            for ring in ["rx0", "tx0"] {
                let state = scene.x_ring(ring);
                assert!(states.iter().chain(&more).any(|s| *s == state), "{ring} is {state}");
            }
        });
    }
}

/// Buffers of one byte and of eleven: too short for the header, which breaks the ring.
#[test]
fn v39_buffers_of_one_byte() {
    for len in [1, 11] {
        both(|scene, plan| {
            let mut attacker = Attacker::start(scene, plan);
            let span = attacker.ram.alloc(256, 64).expect("room");
            cut(write(&span), len).iter().take(200).for_each(|piece| _ = attacker.rx.post(&[*piece]));
            attacker.picture();
            scene.y_sends_plain(3, 60);
            scene.expect_ring("rx0", SHORT);
            attacker.rx.expect_used(0);
            attacker.judge();
        });
    }
}

/// Buffers of twelve bytes, the shortest that there may be: a jumbo frame needs more of them than the ring has. The frame
/// is dropped whole, and no buffer of it used.
#[test]
fn v39_buffers_of_twelve_bytes() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.ram.alloc(256 * 12, 64).expect("room");
        cut(write(&span), 12).iter().for_each(|piece| _ = attacker.rx.post(&[*piece]));
        attacker.picture();
        scene.y_sends_plain(3, 9000);
        scene.expect_dropped(DropReason::TxFull, 3);
        attacker.rx.expect_used(0);
        attacker.judge();
        // What does fit takes as many of them as it has bytes.
        let sent = scene.y_sends_plain(1, 100);
        let used = attacker.rx.expect_used(10);
        assert!(used.iter().zip(0..).all(|(used, i)| *used == (i, if i < 9 { 12 } else { 4 })));
        let mut bytes = [0; 112];
        span.read(0, &mut bytes);
        assert_eq!((bytes[10], bytes[11]), (10, 0), "num_buffers");
        assert_eq!(bytes[12..], sent[0]);
    });
}

/// The same in a ring that has enough of them: more than 1,024 pieces are not dealt with (decision 0005).
#[test]
fn v39_buffers_of_twelve_bytes_in_a_large_ring() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, Plan { size: 16_384, ram_bytes: 4 << 20, ..plan });
        let span = attacker.ram.alloc(8192 * 12, 64).expect("room");
        cut(write(&span), 12).iter().for_each(|piece| _ = attacker.rx.post(&cut(*piece, 6)));
        attacker.picture();
        scene.y_sends_plain(3, 9000);
        scene.expect_dropped(DropReason::TxTooLong, 3);
        attacker.rx.expect_used(0);
        attacker.judge();
    });
}

#[test]
fn v41_no_buffers_at_all() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        attacker.picture();
        scene.y_sends_plain(500, 200);
        scene.expect_dropped(DropReason::TxFull, 500);
        attacker.rx.expect_used(0);
        attacker.judge();
    });
}

/// A buffer that says it is far longer than the frame: used.len is what was written, and so is what was written.
#[test]
fn v43_long_buffer_for_a_short_frame() {
    both(|scene, plan| {
        let plan = Plan { ram_bytes: 16 << 20, ..plan };
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.ram.alloc(12 << 20, 64).expect("room");
        attacker.rx.post(&[write(&span)]);
        let header_and_frame = attacker.ram.span((span.gpa() - GPA) as usize, 72);
        attacker.allow(&header_and_frame);
        attacker.picture();
        let sent = scene.y_sends_plain(1, 60);
        assert_eq!(attacker.rx.expect_used(1), [(0, 72)]);
        lies_in(&span, &sent[0]);
        attacker.judge();
    });
}

/// Bytes of a frame's filler that stand in a row in all frames of the victims, and nowhere else.
fn victims_filler(stream: u16) -> Vec<u8> {
    (64..80usize).map(|i| (i as u16).wrapping_mul(31).wrapping_add(stream) as u8).collect()
}

/// The mempool's buffers are full of the victims' frames; the attacker gets frames of all lengths out of the same buffers,
/// whole and in pieces, and then looks through all of its RAM.
#[test]
fn v44_no_bytes_of_others() {
    both(|scene, plan| {
        let plan = Plan { size: 1024, ram_bytes: 4 << 20, ..plan };
        let mut attacker = Attacker::start(scene, plan);
        let end = std::time::Instant::now() + race_time() / 2;
        let mut posted = 0;
        while std::time::Instant::now() < end && posted < 1000 {
            let spans = attacker.post_buffers(10, 2048);
            posted += 10;
            scene.y_sends_plain(10, 14 + usize::from(posted));
            let used = attacker.rx.expect_used(posted);
            for (span, (_, len)) in spans.iter().zip(&used[usize::from(posted) - 10..]) {
                let mut rest = vec![0; span.len() - *len as usize];
                span.read(*len as usize, &mut rest);
                assert!(rest.iter().all(|b| *b == CANARY), "bytes behind used.len");
            }
        }
        let ram = attacker.look();
        for stream in [crate::scene::A as u16, crate::scene::B as u16] {
            let filler = victims_filler(stream);
            assert!(
                !ram.windows(filler.len()).any(|w| w == filler),
                "the attacker has bytes of stream {stream}"
            );
        }
    });
}

/// The header over 1 to 12 buffers of one byte each, in one chain: correct for every split.
#[test]
fn h03_header_over_many_pieces() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        for runts in 1..=12u32 {
            let span = attacker.ram.alloc(256, 64).expect("room");
            let whole = write(&span);
            let mut chain = cut(part(whole, 0, runts), 1);
            chain.push(part(whole, runts, 256 - runts));
            attacker.rx.post(&chain);
            let sent = scene.y_sends_plain(1, 60);
            let used = attacker.rx.expect_used(runts as u16);
            assert_eq!(used[runts as usize - 1].1, 72, "{runts} runts");
            lies_in(&span, &sent[0]);
        }
    });
}

/// Over mergeable buffers it is not spread: the first has room for all of it (§5.1.6.3.1), here for nothing else.
#[test]
fn h03_header_in_a_buffer_of_its_own() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.ram.alloc(100, 64).expect("room");
        let whole = write(&span);
        attacker.rx.post(&[part(whole, 0, 12)]);
        attacker.rx.post(&[part(whole, 12, 88)]);
        let sent = scene.y_sends_plain(1, 60);
        let used = attacker.rx.expect_used(2);
        assert_eq!((used[0].1, used[1].1), (12, 60));
        let mut bytes = [0; 72];
        span.read(0, &mut bytes);
        assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(bytes[12..], sent[0]);
    });
}

/// Without mergeable buffers a frame goes into one chain or nowhere; the buffer stays.
#[test]
fn w02_a_frame_longer_than_the_receivers_buffers() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan.without(UNMERGED));
        let spans = attacker.post_buffers(1, 1526);
        attacker.picture();
        scene.y_sends_plain(2, 9000);
        scene.y_sends_plain(1, 1515);
        scene.expect_dropped(DropReason::TxTooLong, 3);
        attacker.rx.expect_used(0);
        let sent = scene.y_sends_plain(1, 1514);
        assert_eq!(attacker.rx.expect_used(1), [(0, 1526)]);
        lies_in(&spans[0], &sent[0]);
        attacker.judge();
    });
}

/// num_buffers as a sender sets it means nothing; the receiver's is our own.
#[test]
fn h18_sender_sets_num_buffers() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        for num_buffers in [0u16, 2, 0x7fff, 0xffff] {
            let hdr = vhost::driver::NetHdr { num_buffers, ..Default::default() };
            let frame = crate::frames::plain(100, num_buffers.into());
            let packet = attacker.place(&attacker.packet(hdr, &frame));
            attacker.tx.post(&[read(&packet)]);
            // Its receiver would break its ring at a wrong number.
            scene.expect_at_y(&[frame]);
        }
        attacker.tx.expect_used(4);
    });
}

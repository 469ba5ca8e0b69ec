//! Cases that faults of history asked for (tests/cases/faults.toml): a region that is at hand already, headers whose pieces
//! are not neighbours, and races on the shortest path, which one plain descriptor takes. And frames of family W that had no test.

use std::sync::atomic::{AtomicU32, Ordering};

use vhost::driver::{NetHdr, Span};
use vhost::wire::ring::Desc;

use crate::attacker::{Attacker, GPA, Plan, Side, read, write};
use crate::frames;
use crate::headers::OFFLOADS;
use crate::numbers::Numbers;
use crate::races::race_steps;
use crate::scene::{Scene, both, case};

/// Bytes at the end of the RAM that the buffer of a race has; the racer says at times that it has more.
const SHORT: u32 = 100;
const LONG: u32 = 3000;

/// One byte behind the RAM, and one before it, when the buffer before was inside: the region is not looked up anew.
#[test]
fn v20_one_byte_outside_of_the_region_at_hand() {
    for side in [Side::Tx, Side::Rx] {
        for start in [GPA - 1, GPA + (1 << 20) - 99] {
            both(|scene, plan| {
                let mut attacker = Attacker::start(scene, plan);
                one_good(scene, &mut attacker, side);
                let bad = Desc { addr: start, len: 100, flags: side.flag(), next: 0 };
                let head = attacker.side(side).lay(&[bad]);
                attacker.picture();
                attacker.side(side).offer(head);
                if side == Side::Rx {
                    scene.y_sends_plain(1, 60);
                }
                scene.expect_ring(side.name(), "buffer_outside_memory");
                attacker.side(side).expect_used(1);
                attacker.judge();
                scene.expect_nothing_at_y();
            });
        }
    }
}

/// One frame through one plain buffer.
fn one_good(scene: &mut Scene, attacker: &mut Attacker, side: Side) {
    if side == Side::Tx {
        attacker.send(&frames::plain(60, 20));
        scene.expect_at_y(&[frames::plain(60, 20)]);
    } else {
        attacker.post_buffers(1, 200);
        scene.y_sends_plain(1, 60);
    }
    attacker.side(side).expect_used(1);
}

/// Places for so many bytes each, the first one last in memory and none beside the next.
fn apart(attacker: &Attacker, lens: &[usize]) -> Vec<Span> {
    let places: Vec<_> = lens.iter().map(|_| attacker.ram.alloc(512, 512).expect("room")).collect();
    let ends = places.iter().rev().zip(lens);
    ends.map(|(place, &len)| attacker.ram.span((place.gpa() - GPA) as usize, len)).collect()
}

/// The header of what is sent, in three pieces that are not neighbours and in pieces of one byte.
#[test]
fn h04_header_in_pieces_that_are_apart() {
    for lens in [vec![3, 4, 5, 100], [vec![1; 13], vec![99]].concat(), vec![11, 101]] {
        both(|scene, plan| {
            let mut attacker = Attacker::start(scene, Plan { features: plan.features | OFFLOADS, ..plan });
            let frame = frames::tcp4(46);
            let hdr = NetHdr { flags: 1, csum_start: 34, csum_offset: 16, ..NetHdr::default() };
            let packet = attacker.packet(hdr, &frame);
            let places = apart(&attacker, &lens);
            let mut at = 0;
            for place in &places {
                place.write(0, &packet[at..at + place.len()]);
                at += place.len();
            }
            attacker.tx.post(&places.iter().map(read).collect::<Vec<_>>());
            let got = scene.frames_at_y(1).remove(0);
            assert_eq!(got[..50], frame[..50], "{lens:?}");
            assert_ne!(got[50..52], frame[50..52], "the header's checksum request was read");
            assert_eq!(got[52..], frame[52..], "{lens:?}");
        });
    }
}

/// The header of what is received, in pieces that are not neighbours: what lies between them stays as it is.
#[test]
fn h03_header_in_pieces_that_are_apart() {
    for lens in [vec![3, 4, 5, 60], [vec![1; 13], vec![59]].concat(), vec![11, 61]] {
        both(|scene, plan| {
            let mut attacker = Attacker::start(scene, plan);
            let places = apart(&attacker, &lens);
            attacker.rx.lay(&places.iter().map(write).collect::<Vec<_>>());
            places.iter().for_each(|place| attacker.allow(place));
            attacker.picture();
            attacker.rx.offer(0);
            let sent = scene.y_sends_plain(1, 60);
            assert_eq!(attacker.rx.expect_used(1)[0].1, 72, "{lens:?}");
            let mut bytes = Vec::new();
            for place in &places {
                let mut part = vec![0; place.len()];
                place.read(0, &mut part);
                bytes.extend(part);
            }
            assert_eq!(bytes[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "{lens:?}");
            assert_eq!(bytes[12..], sent[0], "{lens:?}");
            attacker.judge();
        });
    }
}

/// Padding behind an IP packet, and IP lengths that are not the frame's: every byte arrives, and no other.
#[test]
fn w04_padding_and_ip_lengths_that_lie() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let packet = frames::ipv4(17, &frames::udp(0));
        let mut all: Vec<_> = (1..=46).map(|n| [&packet[..], &vec![0x55; n]].concat()).collect();
        for total in [0u16, 19, 20, 27, 29, 1500, 0xffff] {
            let mut lie = packet.clone();
            lie[16..18].copy_from_slice(&total.to_be_bytes());
            all.push(lie);
        }
        all.iter().for_each(|frame| attacker.send(frame));
        scene.expect_at_y(&all);
    });
}

/// Stacks of VLAN tags and of MPLS labels of all depths, whole and cut off.
#[test]
fn w05_stacks_of_tags_and_labels() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 1024, ..Plan::default() });
        let addresses = &frames::plain(60, 5)[..12];
        let mut sent = 0;
        for depth in [0usize, 1, 2, 3, 4, 8, 64, 255] {
            let tags = [0x88, 0xa8, 0x00, 0x05].repeat(depth);
            let labels = [0x00, 0x01, 0x00, 0x40].repeat(depth);
            let packet = &frames::ipv4(17, &frames::udp(8))[14..];
            let whole = [addresses, &tags, &[0x08, 0x00], packet].concat();
            let labelled = [addresses, &[0x88, 0x47], &labels, packet].concat();
            let cut = [addresses, &tags, &[0x81, 0x00]].concat();
            let frames = [whole, labelled, cut];
            frames.iter().for_each(|frame| attacker.send(frame));
            sent += 3;
            scene.expect_at_y(&frames);
            attacker.tx.expect_used(sent);
        }
    });
}

/// Races for the length of one plain descriptor, whose buffer ends where the RAM ends: at times it is said to be longer.
/// `step` offers it and looks at what came of it.
fn race_for_the_length(side: Side, mut step: impl FnMut(&mut Scene, &mut Attacker)) {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan::default());
        let start = attacker.ram.bytes() - SHORT as usize;
        let span = attacker.ram.span(start, SHORT as usize);
        span.fill(0, attacker.hdr_len(), 0);
        attacker.allow(&span);
        for ring in [attacker.rx.ring().clone(), attacker.tx.ring().clone()] {
            attacker.allow(&ring.avail);
            attacker.allow(&ring.desc);
        }
        let short = Desc { addr: GPA + start as u64, len: SHORT, flags: side.flag(), next: 0 };
        let ring = attacker.side(side).ring().clone();
        (0..ring.size()).for_each(|at| ring.set_avail_entry(at, 0));
        ring.set_desc(0, short);
        attacker.picture();
        let broken = AtomicU32::new(0);
        let flip = |numbers: &mut Numbers| {
            ring.set_desc(0, Desc { len: numbers.pick(&[SHORT, SHORT, SHORT, LONG]), ..short });
        };
        let flips = race_steps(flip, || {
            step(scene, &mut attacker);
            let state = scene.x_ring(side.name());
            if state != "running" {
                assert_eq!(state, "buffer_outside_memory");
                let base = attacker.side(side).ring().used_idx();
                attacker.revive(side, base);
                broken.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(flips > 1000 && broken.into_inner() > 0, "the racer ran, and broke the ring");
        attacker.front.vring_base(side.index()).expect("it stops");
        scene.discard_at_y();
        attacker.judge();
    });
}

/// Whatever is read of the descriptor, no frame is longer than what was inside of the RAM.
#[test]
fn v32_racer_on_the_length_of_one_plain_descriptor() {
    let mut frames = 0;
    race_for_the_length(Side::Tx, |scene, attacker| {
        let ring = attacker.tx.ring().clone();
        for _ in 0..20 {
            ring.set_avail_idx(ring.used_idx().wrapping_add(64));
            std::thread::yield_now();
            for frame in scene.take_at_y() {
                frames += 1;
                assert_eq!(frame.len(), SHORT as usize - 12, "from a buffer of {SHORT} bytes");
            }
        }
    });
    println!("{frames} frames");
    assert!(frames > 0, "some were sent while the descriptor was right");
}

/// The same where the device writes: it says of no buffer that it wrote more than was inside of the RAM.
#[test]
fn v32_racer_on_the_length_of_one_plain_buffer() {
    race_for_the_length(Side::Rx, |scene, attacker| {
        let ring = attacker.rx.ring().clone();
        for _ in 0..20 {
            ring.set_avail_idx(ring.used_idx().wrapping_add(64));
            scene.y_sends_plain(4, 1500);
            std::thread::yield_now();
            let longest = (0..ring.size()).map(|at| ring.used_len(at)).max().unwrap_or(0);
            assert!(longest <= SHORT, "{longest} bytes in a buffer of {SHORT}");
        }
    });
}

/// The header says by turns where the checksum is and where it is not: the one frame or none, never the frame summed
/// elsewhere.
#[test]
fn v34_racer_on_csum_start_of_one_plain_frame() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { features: OFFLOADS, ..Plan::default() });
        let hdr = NetHdr { flags: 1, csum_start: 34, csum_offset: 16, ..NetHdr::default() };
        let span = attacker.place(&attacker.packet(hdr, &frames::tcp4(100)));
        attacker.tx.post(&[read(&span)]);
        let right = scene.frames_at_y(1).remove(0);
        let ring = attacker.tx.ring().clone();
        (0..ring.size()).for_each(|at| ring.set_avail_entry(at, 0));
        let flip = |numbers: &mut Numbers| span.write(6, &[numbers.pick(&[34, 34, 60])]);
        let flips = race_steps(flip, || {
            for _ in 0..20 {
                ring.set_avail_idx(ring.used_idx().wrapping_add(64));
                std::thread::yield_now();
                assert!(scene.take_at_y().iter().all(|frame| *frame == right), "summed elsewhere");
            }
        });
        assert!(flips > 1000, "the racer ran");
        attacker.front.vring_base(Side::Tx.index()).expect("it stops");
        scene.discard_at_y();
    });
}

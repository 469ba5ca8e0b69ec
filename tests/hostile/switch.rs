//! What the switch itself must not be talked into: S1, S6, S8, W1, W2, W9, W11.

use pmd::DropReason;
use vswitch::Mac;

use crate::attacker::{Attacker, Plan};
use crate::frames;
use crate::numbers::Numbers;
use crate::scene::{A, B, X, Y, case, eventually, mac};

/// A frame from any address to any other.
fn from_to(src: [u8; 6], dst: [u8; 6], tag: u32) -> Vec<u8> {
    let mut frame = frames::plain(60, tag);
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&src);
    frame
}

/// 6,000 source addresses from one port into a table of 4,096: its quota stops it, nobody honest is evicted, and the victims'
/// streams are never flooded.
#[test]
fn s01_table_exhaustion() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 1024, ..Plan::default() });
        let mut numbers = Numbers::new(1);
        let buffers: Vec<_> = (0..1000).map(|_| attacker.frame(&frames::plain(60, 1))).collect();
        let mut sent = 0u16;
        for _ in 0..6 {
            for buffer in &buffers {
                let src = (numbers.next() & 0xffff_ffff_fcff | 0x02).to_le_bytes();
                let at = (buffer.addr - crate::attacker::GPA) as usize + 12;
                attacker.ram.span(at, 12).write(6, &src[..6]);
                attacker.tx.post(&[*buffer]);
                sent += 1;
            }
            eventually("all came back", || attacker.tx.used() == sent);
            scene.discard_at_y();
        }
        let stats = scene.switch.stats().fdb;
        assert!(stats.refused_quota > 0, "{stats:?}");
        let learned = scene.switch.fdb().list(scene.switch.now_s()).len();
        assert!(learned <= 2048 + 8, "{learned} entries");
        assert_eq!(scene.x_totals().dropped(DropReason::NoMbufs), 0);
    });
}

/// A group's address is nobody's source.
#[test]
fn s06_group_source_is_not_learned() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let groups = [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0; 6]];
        let sent = groups.map(|src| from_to(src, mac(Y), 6));
        sent.iter().for_each(|frame| attacker.send(frame));
        scene.expect_at_y(&sent);
        for src in groups {
            assert_eq!(scene.switch.fdb().lookup(Mac(src), 0), None);
        }
    });
}

/// The victims' own addresses as source, thousands of times: what the operator wrote stays, and not one of their frames
/// goes elsewhere. (Addresses that nobody wrote down belong to who sent last.)
#[test]
fn s06_stolen_addresses() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 1024, ..Plan::default() });
        let stolen = [from_to(mac(A), mac(Y), 6), from_to(mac(B), mac(Y), 6)];
        let heads = [&stolen[0], &stolen[1]].map(|frame| {
            let buffer = attacker.frame(frame);
            attacker.tx.lay(&[buffer])
        });
        for round in 1..=5u16 {
            (0..400).for_each(|i| attacker.tx.stage(heads[i % 2]));
            attacker.tx.publish();
            eventually("all came back", || attacker.tx.used() == round * 400);
            scene.discard_at_y();
        }
        let fdb = scene.switch.fdb();
        assert!(fdb.lookup(Mac(mac(A)), 0) != fdb.lookup(Mac(mac(X)), 0) && fdb.stats().refused_static == 0);
        assert!(scene.switch.stats().fdb.refused_static >= 2);
        attacker.rx.expect_used(0);
    });
}

/// Frames of 0, 1 and 13 bytes are none; 14 and 59 are, if short; the longest is 64 KiB and headers.
#[test]
fn w02_frames_of_all_lengths() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let lengths = [14usize, 15, 59, 60, 63, 64, 191, 192, 193, 255, 256, 257, 1514, 1518, 9000, 65_535];
        for short in [0, 1, 13] {
            let buffer = attacker.frame(&frames::plain(60, 2)[..short]);
            attacker.tx.post(&[buffer]);
        }
        for len in lengths {
            let frame = frames::plain(len, len as u32);
            attacker.send(&frame);
            scene.expect_at_y(&[frame]);
        }
        scene.expect_dropped(DropReason::RxTooShort, 3);
        attacker.tx.expect_used(lengths.len() as u16 + 3);
    });
}

/// Every header cut off at every byte: nobody reads behind the end.
#[test]
fn w01_headers_cut_off() {
    case(|scene| {
        let features = crate::headers::OFFLOADS;
        let mut attacker = Attacker::start(scene, Plan { size: 1024, features, ..Plan::default() });
        let whole = [frames::tcp4(10), frames::ipv6(6, &frames::tcp(10)), frames::ipv4(17, &frames::udp(10))];
        let mut sent = 0;
        for frame in &whole {
            for len in 14..frame.len() {
                let cut = frame[..len].to_vec();
                attacker.send(&cut);
                // And with a request that needs the whole of them.
                let hdr = vhost::driver::NetHdr {
                    flags: 1,
                    gso_type: 1,
                    gso_size: 8,
                    csum_start: 34,
                    csum_offset: 16,
                    ..Default::default()
                };
                let buffer = crate::attacker::read(&attacker.place(&attacker.packet(hdr, &cut)));
                attacker.tx.post(&[buffer]);
                sent += 2;
            }
        }
        attacker.tx.expect_used(sent);
        assert!(scene.discard_at_y() >= usize::from(sent) / 2, "the plain ones arrived");
        assert_eq!(scene.x_ring("tx0"), "running");
    });
}

/// Tags cut off, tags within tags, reserved VIDs: forwarded by address as any other payload (no VLANs yet), unchanged.
#[test]
fn w09_tags() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let tag = |tpid: u16, vid: u16| [tpid.to_be_bytes(), vid.to_be_bytes()].concat();
        let addresses = frames::plain(60, 9)[..12].to_vec();
        let mut all = vec![
            [addresses.clone(), vec![0x81, 0x00]].concat(),
            [addresses.clone(), vec![0x81, 0x00, 0x0f]].concat(),
        ];
        for vid in [0, 1, 4095, 0xffff] {
            all.push([addresses.clone(), tag(0x8100, vid), vec![0x88, 0xb6, 1, 2, 3]].concat());
            all.push(
                [addresses.clone(), tag(0x88a8, vid), tag(0x8100, vid), vec![0x88, 0xb6, 1, 2, 3]].concat(),
            );
        }
        all.push([addresses.clone(), tag(0x8100, 5).repeat(255), vec![0x08, 0x00]].concat());
        all.iter().for_each(|frame| attacker.send(frame));
        scene.expect_at_y(&all);
    });
}

/// PAUSE, STP, LACP, LLDP and the others of 01-80-C2-00-00-0x are nobody's but the bridge's own.
#[test]
fn w11_reserved_groups() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        for last in 0..16 {
            attacker.send(&from_to(mac(X), [0x01, 0x80, 0xc2, 0, 0, last], last.into()));
        }
        scene.expect_dropped(DropReason::ReservedGroup, 16);
        scene.expect_nothing_at_y();
        // The next one is a group like any other.
        let other = from_to(mac(X), [0x01, 0x80, 0xc2, 0, 0, 16], 16);
        attacker.send(&other);
        scene.expect_at_y(&[other]);
    });
}

//! What the driver and the device leave to each other, and what the driver does itself.

use mbuf::{Checksum, GsoKind, Offload};
use pmd::DropReason;
use pmd::nic::NicDriver;

use crate::frames::{bytes, packet, tcp};
use crate::model::{Packet, feature};
use crate::scene::Scene;

/// TCP starts at 34, its checksum at 16 from there, its payload at 54.
fn owed(gso_size: u16) -> Offload {
    let mut owed = Offload::NONE;
    (owed.checksum, owed.csum_start, owed.csum_offset, owed.hdr_len) = (Checksum::Partial, 34, 16, 54);
    if gso_size > 0 {
        (owed.gso, owed.gso_size) = (GsoKind::TcpV4, gso_size);
    }
    owed
}

/// The header that says so.
fn header(gso_size: u16) -> [u8; 10] {
    let [low, high] = gso_size.to_le_bytes();
    [1, u8::from(gso_size > 0), 54, 0, low, high, 34, 0, 16, 0]
}

fn has_a_right_checksum(frame: &[u8]) -> bool {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).expect("a TCP frame");
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
        (packet.net, packet.transport)
    else {
        panic!("not TCP over IPv4")
    };
    tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()) == Ok(tcp.checksum())
}

/// A frame whose TCP checksum is still to be made: the pseudo header's sum stands there.
fn unfinished(payload: usize) -> Vec<u8> {
    let mut frame = tcp(payload);
    let len = (frame.len() - 34) as u32;
    let sum = 0x0a00u32 + 1 + 0x0a00 + 2 + 6 + len;
    frame[50..52].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
    frame
}

#[test]
fn a_device_that_can_gets_the_header() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        let mut frames = Vec::new();
        for (payload, gso_size) in [(100, 0), (9000, 1460)] {
            let mut mbuf = packet(scene.pool, &unfinished(payload));
            mbuf.set_offload(owed(gso_size));
            frames.push(mbuf);
        }
        assert_eq!(scene.send(0, frames), 0);
        let sent = scene.card.sent(0);
        assert_eq!(sent[0], Packet { hdr: header(0), frame: unfinished(100) });
        assert_eq!(sent[1], Packet { hdr: header(1460), frame: unfinished(9000) });
        scene.end();
    }
}

#[test]
fn h12_for_one_that_cannot_the_work_is_done_before() {
    let all = feature::USUAL & !feature::CSUM;
    for features in [all, all | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        let mut frames = Vec::new();
        for (payload, gso_size) in [(101, 0), (9000, 1460)] {
            let mut mbuf = packet(scene.pool, &unfinished(payload));
            mbuf.set_offload(owed(gso_size));
            frames.push(mbuf);
        }
        assert_eq!(scene.send(0, frames), 0);
        let sent = scene.card.sent(0);
        assert_eq!(sent.len(), 1 + 7);
        assert!(sent.iter().all(|p| p.hdr == [0; 10] && has_a_right_checksum(&p.frame)));
        let payload: Vec<_> = sent[1..].iter().flat_map(|p| p.frame[54..].to_vec()).collect();
        assert!(payload == tcp(9000)[54..]);
        assert_eq!(scene.tx.packets.get(), 2, "a packet that was cut counts as one");
        scene.end();
    }
}

#[test]
fn segments_that_do_not_fit_leave_the_packet_whole() {
    let mut scene = Scene::new(feature::USUAL & !feature::CSUM);
    let mut left = 0;
    for _ in 0..100 {
        let mut mbuf = packet(scene.pool, &unfinished(9000));
        mbuf.set_offload(owed(1460));
        left += scene.send(0, vec![mbuf]);
    }
    assert!((1..100).contains(&left));
    let sent = scene.card.sent(0);
    assert_eq!(sent.len(), 7 * (100 - left), "all segments of a packet or none");
    scene.end();
}

#[test]
fn what_the_device_says_of_a_packet_is_checked_and_kept() {
    let mut scene = Scene::new(feature::USUAL);
    let checked = |hdr, payload| Packet { hdr, frame: unfinished(payload) };
    let valid = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for packet in [checked(header(0), 60), checked(header(1460), 40_000), checked(valid, 60)] {
        assert!(scene.card.receive(0, &packet));
    }
    let came = scene.receive(0);
    assert_eq!(*came[0].offload(), owed(0));
    assert_eq!(*came[1].offload(), owed(1460));
    assert!(bytes(&came[1]) == unfinished(40_000));
    assert_eq!(came[2].offload().checksum, Checksum::Valid);
    drop(came);
    scene.end();
}

#[test]
fn n12_w03_a_header_that_contradicts_its_packet_costs_the_packet() {
    let mut scene = Scene::new(feature::USUAL);
    let lies = [
        [1, 0, 0, 0, 0, 0, 35, 0, 16, 0],
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        [0, 1, 54, 0, 180, 5, 0, 0, 0, 0],
        [1, 4, 54, 0, 180, 5, 34, 0, 16, 0],
        [1, 0x55, 54, 0, 180, 5, 34, 0, 16, 0],
        [1, 1, 54, 0, 0, 0, 34, 0, 16, 0],
    ];
    for hdr in lies {
        assert!(scene.card.receive(0, &Packet { hdr, frame: unfinished(3000) }));
        assert_eq!(scene.receive(0).len(), 0, "{hdr:?}");
    }
    assert_eq!(scene.dropped(DropReason::RxBadOffload), lies.len() as u64);
    assert_eq!(scene.check(), None, "the ring is not broken");
    scene.end();
}

#[test]
fn h11_what_was_not_negotiated_is_not_taken() {
    let mut scene = Scene::new(feature::USUAL & !feature::GUEST_TSO4 & !feature::GUEST_ECN);
    assert!(scene.card.receive(0, &Packet { hdr: header(1460), frame: unfinished(3000) }));
    assert_eq!((scene.receive(0).len(), scene.dropped(DropReason::RxBadOffload)), (0, 1));
    scene.end();
}

#[test]
fn it_tells_what_was_agreed_on() {
    let scene = Scene::new(feature::USUAL | feature::RING_PACKED);
    let detail = |name| scene.driver.details().into_iter().find(|(n, _)| *n == name).expect(name).1;
    assert_eq!((detail("rings"), detail("mac")), ("packed".into(), "02:12:34:56:78:9a".into()));
    assert_eq!(detail("transmit offloads"), "csum tso4 tso6 ecn");
    assert_eq!(detail("receive offloads"), "csum tso4 tso6 ecn data_valid");
    assert_eq!((detail("descriptors"), detail("interrupts")), ("256 rx, 256 tx".into(), "msi-x".into()));
    assert!(detail("features").contains("ring_packed") && !detail("features").contains("vlan"));
    scene.end();
}

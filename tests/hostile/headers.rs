//! Virtio-net headers that lie: H1, H2, H4, H5, H7 to H16.

use pmd::DropReason;
use vhost::driver::NetHdr;
use vhost::wire::net::{
    F_CSUM, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4,
    HDR_F_NEEDS_CSUM,
};

use crate::attacker::{Attacker, FEATURES, Plan, cut, part, read};
use crate::frames::{ipv4, ipv6, plain, tcp, tcp4, udp};
use crate::scene::{Scene, both, case};

/// All offloads that a sender can negotiate.
pub(crate) const OFFLOADS: u64 = FEATURES | F_CSUM | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN;

fn with_offloads() -> Plan {
    Plan { features: OFFLOADS, ..Plan::default() }
}

/// A header of a TCP packet over IPv4, to be cut into segments of `gso_size`.
fn tso(gso_size: u16) -> NetHdr {
    NetHdr { gso_type: GSO_TCPV4, hdr_len: 54, gso_size, ..csum(34, 16) }
}

/// A header that asks for a checksum.
fn csum(csum_start: u16, csum_offset: u16) -> NetHdr {
    NetHdr { flags: HDR_F_NEEDS_CSUM, csum_start, csum_offset, ..NetHdr::default() }
}

/// Sends packets whose headers lie: each is dropped and completed, none arrives, and a good one after them does.
fn lies(scene: &mut Scene, plan: Plan, packets: &[(NetHdr, Vec<u8>)]) {
    let mut attacker = Attacker::start(scene, plan);
    for (hdr, frame) in packets {
        let buffer = read(&attacker.place(&attacker.packet(*hdr, frame)));
        attacker.tx.post(&[buffer]);
    }
    attacker.picture();
    scene.expect_dropped(DropReason::RxBadOffload, packets.len() as u64);
    attacker.tx.expect_used(packets.len() as u16);
    attacker.judge();
    scene.expect_nothing_at_y();
    let good = plain(64, 1);
    attacker.send(&good);
    scene.expect_at_y(&[good]);
}

/// Sends packets whose headers tell the truth; each becomes so many frames at `y`.
fn truths(scene: &mut Scene, packets: &[(NetHdr, Vec<u8>, usize)]) {
    let mut attacker = Attacker::start(scene, with_offloads());
    for (i, (hdr, frame, frames)) in packets.iter().enumerate() {
        let buffer = read(&attacker.place(&attacker.packet(*hdr, frame)));
        attacker.tx.post(&[buffer]);
        let got = scene.frames_at_y(*frames);
        let payload = |f: &Vec<u8>| f.len() - 54;
        if hdr.gso_type & !GSO_ECN == GSO_TCPV4 {
            assert_eq!(got.iter().map(payload).sum::<usize>(), frame.len() - 54, "packet {i}");
        }
    }
    attacker.tx.expect_used(packets.len() as u16);
    scene.expect_nothing_at_y();
    assert_eq!(scene.dropped(DropReason::RxBadOffload), 0);
}

/// 10 bytes without version 1 and mergeable buffers, 12 with either: chains of 0 to header, Ethernet header and one byte.
#[test]
fn h01_header_sizes() {
    use vhost::wire::net::{F_MRG_RXBUF, F_VERSION_1};
    for (features, hdr_len) in
        [(0, 10), (F_MRG_RXBUF, 12), (F_VERSION_1, 12), (F_VERSION_1 | F_MRG_RXBUF, 12)]
    {
        both(|scene, plan| {
            let plan = plan.without(F_MRG_RXBUF | F_VERSION_1).with(features);
            let mut attacker = Attacker::start(scene, plan);
            assert_eq!(attacker.hdr_len(), hdr_len);
            let frame = plain(15, 1);
            let whole = attacker.frame(&frame);
            assert_eq!(whole.len as usize, hdr_len + 15);
            for len in 0..hdr_len as u32 + 14 {
                attacker.tx.post(&[part(whole, 0, len)]);
            }
            scene.expect_dropped(DropReason::RxTooShort, hdr_len as u64 + 14);
            attacker.tx.post(&[part(whole, 0, hdr_len as u32 + 14)]);
            attacker.tx.post(&[whole]);
            scene.expect_at_y(&[frame[..14].to_vec(), frame]);
            attacker.tx.expect_used(hdr_len as u16 + 16);
        });
    }
}

#[test]
fn h02_no_longer_than_the_header() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let whole = attacker.frame(&plain(60, 2));
        for len in 1..=12 {
            attacker.tx.post(&cut(part(whole, 0, len), 1));
        }
        scene.expect_dropped(DropReason::RxTooShort, 12);
        attacker.tx.expect_used(12);
        scene.expect_nothing_at_y();
    });
}

#[test]
fn h04_header_byte_by_byte() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, with_offloads());
        let frame = tcp4(500);
        let whole = read(&attacker.place(&attacker.packet(tso(200), &frame)));
        let mut chain = cut(part(whole, 0, 12), 1);
        chain.extend(cut(part(whole, 12, whole.len - 12), 7));
        attacker.tx.post(&chain);
        let got = scene.frames_at_y(3);
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [254, 254, 154]);
        attacker.tx.expect_used(1);
    });
}

#[test]
fn h05_checksum_starts_behind_the_packet() {
    case(|scene| {
        let frame = tcp4(100);
        let len = frame.len() as u16;
        let starts = [len, len - 1, len + 1, 0xffff, 0];
        let packets: Vec<_> = starts.into_iter().map(|start| (csum(start, 16), frame.clone())).collect();
        lies(scene, with_offloads(), &packets);
    });
}

#[test]
fn h07_checksum_field_behind_the_packet() {
    case(|scene| {
        let frame = tcp4(100);
        let len = frame.len() as u16;
        let fields = [(34, len - 34), (34, len - 35), (len - 2, 1), (34, 0xffff), (0xfff0, 0xfff0)];
        let packets: Vec<_> = fields.into_iter().map(|(s, o)| (csum(s, o), frame.clone())).collect();
        lies(scene, with_offloads(), &packets);
    });
}

/// In the link layer's header, in the IP header, in another place than the TCP header has it.
#[test]
fn h08_checksum_in_the_wrong_place() {
    case(|scene| {
        let (v4, v6) = (tcp4(100), ipv6(6, &tcp(100)));
        let v4_lies = [(0, 12), (13, 0), (14, 10), (20, 16), (33, 17), (34, 15), (34, 6), (38, 12), (54, 16)];
        let mut packets: Vec<_> = v4_lies.into_iter().map(|(s, o)| (csum(s, o), v4.clone())).collect();
        packets.extend([(34, 16), (40, 2), (54, 6)].map(|(s, o)| (csum(s, o), v6.clone())));
        lies(scene, with_offloads(), &packets);
    });
}

/// Of a packet that is not IP nobody can say where its checksum would be: it is done in software as told.
#[test]
fn h08_checksum_of_what_is_not_ip() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, with_offloads());
        let frame = plain(100, 8);
        let buffer = read(&attacker.place(&attacker.packet(csum(40, 10), &frame)));
        attacker.tx.post(&[buffer]);
        let got = scene.frames_at_y(1).remove(0);
        assert_eq!((&got[..50], &got[52..]), (&frame[..50], &frame[52..]));
        let words = got[40..].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let before = u16::from_be_bytes([frame[50], frame[51]]);
        // The field held a partial sum, which the complement of the new one takes the place of.
        let sum = words.sum::<u32>() + u32::from(before);
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff);
    });
}

/// Nothing is cut into pieces of less than 8 bytes.
#[test]
fn h09_gso_size() {
    case(|scene| {
        let packets: Vec<_> = [0, 1, 7].into_iter().map(|size| (tso(size), tcp4(2000))).collect();
        lies(scene, with_offloads(), &packets);
    });
}

/// Larger than the payload: as Linux has it, "too small packets are not really GSO ones".
#[test]
fn h09_gso_size_beyond_the_payload() {
    case(|scene| {
        truths(
            scene,
            &[(tso(2000), tcp4(2000), 1), (tso(65_535), tcp4(2000), 1), (tso(1999), tcp4(2000), 2)],
        );
    });
}

#[test]
fn h10_gso_type() {
    case(|scene| {
        let kinds = [2, 6, 0x7f, GSO_ECN, 0xff, GSO_UDP, GSO_UDP_L4 | GSO_ECN, GSO_UDP | GSO_ECN];
        let mut packets: Vec<_> =
            kinds.into_iter().map(|gso_type| (NetHdr { gso_type, ..tso(500) }, tcp4(2000))).collect();
        // The right kinds on the wrong packets.
        packets.push((NetHdr { gso_type: GSO_TCPV6, ..tso(500) }, tcp4(2000)));
        packets.push((NetHdr { csum_start: 54, ..tso(500) }, ipv6(6, &tcp(2000))));
        packets.push((NetHdr { csum_offset: 6, ..tso(500) }, ipv4(17, &udp(2000))));
        packets.push((tso(500), plain(2000, 10)));
        // Segmentation of a packet whose checksum is said to be whole (§5.1.6.2.1).
        packets.push((NetHdr { flags: 0, ..tso(500) }, tcp4(2000)));
        packets.push((NetHdr { flags: 2, ..tso(500) }, tcp4(2000)));
        lies(scene, with_offloads(), &packets);
    });
}

#[test]
fn h11_not_negotiated() {
    case(|scene| {
        let v6 = NetHdr { gso_type: GSO_TCPV6, csum_start: 54, ..tso(500) };
        let ecn = NetHdr { gso_type: GSO_TCPV4 | GSO_ECN, ..tso(500) };
        let packets =
            [(csum(34, 16), tcp4(100)), (tso(500), tcp4(2000)), (v6, ipv6(6, &tcp(2000))), (ecn, tcp4(2000))];
        lies(scene, Plan::default(), &packets);
    });
    case(|scene| {
        // Checksums were, segmentation was not; then TCP over IPv4 was, and nothing else.
        let v6 = NetHdr { gso_type: GSO_TCPV6, csum_start: 54, ..tso(500) };
        let ecn = NetHdr { gso_type: GSO_TCPV4 | GSO_ECN, ..tso(500) };
        let uso = NetHdr { gso_type: GSO_UDP_L4, csum_offset: 6, ..tso(500) };
        let more = [(v6, ipv6(6, &tcp(2000))), (ecn, tcp4(2000)), (uso, ipv4(17, &udp(2000)))];
        lies(scene, Plan { features: FEATURES | F_CSUM | F_HOST_TSO4, ..Plan::default() }, &more);
    });
}

/// `y` negotiated nothing: what comes to it is finished, and its headers say nothing ([`Scene::drain_y`] looks).
#[test]
fn h12_receiver_negotiated_nothing() {
    case(|scene| {
        let ecn = NetHdr { gso_type: GSO_TCPV4 | GSO_ECN, ..tso(1000) };
        truths(scene, &[(csum(34, 16), tcp4(100), 1), (tso(1000), tcp4(3000), 3), (ecn, tcp4(2001), 3)]);
    });
}

/// hdr_len is a hint; our own parse is what counts.
#[test]
fn h13_hdr_len() {
    case(|scene| {
        let packets: Vec<_> = [0, 1, 53, 55, 2054, 0xffff]
            .into_iter()
            .map(|hdr_len| (NetHdr { hdr_len, ..tso(1000) }, tcp4(2000), 2))
            .collect();
        truths(scene, &packets);
    });
}

/// A packet with a byte changed.
fn bent(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

/// TCP's and IP's own lengths lie; none of these is cut.
#[test]
fn h14_headers_that_contradict_the_frame() {
    case(|scene| {
        let good = tcp4(2000);
        let mut packets = vec![
            (tso(500), bent(good.clone(), 46, 0x40)),
            (tso(500), bent(good.clone(), 46, 0x00)),
            (tso(500), bent(good.clone(), 14, 0x44)),
            (tso(500), bent(good.clone(), 14, 0x40)),
            (tso(500), bent(good.clone(), 14, 0x65)),
            (tso(500), bent(good.clone(), 17, good[17] - 1)),
            (tso(500), bent(good.clone(), 16, 0xff)),
            (tso(500), bent(good.clone(), 23, 17)),
        ];
        // Padding behind the IP packet.
        packets.push((tso(500), [good.clone(), vec![0; 4]].concat()));
        // Data offset beyond the data: 60 bytes of TCP header in a packet that has 20.
        packets.push((tso(8), bent(ipv4(6, &tcp(0)), 46, 0xf0)));
        // Eight extension headers in front of TCP over IPv6.
        let extensions = [[0u8, 0, 1, 4, 0, 0, 0, 0]; 7].concat();
        let body = [extensions, vec![6, 0, 1, 4, 0, 0, 0, 0], tcp(2000)].concat();
        let v6 = NetHdr { gso_type: GSO_TCPV6, csum_start: 54 + 64, ..tso(500) };
        packets.push((v6, ipv6(0, &body)));
        lies(scene, with_offloads(), &packets);
    });
}

/// 64 KiB in segments of 8 bytes would be 8,000 frames from one descriptor; the cap is on segments.
#[test]
fn h15_a_frame_for_every_few_bytes() {
    case(|scene| {
        let packets: Vec<_> = [1, 7, 8, 9].into_iter().map(|size| (tso(size), tcp4(65_000))).collect();
        lies(scene, with_offloads(), &packets);
    });
}

#[test]
fn h16_fragments() {
    case(|scene| {
        let packets: Vec<_> = [(20, 0x20), (21, 1), (20, 0x3f)]
            .into_iter()
            .map(|(at, value)| (tso(500), bent(tcp4(2000), at, value)))
            .collect();
        lies(scene, with_offloads(), &packets);
    });
}

//! The cases H5 to H18 of the hostile-guest list.

use mbuf::{Checksum, GsoKind, Offload};
use pmd::offload::{HeaderLie, OffloadSet, VirtioNetHdr, from_virtio_net, to_virtio_net};

use crate::frames::Shape;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const TCPV4: u8 = 1;
const UDP: u8 = 3;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;

fn ask(hdr: &VirtioNetHdr, frame: &[u8]) -> Result<Offload, HeaderLie> {
    ask_with(hdr, frame, OffloadSet::ALL)
}

fn ask_with(hdr: &VirtioNetHdr, frame: &[u8], allowed: OffloadSet) -> Result<Offload, HeaderLie> {
    from_virtio_net(hdr, &frame[..frame.len().min(192)], frame.len(), allowed)
}

/// What an honest sender writes for a packet of that shape.
fn honest(shape: &Shape, gso_type: u8, gso_size: u16) -> VirtioNetHdr {
    VirtioNetHdr {
        flags: NEEDS_CSUM,
        gso_type,
        hdr_len: shape.headers() as u16,
        gso_size,
        csum_start: shape.l4() as u16,
        csum_offset: shape.checksum_offset(),
    }
}

#[test]
fn nothing_asked_is_nothing_owed() {
    let zero = VirtioNetHdr::default();
    assert_eq!(ask_with(&zero, &Shape::TCP4.build(), OffloadSet::NONE), Ok(Offload::NONE));
    let leftovers = VirtioNetHdr { hdr_len: 9, gso_size: 9, csum_start: 9, csum_offset: 9, ..zero };
    assert_eq!(ask(&leftovers, &[0; 20]), Ok(Offload::NONE), "numbers without their flag say nothing");
}

#[test]
fn an_honest_request_comes_through_and_goes_out_the_same() {
    for (shape, gso_type, kind) in [
        (Shape { payload: 3000, ..Shape::TCP4 }, TCPV4, GsoKind::TcpV4),
        (Shape { payload: 3000, v6: true, tags: 2, ..Shape::TCP4 }, TCPV6, GsoKind::TcpV6),
        (Shape { payload: 3000, udp: true, tags: 1, ..Shape::TCP4 }, UDP_L4, GsoKind::UdpL4),
        (Shape { payload: 3000, udp: true, v6: true, ..Shape::TCP4 }, UDP_L4, GsoKind::UdpL4),
    ] {
        let hdr = honest(&shape, gso_type, 1000);
        let offload = ask(&hdr, &shape.build_partial()).unwrap();
        assert_eq!((offload.gso, offload.gso_size, offload.checksum), (kind, 1000, Checksum::Partial));
        assert_eq!(usize::from(offload.hdr_len), shape.headers());
        assert_eq!(to_virtio_net(&offload, OffloadSet::ALL), hdr);
    }
}

#[test]
fn h05_h07_checksum_outside_of_the_frame() {
    let frame = Shape::TCP4.build();
    let len = frame.len() as u16;
    let bounds = |csum_start, csum_offset| {
        let hdr = VirtioNetHdr { flags: NEEDS_CSUM, csum_start, csum_offset, ..VirtioNetHdr::default() };
        assert_eq!(
            ask(&hdr, &frame),
            Err(HeaderLie::ChecksumBounds { start: csum_start, offset: csum_offset })
        );
    };
    bounds(len, 0);
    bounds(len - 1, 0);
    bounds(len + 1, 0);
    bounds(0xffff, 0);
    bounds(0xffff, 0xffff);
    bounds(34, len - 34);
    bounds(34, len - 34 - 1);
    bounds(0, 16);
    bounds(14, 16);
    bounds(33, 16);
}

#[test]
fn h08_checksum_elsewhere_than_the_packet_has_it() {
    let frame = Shape::TCP4.build();
    let place = |csum_start, csum_offset| {
        let hdr = VirtioNetHdr { flags: NEEDS_CSUM, csum_start, csum_offset, ..VirtioNetHdr::default() };
        assert_eq!(
            ask(&hdr, &frame),
            Err(HeaderLie::ChecksumPlace { start: csum_start, offset: csum_offset })
        );
    };
    place(34, 6);
    place(35, 16);
    place(54, 0);
    let mut other = frame;
    other[23] = 132;
    let hdr = VirtioNetHdr { flags: NEEDS_CSUM, csum_start: 40, csum_offset: 8, ..VirtioNetHdr::default() };
    let offload = ask(&hdr, &other).expect("a protocol that we do not know is done as told");
    assert_eq!((offload.csum_start, offload.hdr_len), (40, 0), "and never by a NIC");
}

#[test]
fn h08_checksum_inside_a_udp_tunnel() {
    let frame = Shape { udp: true, ..Shape::TCP4 }.build();
    let hdr = VirtioNetHdr { flags: NEEDS_CSUM, csum_start: 50, csum_offset: 16, ..VirtioNetHdr::default() };
    assert_eq!(ask(&hdr, &frame).map(|o| (o.csum_start, o.hdr_len)), Ok((50, 0)));
    let gso = VirtioNetHdr { gso_type: TCPV4, gso_size: 40, ..hdr };
    assert_eq!(ask(&gso, &frame), Err(HeaderLie::GsoHeaders), "but not together with segmentation");
}

#[test]
fn h09_h15_gso_size() {
    let shape = Shape { payload: 65_000, ..Shape::TCP4 };
    let frame = shape.build_partial();
    let with = |size| ask(&honest(&shape, TCPV4, size), &frame);
    assert_eq!(with(0), Err(HeaderLie::GsoSize(0)));
    assert_eq!(with(1), Err(HeaderLie::GsoSize(1)));
    assert_eq!(with(7), Err(HeaderLie::GsoSize(7)));
    assert_eq!(with(8), Err(HeaderLie::GsoSegments));
    assert_eq!(with(63), Err(HeaderLie::GsoSegments));
    assert_eq!(with(64).map(|o| o.gso_size), Ok(64));
    assert_eq!(
        with(65_000).map(|o| (o.gso, o.checksum)),
        Ok((GsoKind::None, Checksum::Partial)),
        "too small to cut"
    );
    assert_eq!(with(65_535).map(|o| o.gso), Ok(GsoKind::None));
    let udp = Shape { udp: true, payload: 1290, ..shape };
    let with = |size| ask(&honest(&udp, UDP_L4, size), &udp.build_partial());
    assert_eq!(with(10), Err(HeaderLie::GsoSegments));
    assert_eq!(with(11).map(|o| o.gso), Ok(GsoKind::UdpL4), "118 datagrams, the last one short (H16)");
}

#[test]
fn h10_gso_types() {
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let frame = shape.build_partial();
    for unknown in [2, UDP, 6, 0x20, 0x40, ECN, ECN | UDP_L4, ECN | UDP, 0x7f, 0xff] {
        assert_eq!(
            ask(&honest(&shape, unknown, 1000), &frame),
            Err(HeaderLie::GsoType(unknown)),
            "{unknown:#x}"
        );
    }
    for other in [TCPV6, TCPV6 | ECN] {
        assert_eq!(
            ask(&honest(&shape, other, 1000), &frame),
            Err(HeaderLie::GsoHeaders),
            "TCPv6 on an IPv4 frame"
        );
    }
    assert_eq!(ask(&honest(&shape, UDP_L4, 1000), &frame), Err(HeaderLie::GsoHeaders), "UDP on a TCP frame");
    let v6 = Shape { v6: true, ..shape.clone() };
    assert_eq!(ask(&honest(&v6, TCPV4, 1000), &v6.build_partial()), Err(HeaderLie::GsoHeaders));
    assert!(ask(&honest(&shape, TCPV4 | ECN, 1000), &frame).unwrap().gso_ecn);
    let without = VirtioNetHdr { flags: 0, ..honest(&shape, TCPV4, 1000) };
    assert_eq!(ask(&without, &frame), Err(HeaderLie::GsoWithoutChecksum));
}

#[test]
fn h11_what_was_not_negotiated() {
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let frame = shape.build_partial();
    let refused = Err(HeaderLie::NotNegotiated);
    assert_eq!(ask_with(&honest(&shape, 0, 0), &frame, OffloadSet::NONE), refused);
    let tcp = honest(&shape, TCPV4, 1000);
    assert_eq!(ask_with(&tcp, &frame, OffloadSet::CSUM), refused);
    assert_eq!(ask_with(&tcp, &frame, OffloadSet::CSUM | OffloadSet::TSO6 | OffloadSet::USO), refused);
    let tso4 = OffloadSet::CSUM | OffloadSet::TSO4;
    assert!(ask_with(&tcp, &frame, tso4).is_ok());
    assert_eq!(ask_with(&honest(&shape, TCPV4 | ECN, 1000), &frame, tso4), refused);
}

#[test]
fn h11_a_guest_cannot_vouch_for_a_checksum() {
    let hdr = VirtioNetHdr { flags: DATA_VALID, ..VirtioNetHdr::default() };
    let frame = Shape::TCP4.build();
    assert_eq!(ask(&hdr, &frame), Ok(Offload::NONE));
    let kernel = ask_with(&hdr, &frame, OffloadSet::ALL | OffloadSet::DATA_VALID).unwrap();
    assert_eq!(kernel.checksum, Checksum::Valid);
}

#[test]
fn h13_hdr_len_is_never_believed() {
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    for lie in [0, 1, 53, 55, 1000, 0xffff] {
        let hdr = VirtioNetHdr { hdr_len: lie, ..honest(&shape, TCPV4, 1000) };
        assert_eq!(ask(&hdr, &shape.build_partial()).unwrap().hdr_len, 54);
    }
}

#[test]
fn h14_h16_headers_that_cannot_be_cut() {
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let hdr = honest(&shape, TCPV4, 1000);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = shape.build_partial();
        change(&mut frame);
        ask(&hdr, &frame)
    };
    assert_eq!(with(&|f| f[14] = 0x44), Err(HeaderLie::GsoHeaders), "ihl 4");
    assert_eq!(with(&|f| f[46] = 0x40), Err(HeaderLie::GsoHeaders), "doff 4");
    assert_eq!(with(&|f| f[20] |= 0x20), Err(HeaderLie::GsoHeaders), "more fragments");
    assert_eq!(with(&|f| f[21] = 1), Err(HeaderLie::GsoHeaders), "a later fragment");
    assert_eq!(with(&|f| f.push(0)), Err(HeaderLie::GsoLength), "longer than its IP packet");
    assert_eq!(with(&|f| f.truncate(2000)), Err(HeaderLie::GsoHeaders), "shorter than its IP packet");
    let mut deep = shape.build_partial();
    deep.splice(12..12, [0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]);
    let hdr = VirtioNetHdr { csum_start: 46, ..hdr };
    assert_eq!(ask(&hdr, &deep), Err(HeaderLie::GsoHeaders), "three VLAN tags");
}

#[test]
fn headers_beyond_the_private_bytes_are_not_cut() {
    let shape = Shape { payload: 3000, v6: true, tags: 2, options: 10, ..Shape::TCP4 };
    let (frame, hdr) = (shape.build_partial(), honest(&shape, TCPV6, 1000));
    let with = |head: usize| from_virtio_net(&hdr, &frame[..head], frame.len(), OffloadSet::ALL);
    assert_eq!(with(shape.headers()).unwrap().gso, GsoKind::TcpV6);
    assert_eq!(with(shape.headers() - 1), Err(HeaderLie::GsoHeaders));
}

#[test]
fn h18_flags_that_we_do_not_know_are_ignored() {
    let hdr = VirtioNetHdr { flags: 0xfc, ..VirtioNetHdr::default() };
    assert_eq!(ask(&hdr, &Shape::TCP4.build()), Ok(Offload::NONE));
}

//! Segments, put together again.

use std::sync::LazyLock;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mbuf::{Burst, GsoKind, Mbuf, Mempool, NoMbufs};
use pmd::DropReason;
use pmd::offload::{Adapted, OffloadSet, Segmenter, VirtioNetHdr, adapt, from_virtio_net};
use proptest::prelude::*;

use crate::frames::{Shape, bytes, packet, pool, shapes};

/// The packet of that shape, to be cut as a guest would ask for it.
fn to_be_cut(pool: &'static Mempool, shape: &Shape, gso_size: u16) -> Mbuf<'static> {
    let frame = shape.build_partial();
    let hdr = VirtioNetHdr {
        flags: 1,
        gso_type: match (shape.udp, shape.v6) {
            (true, _) => 5,
            (false, false) => 1,
            (false, true) => 4,
        },
        hdr_len: 0,
        gso_size,
        csum_start: shape.l4() as u16,
        csum_offset: shape.checksum_offset(),
    };
    let offload = from_virtio_net(&hdr, &frame, frame.len(), OffloadSet::ALL).unwrap();
    let mut mbuf = packet(pool, &frame, &[]);
    mbuf.set_offload(offload);
    mbuf.set_port(3);
    mbuf
}

/// Checks segment `index` of `count` with the oracle; returns its payload.
fn check(segment: &[u8], shape: &Shape, index: usize, count: usize, sent: usize) -> Vec<u8> {
    let parsed = SlicedPacket::from_ethernet(segment).unwrap();
    let (source, destination) = match parsed.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.total_len()), segment.len() - shape.l3());
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(header.identification(), shape.id.wrapping_add(index as u16));
            (header.source().to_vec(), header.destination().to_vec())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.payload_length()), segment.len() - shape.l4());
            (header.source().to_vec(), header.destination().to_vec())
        }
        NetSlice::Arp(_) => unreachable!("made as IP"),
    };
    match parsed.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(tcp.sequence_number(), shape.seq.wrapping_add(sent as u32));
            assert_eq!((tcp.fin(), tcp.psh()), (index + 1 == count, index + 1 == count));
            assert_eq!((tcp.cwr(), tcp.ack()), (index == 0, true));
            let right = match (<[u8; 4]>::try_from(&source[..]), <[u8; 4]>::try_from(&destination[..])) {
                (Ok(s), Ok(d)) => tcp.calc_checksum_ipv4(s, d).unwrap(),
                _ => tcp
                    .calc_checksum_ipv6(source.try_into().unwrap(), destination.try_into().unwrap())
                    .unwrap(),
            };
            assert_eq!(tcp.checksum() % 0xffff, right % 0xffff);
            tcp.payload().to_vec()
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), segment.len() - shape.l4());
            let header = udp.to_header();
            let right = match (<[u8; 4]>::try_from(&source[..]), <[u8; 4]>::try_from(&destination[..])) {
                (Ok(s), Ok(d)) => header.calc_checksum_ipv4_raw(s, d, udp.payload()).unwrap(),
                _ => header
                    .calc_checksum_ipv6_raw(
                        source.try_into().unwrap(),
                        destination.try_into().unwrap(),
                        udp.payload(),
                    )
                    .unwrap(),
            };
            assert_eq!(udp.checksum(), right);
            udp.payload().to_vec()
        }
        other => panic!("{other:?}"),
    }
}

static POOL: LazyLock<&'static Mempool> = LazyLock::new(|| pool(1024, 512));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn put_together_are_the_packet(shape in shapes(9000), gso_size in 200..3000u16) {
        let pool = *POOL;
        let whole = shape.build();
        prop_assume!(shape.payload > usize::from(gso_size));
        let segmenter = Segmenter::new(to_be_cut(pool, &shape, gso_size)).unwrap();
        let count = segmenter.remaining();
        prop_assert_eq!(count, shape.payload.div_ceil(gso_size.into()));
        let mut payload = Vec::new();
        for (i, segment) in segmenter.enumerate() {
            let segment = segment.unwrap();
            prop_assert!(segment.offload().is_none() && segment.port() == 3);
            payload.extend(check(&bytes(&segment), &shape, i, count, payload.len()));
        }
        prop_assert_eq!(&payload[..], &whole[shape.headers()..]);
        prop_assert_eq!(pool.balance().out, 0);
    }
}

#[test]
fn a_burst_at_a_time() {
    let pool = pool(256, 2048);
    let shape = Shape { payload: 65_000, ..Shape::TCP4 };
    let mut segmenter = Segmenter::new(to_be_cut(pool, &shape, 1000)).unwrap();
    let mut sizes = Vec::new();
    while segmenter.remaining() > 0 {
        let mut burst = Burst::new();
        sizes.push(segmenter.fill(&mut burst).unwrap());
    }
    assert_eq!(sizes, [32, 32, 1]);
}

#[test]
fn without_mbufs_nothing_is_lost_and_the_same_segment_comes_next() {
    let pool = pool(8, 2048);
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let mut segmenter = Segmenter::new(to_be_cut(pool, &shape, 1000)).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| pool.alloc(0).ok()).collect();
    assert!(matches!(segmenter.next(), Some(Err(NoMbufs))));
    drop(taken);
    let mut sent = 0;
    for (i, segment) in segmenter.enumerate() {
        sent += check(&bytes(&segment.unwrap()), &shape, i, 3, sent).len();
    }
    assert_eq!(sent, 3000);
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn a_packet_that_no_longer_is_what_it_was_is_dropped() {
    let pool = pool(8, 2048);
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let mut mbuf = to_be_cut(pool, &shape, 1000);
    mbuf.data_mut().unwrap()[23] = 17;
    assert_eq!(Segmenter::new(mbuf).unwrap_err(), DropReason::TxOffload);
    let mut mbuf = to_be_cut(pool, &shape, 1000);
    let mut offload = *mbuf.offload();
    offload.gso_size = 0;
    mbuf.set_offload(offload);
    assert_eq!(Segmenter::new(mbuf).unwrap_err(), DropReason::TxOffload);
    let plain = packet(pool, &shape.build(), &[]);
    assert_eq!(Segmenter::new(plain).unwrap_err(), DropReason::TxOffload);
}

#[test]
fn h12_a_receiver_gets_what_it_negotiated() {
    let pool = pool(64, 2048);
    let shape = Shape { payload: 3000, ..Shape::TCP4 };
    let adapted = |accepted| adapt(to_be_cut(pool, &shape, 1000), accepted).unwrap();
    let tso4 = OffloadSet::CSUM | OffloadSet::TSO4;
    assert!(matches!(adapted(tso4), Adapted::One(m) if m.offload().gso == GsoKind::TcpV4));
    for less in [OffloadSet::NONE, OffloadSet::CSUM, OffloadSet::CSUM | OffloadSet::TSO6, OffloadSet::TSO4] {
        let Adapted::Many(segments) = adapted(less) else { panic!("{less:?} takes no TCPv4 segmentation") };
        assert!(segments.map(Result::unwrap).all(|s| s.offload().is_none()));
    }
    let small = Shape::TCP4;
    let Ok(Adapted::One(done)) = adapt(to_be_cut(pool, &small, 1000), OffloadSet::NONE) else {
        panic!("not cut")
    };
    assert_eq!(bytes(&done), small.build());
}

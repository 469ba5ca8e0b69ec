//! The parser against etherparse, and against anything at all.

use etherparse::{SlicedPacket, TransportSlice};
use mbuf::{Checksum, GsoKind};
use pmd::offload::{Headers, OffloadSet, Transport, VirtioNetHdr, from_virtio_net, parse, to_virtio_net};
use proptest::prelude::*;

use crate::frames::{Shape, shapes};

/// Where etherparse finds the transport header and its payload, if it is sure of one.
fn oracle(frame: &[u8]) -> Option<(Transport, usize, usize)> {
    let at = |part: &[u8]| part.as_ptr() as usize - frame.as_ptr() as usize;
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) => {
            Some((Transport::Tcp, at(tcp.slice()), at(tcp.slice()) + tcp.header_slice().len()))
        }
        TransportSlice::Udp(udp) => Some((Transport::Udp, at(udp.slice()), at(udp.slice()) + 8)),
        _ => None,
    }
}

fn found(h: &Headers) -> Option<(Transport, usize, usize)> {
    (h.transport != Transport::Unknown).then_some((h.transport, h.l4, h.payload))
}

/// A sound frame with up to six bytes of its headers changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    (shapes(300), proptest::collection::vec((0..100usize, any::<u8>()), 0..6)).prop_map(|(shape, changes)| {
        let mut frame = shape.build();
        for (at, byte) in changes {
            if let Some(b) = frame.get_mut(at) {
                *b = byte;
            }
        }
        frame
    })
}

fn any_header() -> impl Strategy<Value = VirtioNetHdr> {
    let types = prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81), Just(0x84), any::<u8>()];
    let numbers = || prop_oneof![0..200u16, any::<u16>()];
    let starts = prop_oneof![Just(34u16), Just(54), Just(38), Just(58), 0..200u16, any::<u16>()];
    let offsets = prop_oneof![Just(6u16), Just(16), 0..200u16, any::<u16>()];
    (prop_oneof![Just(1u8), any::<u8>()], types, numbers(), numbers(), starts, offsets).prop_map(
        |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)| VirtioNetHdr {
            flags,
            gso_type,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

/// Whatever is accepted is consistent with the frame, and the way out says the same.
fn check_accepted(hdr: &VirtioNetHdr, frame: &[u8], head: usize) -> Result<(), TestCaseError> {
    let head = &frame[..head];
    let Ok(offload) = from_virtio_net(hdr, head, frame.len(), OffloadSet::ALL) else { return Ok(()) };
    if offload.checksum == Checksum::Partial {
        let field = usize::from(offload.csum_start) + usize::from(offload.csum_offset);
        prop_assert!(field + 2 <= frame.len() && offload.csum_start >= 34);
    }
    if offload.gso != GsoKind::None {
        let h = parse(head, frame.len());
        prop_assert_eq!(usize::from(offload.hdr_len), h.payload);
        prop_assert_eq!(usize::from(offload.csum_start), h.l4);
        prop_assert!(h.payload <= head.len() && h.l3_end == frame.len());
        prop_assert!(offload.gso_size > 0 && usize::from(offload.gso_size) < frame.len() - h.payload);
    }
    let again =
        from_virtio_net(&to_virtio_net(&offload, OffloadSet::ALL), head, frame.len(), OffloadSet::ALL);
    prop_assert_eq!(again, Ok(offload));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sound_frames_parse_alike(shape in shapes(300)) {
        let frame = shape.build();
        let h = parse(&frame, frame.len());
        prop_assert_eq!(found(&h), oracle(&frame));
        prop_assert_eq!((h.l3, h.l4, h.payload), (shape.l3(), shape.l4(), shape.headers()));
        prop_assert_eq!(h.l3_end, frame.len());
    }

    #[test]
    fn what_is_sure_of_a_damaged_frame_is_what_the_oracle_finds(frame in damaged()) {
        let h = parse(&frame, frame.len());
        if let Some(found) = found(&h) {
            prop_assert_eq!(Some(found), oracle(&frame));
        }
    }

    #[test]
    fn anything_is_survived(frame in proptest::collection::vec(any::<u8>(), 0..200), more in 0..100usize) {
        let h = parse(&frame, frame.len() + more);
        prop_assert!(h.payload <= frame.len());
    }

    #[test]
    fn every_truncation_is_survived(shape in shapes(20), hdr in any_header()) {
        let frame = shape.build();
        for head in 0..frame.len() {
            check_accepted(&hdr, &frame, head)?;
            check_accepted(&hdr, &frame[..head], head)?;
        }
    }

    #[test]
    fn h20_what_is_accepted_is_consistent(frame in damaged(), hdr in any_header()) {
        check_accepted(&hdr, &frame, frame.len().min(128))?;
    }

    #[test]
    fn h20_honest_starts_with_random_numbers(shape in shapes(3000), hdr in any_header()) {
        let hdr = VirtioNetHdr { csum_start: shape.l4() as u16, csum_offset: shape.checksum_offset(), ..hdr };
        let frame = shape.build_partial();
        check_accepted(&hdr, &frame, frame.len().min(192))?;
    }
}

#[test]
fn the_shapes_cover_what_they_are_for() {
    assert_eq!(oracle(&Shape::TCP4.build()), Some((Transport::Tcp, 34, 54)));
}

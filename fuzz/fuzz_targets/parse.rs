//! Any bytes as the head of a frame of any length: offsets stay inside, and whoever sees more of a frame sees the same headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pmd::offload::{Headers, Network, Transport, parse};

/// What every frame's headers must be.
fn check(h: &Headers, head: &[u8], frame_len: usize) {
    assert!(h.tags <= 2);
    assert!(h.l3_end <= frame_len);
    assert!(h.payload <= head.len());
    if h.network != Network::Unknown {
        assert_eq!(h.l3, 14 + 4 * usize::from(h.tags));
        assert!(h.l3 < h.l4 && h.l4 <= h.l3_end);
    }
    if h.fragment {
        assert_eq!(h.transport, Transport::Unknown);
    }
    if h.transport == Transport::Unknown {
        assert_eq!(h.payload, 0);
    } else {
        assert!(h.network != Network::Unknown && h.l4 < h.payload && h.payload <= h.l3_end);
        // At most 6 extension headers of at most 2 KiB each.
        assert!(h.l4 - h.l3 <= 40 + 6 * 2048);
        let field = h.transport.checksum_offset().expect("a transport that is known");
        assert!(h.l4 + usize::from(field) + 2 <= h.payload, "the checksum lies in the header");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((more, head)) = input.split_first_chunk::<2>() else { return };
    let frame_len = head.len() + usize::from(u16::from_le_bytes(*more));
    let whole = parse(head, frame_len);
    check(&whole, head, frame_len);
    for len in (0..head.len()).step_by(7) {
        let part = parse(&head[..len], frame_len);
        check(&part, &head[..len], frame_len);
        if part.network != Network::Unknown {
            assert_eq!((part.network, part.l3, part.l3_end), (whole.network, whole.l3, whole.l3_end));
        }
        if part.transport != Transport::Unknown {
            assert_eq!(part, whole);
        }
    }
});

//! Any virtio-net header before any frame: what is accepted holds for that frame, and what a receiver cannot take is done in
//! software as an independent reader of RFC 1071, 791, 8200, 9293 and 768 expects it.
//!
//! Two bytes choose what the receiver takes and how the frame is cut into mbufs, two say how many bytes follow the head, ten are
//! the header; the rest is the head.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mbuf::{Checksum, GsoKind, Mbuf, Mempool, MempoolConfig, Offload, PageSize, ZoneConfig};
use pmd::offload::{
    Adapted, Headers, Network, OffloadSet, Segmenter, Transport, VirtioNetHdr, adapt, from_virtio_net, moved,
    parse, to_virtio_net,
};
use polder_fuzz::input::Input;

/// As many bytes of a frame as a private copy holds.
const HEAD: usize = 192;
/// More than the largest frame: what is longer is dropped before.
const LONGEST: usize = 65_535 + 22;

const SETS: [OffloadSet; 8] = [
    OffloadSet::NONE,
    OffloadSet::CSUM,
    OffloadSet::CSUM.union(OffloadSet::TSO4),
    OffloadSet::CSUM.union(OffloadSet::TSO6),
    OffloadSet::CSUM.union(OffloadSet::USO),
    OffloadSet::CSUM.union(OffloadSet::TSO4).union(OffloadSet::TSO6),
    OffloadSet::ALL,
    OffloadSet::ALL.union(OffloadSet::DATA_VALID),
];

fn pool() -> &'static Mempool {
    static POOL: OnceLock<&'static Mempool> = OnceLock::new();
    POOL.get_or_init(|| {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 4096, cache: 0, zone, ..MempoolConfig::default() };
        Mempool::new(&config).expect("a pool")
    })
}

/// The frame in mbufs, the first of them with at most `first` bytes.
fn mbufs(frame: &[u8], first: usize) -> Mbuf<'static> {
    let mut mbuf = pool().alloc(1).expect("enough of them");
    let (now, mut rest) = frame.split_at(frame.len().min(first).min(mbuf.tailroom()));
    mbuf.append(now.len()).expect("room").copy_from_slice(now);
    while !rest.is_empty() {
        let mut more = pool().alloc(1).expect("enough of them");
        let (now, behind) = rest.split_at(rest.len().min(more.tailroom()));
        more.append(now.len()).expect("room").copy_from_slice(now);
        assert!(mbuf.chain(more).is_ok());
        rest = behind;
    }
    mbuf
}

fn bytes(mbuf: &Mbuf<'_>) -> Vec<u8> {
    let mut bytes = vec![0; mbuf.len()];
    assert_eq!(mbuf.copy_to(0, &mut bytes), bytes.len());
    bytes
}

/// RFC 1071, one word after the other; not complemented.
fn sum(bytes: &[u8], start: u64) -> u16 {
    let words = bytes.chunks(2).map(|p| u64::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)])));
    let mut sum: u64 = start + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn pseudo_header(frame: &[u8], h: &Headers) -> u64 {
    let addresses = if h.network == Network::V6 { 8..40 } else { 12..20 };
    let protocol = if h.transport == Transport::Tcp { 6 } else { 17 };
    u64::from(sum(&frame[h.l3..][addresses], 0)) + protocol + (h.l3_end - h.l4) as u64
}

/// The rules of an accepted header (virtio 1.3 §5.1.6.2).
fn check_accepted(offload: &Offload, frame: &[u8], allowed: OffloadSet) {
    assert!(allowed.covers(offload) || offload.checksum == Checksum::Valid);
    if offload.checksum == Checksum::Partial {
        assert!(usize::from(offload.csum_start) + usize::from(offload.csum_offset) + 2 <= frame.len());
    }
    if offload.gso != GsoKind::None {
        assert_eq!(offload.checksum, Checksum::Partial);
        assert!(offload.gso_size > 0 && usize::from(offload.hdr_len) <= frame.len().min(HEAD));
    }
    for by in [4, -4, i16::MAX, i16::MIN] {
        let _ = moved(offload, by);
    }
}

/// A packet that went out as one: as it was, or with its checksum finished.
fn check_one(out: &Mbuf<'_>, was: &Offload, frame: &[u8], accepted: OffloadSet) {
    assert!(accepted.covers(out.offload()));
    let hdr = to_virtio_net(out.offload(), accepted);
    let got = bytes(out);
    if out.offload() == was {
        assert_eq!(got, frame);
        let allowed = accepted.union(OffloadSet::DATA_VALID);
        let again = from_virtio_net(&hdr, &frame[..frame.len().min(HEAD)], frame.len(), allowed);
        assert!(again.is_ok(), "our own header: {again:?}");
        return;
    }
    let start = usize::from(was.csum_start);
    let at = start + usize::from(was.csum_offset);
    let mut want = frame.to_vec();
    let finished = !sum(&frame[start..], 0);
    want[at..at + 2].copy_from_slice(&if finished == 0 { 0xffff } else { finished }.to_be_bytes());
    assert_eq!(got, want);
    assert_eq!(out.offload().checksum, Checksum::Valid);
}

/// Segments: the payload cut into pieces of at most `gso_size`, each a sound packet.
fn check_segments(segments: Segmenter<'_>, was: &Offload, frame: &[u8]) {
    let headers = parse(frame, frame.len());
    let (mut at, count) = (headers.payload, segments.remaining());
    let mut seen = 0;
    for segment in segments {
        let segment = segment.expect("enough mbufs");
        let got = bytes(&segment);
        let h = parse(&got, got.len());
        assert_eq!(
            (h.network, h.transport, h.l4, h.payload),
            (headers.network, headers.transport, headers.l4, headers.payload)
        );
        assert_eq!(h.l3_end, got.len(), "the IP length is the segment's");
        let payload = &got[h.payload..];
        assert!(payload.len() <= usize::from(was.gso_size));
        assert_eq!(payload, &frame[at..at + payload.len()]);
        assert_eq!(sum(&got[h.l4..], pseudo_header(&got, &h)), 0xffff, "the transport checksum");
        if h.network == Network::V4 {
            assert_eq!(sum(&got[h.l3..h.l4], 0), 0xffff, "the IP checksum");
        }
        assert!(segment.offload().is_none());
        at += payload.len();
        seen += 1;
    }
    assert_eq!((at, seen), (frame.len(), count));
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let (Some(choice), Some(cut), Some(more)) = (input.byte(), input.byte(), input.u16()) else { return };
    let Some((hdr, head)) = input.0.split_first_chunk::<{ VirtioNetHdr::LEN }>() else { return };
    let (allowed, accepted) = (SETS[usize::from(choice >> 4) % 8], SETS[usize::from(choice) % 8]);
    let len = (head.len() + usize::from(more)).min(LONGEST).max(head.len());
    let mut frame = head.to_vec();
    frame.extend((head.len()..len).map(|i| (i * 7) as u8));
    let hdr = VirtioNetHdr::from_le_bytes(hdr);
    let Ok(offload) = from_virtio_net(&hdr, &frame[..frame.len().min(HEAD)], frame.len(), allowed) else {
        return;
    };
    check_accepted(&offload, &frame, allowed);
    let mut mbuf = mbufs(&frame, HEAD.max(usize::from(cut) * 8));
    mbuf.set_offload(offload);
    // Another holder of the same packet must not see what is done to it.
    let other = (cut % 3 == 0).then(|| mbuf.share());
    match adapt(mbuf, accepted) {
        Ok(Adapted::One(out)) => check_one(&out, &offload, &frame, accepted),
        Ok(Adapted::Many(segments)) => check_segments(segments, &offload, &frame),
        Err(_) => {}
    }
    if let Some(other) = other {
        assert_eq!(bytes(&other), frame);
    }
    assert_eq!(pool().balance().out, 0);
});

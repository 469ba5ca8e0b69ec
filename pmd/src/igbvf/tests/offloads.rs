//! What the card makes of an offload, against what our software makes of it.

use mbuf::{Checksum, GsoKind, Offload};
use proptest::prelude::*;

use super::frames::{Shape, bytes, packet, shapes};
use super::*;
use crate::offload::{OffloadSet, Segmenter, VirtioNetHdr, finish, from_virtio_net};

fn asked(shape: &Shape, gso_size: u16) -> Offload {
    let gso_type = match (gso_size, shape.udp, shape.v6) {
        (0, ..) => 0,
        (_, true, _) => 5,
        (_, false, false) => 1,
        (_, false, true) => 4,
    };
    let (csum_start, csum_offset) = (shape.l4() as u16, shape.checksum_offset());
    let hdr = VirtioNetHdr { flags: 1, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset };
    let frame = shape.build_partial();
    from_virtio_net(&hdr, &frame, frame.len(), OffloadSet::ALL).unwrap()
}

fn owing(pool: &'static Mempool, shape: &Shape, gso_size: u16) -> Mbuf<'static> {
    let mut mbuf = packet(pool, &shape.build_partial(), &[]);
    mbuf.set_offload(asked(shape, gso_size));
    mbuf
}

/// A frame as it is on the wire. The driver pads what it sends; the last segment that a card cuts may be short, and is padded
/// by its MAC (82576 datasheet, TCTL.PSP), which the model has not.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// What software makes of it, and the padding that the wire asks for.
fn in_software(pool: &'static Mempool, shape: &Shape, gso_size: u16) -> Vec<Vec<u8>> {
    let mbuf = owing(pool, shape, gso_size);
    let frames: Vec<_> = if mbuf.offload().gso == GsoKind::None {
        vec![bytes(&finish(mbuf).unwrap())]
    } else {
        Segmenter::new(mbuf).unwrap().map(|s| bytes(&s.unwrap())).collect()
    };
    frames.into_iter().map(padded).collect()
}

/// What a card of its own makes of it, on the wire, and what software does.
fn by_card_and_in_software(shape: &Shape, gso_size: u16) -> [Vec<Vec<u8>>; 2] {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let expected = in_software(bare.pool, shape, gso_size);
    let mbuf = owing(bare.pool, shape, gso_size);
    assert!(bare.send(mbuf));
    let sent = card.sent(0).into_iter().map(padded).collect();
    bare.end();
    [sent, expected]
}

/// Whether the card did the work.
fn contexts(bare: &mut Bare) -> bool {
    bare.tx().context.is_some()
}

#[test]
fn the_card_sums_and_cuts_as_software_does() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    for (v6, tags, options) in [(false, 0, 0), (true, 0, 3), (false, 2, 10), (true, 1, 0)] {
        let shape = Shape { v6, tags, options, payload: 8000, ..Shape::TCP4 };
        let expected = in_software(bare.pool, &shape, 1400);
        assert_eq!(expected.len(), 6);
        assert!({
            let packet = owing(bare.pool, &shape, 1400);
            bare.send(packet)
        });
        assert!(contexts(&mut bare) && card.sent(0) == expected, "{shape:?}");
        let shape = Shape { payload: 1000, ..shape };
        assert!({
            let packet = owing(bare.pool, &shape, 0);
            bare.send(packet)
        });
        assert!(card.sent(0) == [shape.build()], "{shape:?}");
    }
    bare.end();
}

#[test]
fn a_context_is_written_once_for_packets_alike() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let shape = Shape { payload: 1000, ..Shape::TCP4 };
    let mut used = Vec::new();
    card.with(0, |vf| vf.tx_stands = true);
    for _ in 0..3 {
        let before = bare.tx().room();
        let mbuf = owing(bare.pool, &shape, 0);
        bare.send(mbuf);
        used.push(before - bare.tx().room());
    }
    assert_eq!(used, [2, 1, 1]);
    card.with(0, |vf| vf.tx_stands = false);
    card.ring(0);
    assert!(card.sent(0) == [shape.build(), shape.build(), shape.build()]);
    bare.end();
}

/// H19: what would be an offence never reaches the card, and a packet that software can do something sensible with goes out.
#[test]
fn h19_a_guests_lies_do_not_reach_a_descriptor() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let shape = Shape { payload: 3150, ..Shape::TCP4 };
    let mut lie = |change: &dyn Fn(&mut Offload)| {
        let mut mbuf = owing(bare.pool, &shape, 1000);
        let mut offload = *mbuf.offload();
        change(&mut offload);
        mbuf.set_offload(offload);
        bare.send(mbuf);
        card.sent(0).len()
    };
    assert_eq!(lie(&|o| o.gso_size = 0), 0, "MSS 0");
    assert_eq!(lie(&|o| o.gso_size = 1), 0, "more segments than there may be");
    assert_eq!(lie(&|o| o.gso = GsoKind::TcpV6), 0, "the other IP version");
    assert_eq!(lie(&|o| o.hdr_len = 0), 4, "not parsed: in software");
    assert_eq!(lie(&|o| o.hdr_len = 200), 4, "headers that are not the packet's: in software");
    assert_eq!(lie(&|o| o.csum_start = 35), 4, "the same");
    assert_eq!(lie(&|o| o.gso_ecn = true), 4, "ECN: in software");
    assert_eq!(lie(&|o| o.gso_size = 63), 50, "an MSS too small for the card: in software");
    assert!(!contexts(&mut bare), "the card was asked for nothing");
    for n in 0..60 {
        bare.send_bytes(&frame::<60>()[..n.max(1)]);
    }
    let sent = card.sent(0);
    assert!(sent.len() == 46 && sent.iter().all(|f| f.len() == 60), "14 to 59 bytes, padded");
    assert!(sent[0][14..].iter().all(|b| *b == 0), "with zeroes");
    let long = Shape { payload: 9000, ..Shape::TCP4 };
    let mbuf = owing(bare.pool, &long, 8999);
    bare.send(mbuf);
    assert!(!contexts(&mut bare) && card.sent(0).len() < 2, "a segment longer than the wire takes");
    bare.end();
}

#[test]
fn a_flooded_packet_is_not_changed_under_the_others() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let shape = Shape { payload: 4000, ..Shape::TCP4 };
    let packet = owing(bare.pool, &shape, 1000);
    let before = bytes(&packet);
    assert!(bare.send(packet.share()));
    assert_eq!(bytes(&packet), before);
    assert_eq!(card.sent(0).len(), 4);
    drop(packet);
    bare.end();
}

#[test]
fn the_cards_word_on_checksums_is_passed_on() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    let good = Shape::TCP4.build();
    let mut bad = good.clone();
    bad[60] ^= 1;
    let udp = Shape { udp: true, v6: true, ..Shape::TCP4 }.build();
    for (f, word) in [
        (&good, Checksum::Valid),
        (&bad, Checksum::Unknown),
        (&udp, Checksum::Valid),
        (&FRAME.to_vec(), Checksum::Unknown),
    ] {
        assert!(card.receive(0, f));
        let (mut burst, counters) = (Burst::new(), QueueCounters::default());
        assert_eq!(bare.rx().rx_burst(&mut burst, &counters), 1);
        assert_eq!(burst[0].offload().checksum, word);
    }
    bare.end();
}

#[test]
fn a_last_segment_of_one_byte_is_as_software_would_have_it() {
    let shape = Shape { payload: 455 * 13 + 1, ..Shape::TCP4 };
    let [sent, expected] = by_card_and_in_software(&shape, 455);
    assert!(sent == expected && sent.len() == 14, "{} frames", sent.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packet_leaves_as_software_would_have_it(shape in shapes(12_000), mss in 8..3000u16, cut: bool) {
        let shape = Shape { payload: if cut { shape.payload } else { shape.payload % 1400 }, ..shape };
        let small = usize::from(mss) * 50 < shape.payload;
        let mss = if !cut { 0 } else if small { 1400 } else { mss };
        let [sent, expected] = by_card_and_in_software(&shape, mss);
        let fits = expected.iter().all(|f| f.len() <= 9014);
        prop_assert!(!fits || sent == expected, "{} and {} frames", sent.len(), expected.len());
    }
}

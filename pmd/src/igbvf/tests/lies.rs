//! N12: what a card writes back need not be true.

use proptest::prelude::*;

use super::*;
use crate::igbvf::desc::rx::{BROKEN, DD, EOP, LENGTH_SHIFT};

const LEN: u64 = 0xffff << LENGTH_SHIFT;

/// One frame of `len` bytes under a lie.
fn lie(bare: &mut Bare, len: usize, lie: impl FnMut(usize, u64) -> u64 + Send + 'static) -> Vec<Vec<u8>> {
    let card = bare.card.clone();
    card.with(0, |vf| vf.rx_lie = Some(Box::new(lie)));
    assert!(card.receive(0, &frame::<9000>()[..len]));
    card.with(0, |vf| vf.rx_lie = None);
    bare.receive()
}

#[test]
fn n12_lengths_beyond_the_buffer_and_of_nothing() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    for len in [0u64, 1, 13, 2049, 4096, 65_535] {
        let got = lie(&mut bare, 60, move |_, word| word & !LEN | len << LENGTH_SHIFT);
        assert_eq!(got.len(), 0, "{len}");
    }
    assert_eq!((bare.rx_drops(DropReason::RxTooShort), bare.rx_drops(DropReason::RxTooLong)), (3, 3));
    let got = lie(&mut bare, 60, |_, word| word & !LEN | 2048 << LENGTH_SHIFT);
    assert_eq!(
        (got.len(), got[0].len()),
        (1, 2048),
        "within the buffer: the card's word, but nobody else's memory"
    );
    assert_eq!(lie(&mut bare, 60, |_, word| word), [&frame::<9000>()[..60]]);
    bare.end();
}

#[test]
fn n12_a_broken_frame_is_dropped_and_the_next_is_not() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    for bit in (0..32).filter(|bit| BROKEN & 1 << bit != 0) {
        assert_eq!(lie(&mut bare, 60, move |_, word| word | 1 << bit).len(), 0);
        assert_eq!(lie(&mut bare, 60, |_, word| word).len(), 1);
    }
    assert_eq!(bare.rx_drops(DropReason::RxError), 5);
    assert_eq!(bare.rx_counters.packets.get(), 10);
    bare.end();
}

#[test]
fn n12_a_frame_that_does_not_end_is_cut_off() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    for _ in 0..5000 {
        assert_eq!(lie(&mut bare, 60, |_, word| word & !EOP).len(), 0);
        assert!(bare.pool.balance().out <= 128 + 6, "what is hopeless is not kept");
    }
    assert_eq!(bare.rx().check(), Some("a received frame does not end"));
    assert_eq!(lie(&mut bare, 60, |_, word| word).len(), 0, "that was its end");
    assert_eq!((bare.rx_counters.packets.get(), bare.rx_drops(DropReason::RxTooLong)), (1, 1));
    bare.end();
}

#[test]
fn n12_descriptors_completed_out_of_order_are_noticed() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    assert!(card.receive(0, &FRAME));
    assert_eq!((bare.receive().len(), bare.rx().check()), (1, None));
    card.with(0, |vf| vf.rx_skips = 2);
    assert!(card.receive(0, &FRAME));
    assert_eq!(bare.receive().len(), 0, "the one before it did not come");
    let found: Vec<_> = (0..3).map(|_| bare.rx().check()).collect();
    assert_eq!(found, [None, None, Some("receive descriptors were completed out of order")]);
    bare.end();
}

#[test]
fn n12_a_descriptor_done_without_a_frame() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    card.with(0, |vf| {
        for i in 0..64 {
            vf.scribble(i, u64::MAX);
        }
    });
    assert_eq!(bare.receive().len(), 0, "64 broken frames");
    card.with(0, |vf| vf.scribble(3, DD));
    assert_eq!(bare.receive().len(), 0);
    assert!(bare.rx_counters.packets.get() >= 64);
    bare.stop();
    bare.start();
    assert!(card.receive(0, &FRAME));
    assert_eq!(bare.receive(), [FRAME]);
    bare.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any words at all: nothing panics, nothing is read beyond a buffer, every packet is counted, every mbuf comes back.
    #[test]
    fn n12_any_write_back_is_survived(
        words in proptest::collection::vec((any::<u64>(), any::<u64>(), 14..9000usize), 1..60),
    ) {
        let card = Card::new(1);
        let mut bare = Bare::new(&card, 0);
        let mut good = 0;
        for (flip, mask, len) in words {
            // Few bits flipped as a rule: most words are nearly right.
            let flips = flip & mask & mask.rotate_left(17) & mask.rotate_left(31);
            let got = lie(&mut bare, len, move |i, word| word ^ flips.rotate_left(i as u32 * 7) | DD);
            prop_assert!(got.iter().all(|f| f.len() >= 14 && f.len() <= 5 * 2048 + 4));
            good += got.len() as u64;
        }
        let drops: u64 = bare.rx_counters.drops.iter().map(crate::Counter::get).sum();
        prop_assert_eq!(bare.rx_counters.packets.get(), good + drops);
        bare.rx().check();
        bare.end();
    }

    /// The same for whatever is scribbled anywhere into the ring.
    #[test]
    fn n12_scribbles_are_survived(scribbles in proptest::collection::vec((0..64usize, any::<u64>()), 1..200)) {
        let card = Card::new(1);
        let mut bare = Bare::new(&card, 0);
        for (i, word) in scribbles {
            card.with(0, |vf| vf.scribble(i, word));
            let _ = bare.receive();
            bare.rx().check();
        }
        bare.stop();
        prop_assert_eq!(bare.pool.balance().out, 0);
    }
}

//! What the driver does on rings of either format alike.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use vhost::driver::{Cut, GuestRam, Order, PostError, RamConfig, RingConfig, RingConfigError, TxRing};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1, hdr_len};

use crate::driver_device::{Chain, Device};
use crate::rig::{CUTS, Format, Packed, Split, config, deliver, frame, hdr, merged, packet, rx, tx};

/// A test for each format of each function.
macro_rules! both {
    ($($test:ident),* $(,)?) => {
        mod split { $(#[test] fn $test() { super::$test::<super::Split>(); })* }
        mod packed { $(#[test] fn $test() { super::$test::<super::Packed>(); })* }
    };
}

both! {
    transmits_in_every_size_from_before_the_wrap,
    transmits_through_every_cut_direct_and_indirect,
    shows_nothing_before_it_publishes_and_says_when_it_is_full,
    prepared_frames_circulate_with_a_word_changed,
    receives_in_every_size_from_before_the_wrap,
    receives_through_every_cut,
    gathers_merged_buffers,
    in_order_batches_need_one_word,
    wants_calls_only_while_it_waits,
    what_no_ring_can_be_is_refused,
    posts_what_came_back_last_first_as_linux_does,
    posts_in_no_order_if_shuffled,
    headers_of_posted_buffers_are_foreign_if_wanted,
}

/// Over the wraps of ring and index, and some rounds more of a small ring.
fn frames_for(size: u16) -> u64 {
    u64::from(size) + 3 * u64::from(size.min(300)) + 80
}

fn transmits_in_every_size_from_before_the_wrap<F: Format>() {
    for size in F::sizes() {
        let (mut ring, mut device) = tx::<F>(config::<F>(size));
        assert_eq!(ring.queue().slots(), usize::from(size));
        for n in 0..frames_for(size) {
            let sent = frame(n, 60 + (n % 50) as usize);
            ring.send(hdr(n), &sent).unwrap();
            let chain = device.take().expect("it was published");
            assert!(device.take().is_none(), "one, and no more");
            assert_eq!(device.read(&chain), packet(F::FEATURES, hdr(n), &sent), "size {size}, frame {n}");
            device.give(&chain, 0);
            device.publish();
        }
        assert_eq!(ring.reclaim(), Ok(1));
        assert_eq!(ring.room(), usize::from(size));
    }
}

fn transmits_through_every_cut_direct_and_indirect<F: Format>() {
    for (cut, indirect, features) in CUTS
        .into_iter()
        .flat_map(|cut| [(cut, false), (cut, true)])
        .flat_map(|(cut, indirect)| [(cut, indirect, 0), (cut, indirect, F_VERSION_1 | F_EVENT_IDX)])
    {
        let features = F::FEATURES | features | if indirect { F_INDIRECT_DESC } else { 0 };
        let config = RingConfig { buffer_bytes: 300, cut, indirect, features, ..config::<F>(F::odd(128)) };
        let (mut ring, mut device) = tx::<F>(config);
        for n in 0..1000 {
            let sent = frame(n, (n % 289) as usize);
            ring.send(hdr(n), &sent).unwrap();
            let chain = device.take().unwrap();
            assert_eq!(chain.indirect, indirect);
            assert!(cut != Cut::HeaderApart || chain.pieces[0].len as usize == hdr_len(features));
            assert_eq!(device.read(&chain), packet(features, hdr(n), &sent), "{cut:?}, {indirect}, {n}");
            device.give(&chain, 0);
            device.publish();
        }
    }
}

/// A burst is shown whole: by the index, or by its first descriptor's flags.
fn shows_nothing_before_it_publishes_and_says_when_it_is_full<F: Format>() {
    let (mut ring, mut device) = tx::<F>(RingConfig { base: 0, ..config::<F>(8) });
    for n in 0..8 {
        ring.post(hdr(n), &frame(n, 60)).unwrap();
    }
    assert_eq!(ring.post(hdr(8), &[0; 60]), Err(PostError::Full));
    assert!(device.take().is_none(), "nothing was published yet");
    ring.publish();
    for n in 0..8 {
        let chain = device.take().expect("all at once");
        assert_eq!(chain.id, n as u16);
        assert_eq!(device.read(&chain), packet(F::FEATURES, hdr(n), &frame(n, 60)));
        device.give(&chain, 0);
    }
    device.publish();
    let room = 128 - hdr_len(F::FEATURES);
    let too_long = vec![0; room + 1];
    assert_eq!(ring.reclaim(), Ok(8));
    assert_eq!(ring.send(hdr(8), &too_long), Err(PostError::TooLong { len: room + 1, room }));
    ring.send(hdr(8), &too_long[..room]).unwrap();
}

fn prepared_frames_circulate_with_a_word_changed<F: Format>() {
    let (mut ring, mut device) = tx::<F>(RingConfig { base: 0, ..config::<F>(16) });
    ring.prepare(|i, slot| {
        slot.write(0, &frame(i as u64, 64));
        60 + i % 4
    });
    let hdr_len = hdr_len(F::FEATURES);
    let mut number = 0u64;
    for round in 0..100 {
        let posted = ring.post_prepared(5, |slot| {
            slot.set_word(16, number);
            number += 1;
        });
        assert_eq!(posted, 5);
        for i in 0..5 {
            let chain = device.take().unwrap();
            let bytes = device.read(&chain).split_off(hdr_len);
            assert_eq!(bytes.len(), 60 + usize::from(chain.id % 4));
            assert_eq!(bytes[16..24], (round * 5 + i as u64).to_le_bytes());
            assert_eq!(bytes[..16], frame(chain.id.into(), 16));
            device.give(&chain, 0);
        }
        device.publish();
        assert_eq!(ring.reclaim(), Ok(5));
    }
}

fn receives_in_every_size_from_before_the_wrap<F: Format>() {
    for size in F::sizes() {
        let features = F::FEATURES | F_VERSION_1 | F_MRG_RXBUF;
        let (mut ring, mut device) = rx::<F>(RingConfig { features, ..config::<F>(size) });
        let mut got = Vec::new();
        for n in 0..frames_for(size) {
            let sent = frame(n, 60 + (n % 50) as usize);
            assert_eq!(ring.recv(&mut got), Ok(None));
            let chain = device.take().expect("it is kept full");
            let len = device.write(&chain, &merged(1, &sent));
            device.give(&chain, len);
            device.publish();
            assert_eq!(ring.recv(&mut got).unwrap().unwrap().num_buffers, 1);
            assert_eq!(got, sent, "size {size}, frame {n}");
        }
    }
}

fn receives_through_every_cut<F: Format>() {
    for cut in CUTS {
        let (mut ring, mut device) =
            rx::<F>(RingConfig { buffer_bytes: 300, cut, ..config::<F>(F::odd(128)) });
        let mut got = Vec::new();
        for n in 0..1000 {
            let sent = frame(n, (n % 289) as usize);
            let chain = device.take().unwrap();
            let len = device.write(&chain, &packet(F::FEATURES, hdr(n), &sent));
            device.give(&chain, len);
            device.publish();
            assert_eq!(ring.recv(&mut got), Ok(Some(hdr(n))));
            assert_eq!(got, sent);
        }
    }
}

fn gathers_merged_buffers<F: Format>() {
    for (size, cut) in [(64, Cut::Whole), (F::odd(64), Cut::Whole), (F::odd(201), Cut::HeaderApart)] {
        let features = F::FEATURES | F_VERSION_1 | F_MRG_RXBUF;
        let (mut ring, mut device) = rx::<F>(RingConfig { cut, features, ..config::<F>(size) });
        let mut got = Vec::new();
        for len in (0..2000).chain([6000, ring.queue().slots() * 128 - 12]) {
            let sent = frame(len as u64, len);
            deliver(&mut device, &sent, 128);
            let frames = ring.poll(9, |part| {
                assert_eq!(part.buffers(), (12 + len).div_ceil(128));
                if len >= 8 {
                    let at = len - 8;
                    assert_eq!(part.word(at).to_le_bytes(), sent[at..]);
                    assert_eq!(part.word(at / 2).to_le_bytes(), sent[at / 2..at / 2 + 8]);
                }
                part.copy_to(&mut got);
            });
            assert_eq!((frames, &got), (Ok(1), &sent));
            ring.refill();
        }
    }
}

/// One used entry, or one used descriptor.
fn in_order_batches_need_one_word<F: Format>() {
    for cut in [Cut::Whole, Cut::HeaderApart] {
        let features = F::FEATURES | F_IN_ORDER;
        let (mut ring, mut device) = tx::<F>(RingConfig { cut, features, ..config::<F>(F::odd(32)) });
        let slots = ring.queue().slots();
        for batch in (1..=slots).chain([3, 5, 1, 9]) {
            assert_eq!(ring.post_prepared(batch, |_| ()), batch);
            let chains: Vec<_> = (0..batch).map(|_| device.take().unwrap()).collect();
            device.give_batch(&chains);
            device.publish();
            assert_eq!(ring.reclaim(), Ok(batch));
            assert_eq!(ring.room(), slots);
        }
    }
}

fn wants_calls_only_while_it_waits<F: Format>() {
    for features in [0, F_EVENT_IDX] {
        let (mut ring, mut device) =
            tx::<F>(RingConfig { features: F::FEATURES | features, ..config::<F>(F::odd(256)) });
        for round in 0..1000 {
            ring.post_prepared(100, |_| ());
            (0..100).for_each(|_| {
                let chain = device.take().unwrap();
                device.give(&chain, 0);
            });
            assert!(!device.publish(), "a call wanted in round {round}");
            assert_eq!(ring.reclaim(), Ok(100));
        }
        let call = ring.queue().call_fd().try_clone_to_owned().unwrap();
        assert!(!ring.queue_mut().wait_used(Duration::from_millis(1)).unwrap());
        std::thread::scope(|threads| {
            ring.post_prepared(1, |_| ());
            threads.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let chain = device.take().unwrap();
                device.give(&chain, 0);
                if device.publish() {
                    rustix::io::write(&call, &1u64.to_ne_bytes()).unwrap();
                }
            });
            assert!(ring.queue_mut().wait_used(Duration::from_secs(10)).unwrap());
        });
        assert_eq!(ring.reclaim(), Ok(1));
    }
}

fn what_no_ring_can_be_is_refused<F: Format>() {
    let ram = GuestRam::new(RamConfig { bytes: 1 << 20, ..RamConfig::default() }).unwrap();
    let refused = |config| TxRing::new(&ram, config).unwrap_err();
    for size in [0, 32_769, 65_535] {
        assert!(matches!(refused(RingConfig { size, ..config::<F>(8) }), RingConfigError::Size(_)));
    }
    let cut = Cut::Pieces { first: 1, rest: 1 };
    let config = RingConfig { buffer_bytes: 33, cut, ..config::<F>(32) };
    assert!(matches!(refused(config), RingConfigError::Pieces { pieces: 33, .. }));
    assert!(matches!(refused(RingConfig { indirect: true, ..config }), RingConfigError::Indirect));
    let shuffled =
        RingConfig { order: Order::Shuffled, features: F::FEATURES | F_IN_ORDER, ..self::config::<F>(8) };
    assert!(matches!(refused(shuffled), RingConfigError::Order));
    let cut = Cut::Pieces { first: 0, rest: 1 };
    assert!(matches!(refused(RingConfig { cut, ..config }), RingConfigError::Empty { .. }));
    assert!(matches!(refused(RingConfig { buffer_bytes: 10, ..config }), RingConfigError::Empty { .. }));
    let whole = RingConfig { size: 32_768, buffer_bytes: 2048, cut: Cut::Whole, ..config };
    assert!(matches!(refused(whole), RingConfigError::Ram(_)));
}

/// The ids of `n` chains that are available, in their order; they come back at once.
fn take_and_give(device: &mut impl Device, n: usize) -> Vec<u16> {
    let chains: Vec<_> = (0..n).map(|_| device.take().expect("available")).collect();
    for chain in &chains {
        device.give(chain, 12);
    }
    device.publish();
    assert!(device.take().is_none(), "no more are available");
    chains.iter().map(|chain| chain.id).collect()
}

fn posts_what_came_back_last_first_as_linux_does<F: Format>() {
    let (mut ring, mut device) = tx::<F>(RingConfig { order: Order::Lifo, ..config::<F>(16) });
    assert_eq!(ring.post_prepared(4, |_| ()), 4);
    let first = take_and_give(&mut device, 4);
    ring.reclaim().unwrap();
    ring.post_prepared(4, |_| ());
    let reversed: Vec<_> = first.iter().rev().copied().collect();
    assert_eq!(take_and_give(&mut device, 4), reversed, "the newest first");
    // A longer burst goes on with what was not used yet.
    ring.reclaim().unwrap();
    ring.post_prepared(16, |_| ());
    let mut all = take_and_give(&mut device, 16);
    assert_eq!(all[..4], first);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 16, "each once");
}

fn posts_in_no_order_if_shuffled<F: Format>() {
    let features = F::FEATURES | F_VERSION_1;
    let (mut ring, mut device) = rx::<F>(RingConfig { order: Order::Shuffled, features, ..config::<F>(64) });
    let mut laps = Vec::new();
    for _ in 0..3 {
        let ids = take_and_give(&mut device, 64);
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 64);
        assert_eq!(ring.poll(64, |_| ()), Ok(64));
        ring.refill();
        laps.push(ids);
    }
    assert!(laps[0] != laps[1] && laps[1] != laps[2]);
}

fn headers_of_posted_buffers_are_foreign_if_wanted<F: Format>() {
    for foreign_headers in [false, true] {
        let features = F::FEATURES | F_VERSION_1 | F_MRG_RXBUF;
        let (mut ring, mut device) = rx::<F>(RingConfig { foreign_headers, features, ..config::<F>(4) });
        let mut got = Vec::new();
        for n in 0..9 {
            let chain = device.take().unwrap();
            let stands = device.content(&chain)[..12].iter().all(|byte| *byte == 0xa5);
            assert_eq!(stands, foreign_headers);
            let len = device.write(&chain, &merged(1, &frame(n, 60)));
            device.give(&chain, len);
            device.publish();
            ring.recv(&mut got).unwrap().unwrap();
            assert_eq!(got, frame(n, 60));
        }
    }
}

/// Bursts posted, and how many of those that the device holds come back, in which order.
fn steps() -> impl Strategy<Value = Vec<(usize, u32)>> {
    prop::collection::vec((0usize..6, any::<u32>()), 1..200)
}

fn orders() -> impl Strategy<Value = Order> {
    prop::sample::select(vec![Order::Same, Order::Lifo, Order::Shuffled])
}

proptest! {
    /// A device that returns buffers in any order gets each frame as it was sent, and each slot stays in circulation.
    #[test]
    fn any_order_of_return_split(bits in 0u32..8, base in any::<u16>(), cut in 0usize..3, steps in steps(), order in orders()) {
        any_order_of_return::<Split>(RingConfig { base, order, ..config::<Split>(8 << bits) }, cut, steps)?;
    }

    /// The same.
    #[test]
    fn any_order_of_return_packed(size in 3u16..300, base in any::<u16>(), cut in 0usize..3, steps in steps(), order in orders()) {
        any_order_of_return::<Packed>(RingConfig { base, order, ..config::<Packed>(size) }, cut, steps)?;
    }
}

fn any_order_of_return<F: Format>(
    config: RingConfig,
    cut: usize,
    steps: Vec<(usize, u32)>,
) -> Result<(), TestCaseError> {
    // At most 3 pieces, in any ring that size allows.
    let rest = if config.size < 8 { 60 } else { 30 };
    let cut = [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 20, rest }][cut];
    let (mut ring, mut device) = tx::<F>(RingConfig { cut, ..config });
    let sent = |n: u64| frame(n, 60 + (n % 56) as usize);
    let mut held: Vec<Chain> = Vec::new();
    let mut n = 0u64;
    for (burst, choice) in steps {
        ring.reclaim().unwrap();
        for _ in 0..burst {
            match ring.post(hdr(n), &sent(n)) {
                Ok(()) => n += 1,
                Err(PostError::Full) => prop_assert_eq!(held.len(), ring.queue().slots()),
                Err(error) => prop_assert!(false, "{}", error),
            }
            ring.publish();
            if let Some(chain) = device.take() {
                prop_assert_eq!(device.read(&chain), packet(F::FEATURES, hdr(n - 1), &sent(n - 1)));
                prop_assert!(held.iter().all(|other| other.id != chain.id), "one slot twice");
                held.push(chain);
            }
        }
        for i in 0..(choice % 7) as usize {
            if !held.is_empty() {
                let chain = held.swap_remove((choice as usize + 13 * i) % held.len());
                device.give(&chain, 0);
            }
        }
        device.publish();
    }
    ring.reclaim().unwrap();
    prop_assert_eq!(ring.queue().in_flight(), held.len());
    Ok(())
}

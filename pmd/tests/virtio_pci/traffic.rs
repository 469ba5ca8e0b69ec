//! Frames both ways, in every format, through every place of the rings.

use mbuf::MAX_BURST;
use pmd::nic::{NicDriver, NicOptions, RxRing, TxRing};
use pmd::{DropReason, Link};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::device_memory::tailed;
use crate::frames::{bytes, frame, packet};
use crate::model::{Card, CardConfig, feature};
use crate::scene::{KINDS, PORT, Scene, pool};

/// Sends and receives `n` frames on a pair, and compares.
fn exchange(scene: &mut Scene, pair: usize, n: usize, len: usize, seed: u64) {
    let frames: Vec<_> = (0..n).map(|i| frame(len, seed + i as u64)).collect();
    let packets = frames.iter().map(|f| packet(scene.pool, f)).collect();
    assert_eq!(scene.send(pair, packets), 0, "there was room");
    let sent: Vec<_> = scene.card.sent(pair).into_iter().map(|p| p.frame).collect();
    assert!(sent == frames, "{n} of {len} bytes, from seed {seed} on");
    for frame in &frames {
        assert!(scene.card.receive(pair, &frame.clone().into()), "there are buffers");
    }
    let received = scene.receive(pair);
    assert!(received.iter().all(|m| m.port() == PORT && m.offload().is_none()));
    assert!(received.iter().map(bytes).eq(frames), "{n} of {len} bytes, from seed {seed} on");
}

#[test]
fn frames_go_both_ways_in_every_format() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        for (round, len) in [14, 60, 64, 1500, 1514, 1522].into_iter().cycle().take(60).enumerate() {
            exchange(&mut scene, 0, 1 + round % MAX_BURST, len, 1000 * round as u64);
        }
        assert_eq!(scene.rx.packets.get(), scene.tx.packets.get());
        assert_eq!((scene.check(), scene.driver.link()), (None, Link::Up));
        scene.end();
    }
}

#[test]
fn rings_wrap_at_every_place() {
    for (kind, features) in KINDS {
        for size in [64, 128, 256] {
            println!("{kind}, {size} descriptors");
            let options = NicOptions { rx_descriptors: size, tx_descriptors: size, ..NicOptions::DEFAULT };
            let mut scene = Scene::of(CardConfig { features, ..CardConfig::default() }, options);
            // Bursts of sizes that have nothing in common with the ring's.
            for round in 0..size {
                exchange(&mut scene, 0, if round % 3 == 0 { 7 } else { 13 }, 60, u64::from(round) << 8);
            }
            scene.end();
        }
    }
}

#[test]
fn packets_of_several_mbufs_wrap_at_every_place() {
    for (kind, features) in KINDS.into_iter().filter(|(_, f)| f & feature::MRG_RXBUF != 0) {
        println!("{kind}");
        let options = NicOptions { rx_descriptors: 64, tx_descriptors: 64, ..NicOptions::DEFAULT };
        let config = CardConfig { features: features | feature::MTU, mtu: 9000, ..CardConfig::default() };
        let mut scene = Scene::of(config, options);
        for round in 0..130 {
            exchange(&mut scene, 0, 1 + round % 3, 2500 + 97 * (round % 67), round as u64 * 10);
        }
        assert_eq!(scene.driver.max_frame(), 9014);
        scene.end();
    }
}

#[test]
fn sixteen_bits_of_indices_wrap() {
    for features in [feature::USUAL, feature::USUAL | feature::IN_ORDER] {
        let mut scene = Scene::new(features);
        for round in 0..70_000 / 32 {
            exchange(&mut scene, 0, 32, 60, round * 32);
        }
        scene.end();
    }
}

#[test]
fn frames_of_64_kib_fit_if_buffers_are_mergeable() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        for seed in 0..40 {
            exchange(&mut scene, 0, 1, 65_549, seed);
        }
        scene.end();
    }
}

#[test]
fn a_received_packet_may_come_in_two_halves() {
    let mut scene = Scene::new(feature::USUAL);
    assert!(scene.card.receive(0, &frame(9000, 1).into()));
    let idx = scene.card.state().queues[0].device + 2;
    // The device is seen to have published all but the last two of its five buffers.
    scene.card.memory.store16(idx, 3);
    assert_eq!(scene.receive(0).len(), 0);
    assert_eq!(scene.receive(0).len(), 0, "still not");
    scene.card.memory.store16(idx, 5);
    assert_eq!(scene.receive(0).iter().map(bytes).collect::<Vec<_>>(), [frame(9000, 1)]);
    scene.end();
}

#[test]
fn shared_tailed_and_other_pools_packets_are_sent_too() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        let other = pool(64);
        static TAIL: [u8; 3000] = [0x5a; 3000];
        for round in 0..100 {
            let flooded = packet(scene.pool, &frame(100, round));
            let twin = flooded.share();
            let foreign = packet(other, &frame(3000, round));
            let segments = tailed(&TAIL);
            let mut tail = packet(scene.pool, &frame(192, round));
            assert!(tail.set_tail(&segments));
            assert_eq!(scene.send(0, vec![flooded, foreign, tail]), 0);
            let sent: Vec<_> = scene.card.sent(0).into_iter().map(|p| p.frame).collect();
            let with_tail = [&frame(192, round)[..], &TAIL].concat();
            assert!(sent == [frame(100, round), frame(3000, round), with_tail], "round {round}");
            assert_eq!(bytes(&twin), frame(100, round), "others see it as it was");
        }
        scene.end();
        assert_eq!(other.balance().out, 0);
    }
}

#[test]
fn a_full_ring_takes_what_fits_and_goes_on_when_there_is_room() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        let burst = |scene: &Scene| (0..32).map(|i| packet(scene.pool, &frame(60, i))).collect();
        let mut left = 0;
        for _ in 0..20 {
            let packets = burst(&scene);
            left += scene.send(0, packets);
        }
        assert!((20 * 32 - 256..20 * 32).contains(&left), "{left} did not fit");
        assert_eq!(scene.card.sent(0).len(), 20 * 32 - left);
        assert_eq!(scene.check(), None);
        assert_eq!(scene.pool.balance().out, 256, "given back by the check: only receive buffers are out");
        let packets = burst(&scene);
        assert_eq!(scene.send(0, packets), 0);
        scene.end();
    }
}

#[test]
fn packets_may_come_back_out_of_order() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        for round in 0..200 {
            let packets = (0..20)
                .map(|i| packet(scene.pool, &frame(if i % 3 == 0 { 5000 } else { 60 }, round * 20 + i)))
                .collect();
            assert_eq!(scene.send(0, packets), 0);
            let n = scene.card.state().transmit_shuffled(0, |chains| {
                chains.rotate_left(7);
                chains.swap(0, 5);
            });
            assert_eq!((n, scene.check()), (20, None));
        }
        assert_eq!(scene.pool.balance().out, 256);
        scene.end();
    }
}

#[test]
fn doorbells_are_rung_when_asked_for_once_a_turn() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        let kicks = |scene: &Scene| scene.card.state().queues[1].kicks;
        for (wanted, expected) in [(true, 5), (false, 0)] {
            let before = kicks(&scene);
            for round in 0..5 {
                let memory = scene.card.memory.clone();
                scene.card.state().queues[1].ask_for_kicks(&memory, wanted);
                let packets = (0..9).map(|i| packet(scene.pool, &frame(60, 10 * round + i))).collect();
                assert_eq!(scene.send(0, packets), 0);
                scene.rings.tx[0].flush();
                assert_eq!(scene.card.sent(0).len(), 9);
            }
            assert_eq!(kicks(&scene) - before, expected, "wanted: {wanted}");
        }
        scene.end();
    }
}

fn is_readable(scene: &Scene) -> bool {
    let event = scene.driver.rx_event(0).expect("there are vectors");
    poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
}

#[test]
fn an_armed_ring_is_signalled_once_and_a_disarmed_one_never() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        for round in 0..300 {
            exchange(&mut scene, 0, 3, 60, round);
            assert!(!is_readable(&scene), "polled: nobody is signalled");
            assert!(scene.rings.rx[0].arm());
            assert!(!is_readable(&scene));
            assert!(scene.card.receive(0, &frame(60, round).into()));
            assert!(is_readable(&scene));
            scene.rings.rx[0].disarm();
            assert!(!is_readable(&scene));
            assert!(!scene.rings.rx[0].arm(), "there is a packet");
            assert_eq!(scene.receive(0).len(), 1);
        }
        scene.end();
    }
}

#[test]
fn without_vectors_it_can_only_be_polled() {
    let config = CardConfig { vectors: 1, ..CardConfig::default() };
    let mut scene = Scene::of(config, NicOptions::DEFAULT);
    assert!(scene.driver.rx_event(0).is_none() && !scene.rings.rx[0].arm());
    exchange(&mut scene, 0, 5, 60, 0);
    scene.end();
}

#[test]
fn pairs_are_switched_on_and_do_not_touch_each_other() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let config = CardConfig { features, max_pairs: 4, ..CardConfig::default() };
        let mut scene = Scene::of(config, NicOptions { queues: Some(3), ..NicOptions::DEFAULT });
        assert_eq!(scene.driver.queue_pairs(), 3);
        let commands = scene.card.state().commands.clone();
        assert_eq!(
            commands,
            [vec![4, 0, 3, 0], vec![0, 0, 1], vec![0, 1, 1]],
            "pairs, promiscuous, multicast"
        );
        for (round, pair) in [0, 2, 1, 1, 2, 0].into_iter().cycle().take(120).enumerate() {
            exchange(&mut scene, pair, 1 + round % 32, 60, 100 * round as u64);
        }
        scene.end();
    }
}

#[test]
fn a_frame_that_is_too_long_for_the_wire_is_dropped() {
    let features = feature::USUAL | feature::MTU;
    let mut scene = Scene::new(features);
    let packets = [1514, 1522, 1523].map(|len| packet(scene.pool, &frame(len, 0)));
    assert_eq!(scene.send(0, packets.into()), 0);
    assert_eq!((scene.card.sent(0).len(), scene.dropped(DropReason::TxTooLong)), (2, 1));
    scene.end();
}

#[test]
fn runts_are_dropped_and_counted() {
    let mut scene = Scene::new(feature::USUAL);
    for len in [13, 0, 14] {
        assert!(scene.card.receive(0, &frame(len, 0).into()));
    }
    assert_eq!(scene.receive(0).len(), 1);
    assert_eq!((scene.rx.packets.get(), scene.dropped(DropReason::RxTooShort)), (3, 2));
    scene.end();
}

#[test]
fn an_empty_pool_costs_packets_and_nothing_else() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let pool = pool(300);
        let mut scene = Scene::on(Card::with_features(features), NicOptions::DEFAULT, pool);
        let hoard: Vec<_> = std::iter::from_fn(|| pool.alloc(9).ok()).collect();
        let mut kept = Vec::new();
        while scene.card.receive(0, &frame(60, 0).into()) {
            kept.extend(scene.receive(0));
        }
        assert_eq!(kept.len(), 256, "all buffers are used up");
        drop((hoard, kept));
        assert_eq!(scene.check(), None);
        exchange(&mut scene, 0, 5, 60, 0);
        scene.end();
    }
}

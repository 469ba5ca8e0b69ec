//! A broken card: what it writes is checked, and whatever it does costs a reset at most (N12, N13).

use pmd::nic::{NicDriver, NicOptions};

use crate::frames::{frame, packet};
use crate::model::{Card, CardConfig, Lie, feature};
use crate::scene::{KINDS, Scene, pool};

/// The check's complaint after a lie about a received packet.
fn told_of_receive(features: u64, lie: Lie) -> Option<&'static str> {
    let mut scene = Scene::new(features);
    for seed in 0..3 {
        assert!(scene.card.receive(0, &frame(60, seed).into()));
    }
    scene.card.state().queues[0].lie = Some(lie);
    assert!(scene.card.receive(0, &frame(60, 3).into()));
    let came = scene.receive(0);
    let index_lies = matches!(lie, Lie::Index(_));
    assert!(came.len() >= 3 || index_lies, "what came before is good");
    drop(came);
    while !scene.receive(0).is_empty() {}
    let told = scene.check();
    scene.end();
    told
}

#[test]
fn n12_a_receive_ring_that_makes_no_sense_is_reset() {
    let has_not = Some("the device returned a buffer that it did not have");
    for (kind, features) in KINDS {
        println!("{kind}");
        assert_eq!(told_of_receive(features, Lie::Id(256)), has_not);
        assert_eq!(told_of_receive(features, Lie::Id(0xffff)), has_not);
        let length = told_of_receive(features, Lie::Length(4096));
        assert_eq!(length, Some("the device wrote, it says, more than a buffer holds"));
        assert!(told_of_receive(features, Lie::Length(5)).is_none(), "shorter than a header: dropped");
        assert!(told_of_receive(features, Lie::Twice).is_some());
        if features & feature::MRG_RXBUF != 0 {
            let count = told_of_receive(features, Lie::NumBuffers(257));
            assert_eq!(count, Some("the device named more buffers for a packet than its ring has"));
        }
        if features & feature::RING_PACKED == 0 {
            assert!(told_of_receive(features, Lie::Index(0x8000)).is_some());
            assert!(told_of_receive(features, Lie::Index(0xfff0)).is_some());
        }
    }
}

#[test]
fn n12_a_packet_that_does_not_end_is_given_up() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        scene.card.state().queues[0].lie = Some(Lie::NumBuffers(3));
        assert!(scene.card.receive(0, &frame(60, 0).into()));
        assert_eq!(scene.receive(0).len(), 0);
        let patience = (0..100).take_while(|_| scene.check().is_none()).count();
        assert_eq!((patience, scene.check()), (50, Some("the device did not finish a packet")));
        scene.end();
    }
}

#[test]
fn a_packet_of_too_many_bytes_is_dropped_whole() {
    let mut scene = Scene::new(feature::USUAL);
    assert!(scene.card.receive(0, &frame(80_000, 0).into()));
    assert!(scene.card.receive(0, &frame(60, 1).into()));
    assert_eq!(scene.receive(0).len(), 1);
    assert_eq!(scene.dropped(pmd::DropReason::RxTooLong), 1);
    scene.end();
}

#[test]
fn n13_completions_that_come_twice_or_for_others_are_found() {
    for (kind, features) in KINDS {
        for lie in [Lie::Twice, Lie::Id(200), Lie::Id(0xffff)] {
            println!("{kind}, {lie:?}");
            let mut scene = Scene::new(features);
            let packets = (0..8).map(|i| packet(scene.pool, &frame(60, i))).collect();
            assert_eq!(scene.send(0, packets), 0);
            scene.card.state().queues[1].lie = Some(lie);
            scene.card.state().transmit_shuffled(0, |_| {});
            let told = scene.check().expect("a complaint");
            assert!(told.starts_with("the device returned"), "{told}");
            let packets = (0..8).map(|i| packet(scene.pool, &frame(60, i))).collect();
            assert_eq!(scene.send(0, packets), 8, "nothing more is lent to it");
            scene.end();
        }
    }
}

#[test]
fn n13_completions_that_never_come_are_noticed() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut scene = Scene::new(features);
        for _ in 0..1000 {
            assert_eq!(scene.check(), None, "nothing is expected");
        }
        let packets = (0..8).map(|i| packet(scene.pool, &frame(60, i))).collect();
        assert_eq!(scene.send(0, packets), 0);
        scene.card.set_link(false);
        scene.driver.look();
        for _ in 0..1000 {
            assert_eq!(scene.check(), None, "a device whose link is down may wait");
        }
        scene.card.set_link(true);
        scene.driver.look();
        let patience = (0..1000).take_while(|_| scene.check().is_none()).count();
        assert_eq!((patience, scene.check()), (500, Some("the device does not send what it is given")));
        scene.end();
    }
}

/// Random words everywhere where the device writes, and in the descriptors, too.
#[test]
fn n12_garbage_in_the_rings_costs_a_reset_at_most() {
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let pool = pool(1024);
    let options = NicOptions { rx_descriptors: 64, tx_descriptors: 64, ..NicOptions::DEFAULT };
    for round in 0..2000 {
        let (_, features) = KINDS[round % KINDS.len()];
        let card = Card::new(CardConfig { features, queue_size: 64, ..CardConfig::default() });
        let mut scene = Scene::on(card, options, pool);
        let memory = scene.card.memory.clone();
        for _ in 0..20 {
            let queue = scene.card.state().queues[usize::from(next() & 1 != 0)].clone();
            let packed = features & feature::RING_PACKED != 0;
            let word = if next() & 3 == 0 { next() } else { next() & 0x0080_003f_0000_003f | next() << 63 };
            match next() % 3 {
                _ if packed => memory.store64(queue.desc + 8 * (next() % 128), word),
                0 => memory.store16(queue.device + 2, next() as u16 & 0x7f),
                1 => memory.store64(queue.device + 4 + 8 * (next() % 64), word),
                _ => memory.store64(queue.desc + 8 * (next() % 128), word),
            }
            if next() & 1 == 0 {
                let packets = (0..3).map(|i| packet(pool, &frame(60, i))).collect();
                scene.send(0, packets);
            }
            scene.receive(0);
            scene.check();
        }
        scene.end();
    }
}

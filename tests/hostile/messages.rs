//! Messages while rings run, and in any order: C18, C21 to C24, D5, D9, D10.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use vhost::driver::{FrontEnd, FrontEndError, GuestRam, RamConfig, SplitRing, VirtioNet, VirtioNetConfig};
use vhost::wire::message::{Request, VringState};
use zerocopy::IntoBytes;

use crate::attacker::{self, Attacker, FEATURES, Plan, Side, event};
use crate::frames;
use crate::numbers::Numbers;
use crate::races::racing;
use crate::scene::{PATIENCE, Scene, X, case, eventually, race_time};

/// A ring's size, place, position and descriptors change while it is full of frames: each change stops it, and it goes on
/// with what was told last (I7).
#[test]
fn c18_everything_changes_while_running() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let buffer = attacker.frame(&frames::plain(200, 18));
        let other = SplitRing::alloc(&attacker.ram, 256).expect("room");
        let rings = [attacker.tx.ring().clone(), other];
        for ring in &rings {
            (0..256).for_each(|i| ring.set_desc(i, buffer));
            (0..256).for_each(|at| ring.set_avail_entry(at, at));
        }
        let calls: Vec<_> = (0..4).map(|_| event()).collect();
        let mut numbers = Numbers::new(18);
        let end = Instant::now() + race_time();
        let mut changes = 0;
        // The racer keeps both rings as full as their used rings allow.
        let feed = |_: &mut Numbers| {
            rings.iter().for_each(|ring| ring.set_avail_idx(ring.used_idx().wrapping_add(64)));
            thread::yield_now();
        };
        racing(feed, || {
            while Instant::now() < end {
                let front = &mut attacker.front;
                let ring = &rings[numbers.below(2) as usize];
                match numbers.below(7) {
                    0 => front.set_vring_num(1, numbers.pick(&[64, 128, 256])),
                    1 => front.set_vring_addr(ring.addr(1)),
                    2 => front.set_vring_base(1, ring.used_idx().into()),
                    3 => front.set_vring_call(
                        1,
                        Some(numbers.pick(&[0, 1, 2, 3])).map(|i: usize| calls[i].as_fd()),
                    ),
                    4 => front.set_vring_call(1, None),
                    5 => front.set_vring_kick(1, Some(calls[0].as_fd())),
                    _ => front.set_vring_err(1, Some(calls[3].as_fd())),
                }
                .expect("all of them are legal");
                changes += 1;
                let state = scene.x_ring("tx0");
                assert!(["running", "avail_index_jump"].contains(&state.as_str()), "tx0 is {state}");
                scene.discard_at_y();
            }
        });
        assert!(changes > 100, "{changes} changes");
    });
}

/// Enabled and disabled as fast as messages go, with values that are neither.
#[test]
fn c21_d08_enable_flood() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let end = Instant::now() + race_time() / 2;
        let mut flips = 0u32;
        while Instant::now() < end {
            attacker.send(&frames::plain(60, flips));
            for enable in [false, true, true, false] {
                attacker.front.set_vring_enable(1, enable).expect("legal");
                flips += 1;
            }
            if flips.is_multiple_of(400) {
                for value in [2, u32::MAX] {
                    let state = VringState { index: 1, num: value };
                    let refused = attacker.front.order(Request::SetVringEnable, &state, &[]);
                    assert!(matches!(refused, Err(FrontEndError::Refused { .. })), "{refused:?}");
                }
                scene.discard_at_y();
                attacker = again(attacker, scene);
            }
        }
        attacker.front.set_vring_enable(1, true).expect("legal");
        eventually("all came back", || attacker.tx.used() == attacker.tx.next);
    });
}

/// One legal message, chosen by chance. What it is refused for is its own affair; it must not hurt anybody.
fn any_message(
    front: &mut FrontEnd,
    numbers: &mut Numbers,
    ram: &GuestRam,
    rings: &[SplitRing],
) -> Result<(), FrontEndError> {
    let ring = numbers.below(4) as u32;
    let (region, event) = (ram.region(), event());
    match numbers.below(24) {
        0 => front.set_owner(),
        1 => front.reset_owner(),
        2 => front.features().map(drop),
        // Mergeable or not, packed or not.
        3 => front.set_features(FEATURES & !(numbers.below(2) << 15) | numbers.below(2) << 34),
        4 => front.protocol_features().map(drop),
        5 => front.queue_num().map(drop),
        6 | 7 => front.set_mem_table(&[(region, ram.as_fd())]),
        8 => front.set_mem_table(&[]),
        9 => front.max_mem_slots().map(drop),
        10 => front.add_mem_reg(region, ram.as_fd()),
        11 => front.rem_mem_reg(region),
        12 => front.set_vring_num(ring, 1 << numbers.below(9)),
        13 => {
            let (low, high) = (numbers.below(65_536), numbers.pick(&[0, 0, 0x8000, 0x8001, 7]));
            front.set_vring_base(ring, (low | high << 16) as u32)
        }
        14 => front.vring_base(ring).map(drop),
        15 | 16 => front.set_vring_addr(rings[ring as usize].addr(ring)),
        17 | 18 => front.set_vring_kick(ring, Some(event.as_fd())),
        19 => front.set_vring_call(ring, Some(event.as_fd())),
        20 => front.set_vring_enable(ring, numbers.below(2) == 1),
        21 => front.set_status(numbers.below(16) as u8),
        22 => front.reset_device(),
        _ => front.set_mtu(numbers.below(70_000)),
    }
}

/// The order of legal messages is nobody's promise.
#[test]
fn c22_legal_messages_in_any_order() {
    case(|scene| {
        for seed in 0..6 {
            let mut numbers = Numbers::new(seed);
            let mut front = FrontEnd::connect(scene.socket(X), PATIENCE).expect("connects");
            attacker::negotiate(&mut front, FEATURES);
            let config = RamConfig { bytes: 1 << 20, gpa_base: attacker::GPA, ..RamConfig::default() };
            let ram = GuestRam::new(config).expect("RAM");
            let rings: Vec<_> = (0..4).map(|_| SplitRing::alloc(&ram, 256).expect("room")).collect();
            for _ in 0..300 {
                match any_message(&mut front, &mut numbers, &ram, &rings) {
                    Ok(()) | Err(FrontEndError::Refused { .. }) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
                // Rings that happen to run get something to chew on.
                rings[numbers.below(4) as usize].set_avail_idx(numbers.next() as u16);
            }
            scene.discard_at_y();
        }
    });
}

/// Of a ring that never was, twice, and in the middle of bursts: it answers when the ring is out of everybody's hands, and
/// needs addresses and a kick to run again.
#[test]
fn c23_get_vring_base() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        assert_eq!(attacker.front.vring_base(3).expect("never set up"), 0);
        let buffer = attacker.frame(&frames::plain(300, 23));
        let head = attacker.tx.lay(&[buffer]);
        for _ in 0..20 {
            (0..200).for_each(|_| attacker.tx.stage(head));
            attacker.tx.publish();
            let base = attacker.front.vring_base(1).expect("it answers");
            assert_eq!(
                attacker.tx.ring().used_idx(),
                base as u16,
                "what was taken is back, the rest was not touched"
            );
            assert_eq!(attacker.front.vring_base(1).expect("twice"), base);
            attacker.tx.next = base as u16;
            attacker.tx.publish();
            attacker.start_ring(Side::Tx);
            scene.discard_at_y();
        }
    });
}

/// RESET_OWNER, RESET_DEVICE and status 0 under traffic, in every order: the ring stops; set up again it goes on.
#[test]
fn c24_resets_under_traffic() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let buffer = attacker.frame(&frames::plain(300, 24));
        let head = attacker.tx.lay(&[buffer]);
        let mut numbers = Numbers::new(24);
        for _ in 0..30 {
            (0..100).for_each(|_| attacker.tx.stage(head));
            attacker.tx.publish();
            match numbers.below(3) {
                0 => attacker.front.reset_owner(),
                1 => attacker.front.reset_device(),
                _ => attacker.front.set_status(0),
            }
            .expect("legal in any state");
            assert!(["stopped", "none"].contains(&scene.x_ring("tx0").as_str()));
            let used = attacker.tx.ring().used_idx();
            thread::sleep(Duration::from_micros(300));
            assert_eq!(attacker.tx.ring().used_idx(), used, "a ring that was reset is left alone");
            attacker.tx.next = used;
            attacker.tx.publish();
            attacker.start_ring(Side::Tx);
            scene.discard_at_y();
        }
    });
}

/// Firmware's driver hands over to the system's: another size, other features, another number of queues, in one session.
#[test]
fn d05_another_driver_takes_over() {
    case(|scene| {
        for (size, features) in
            [(64, FEATURES), (256, FEATURES & !(1 << 15)), (1024, FEATURES), (4, FEATURES)]
        {
            let mut attacker = Attacker::start(scene, Plan { size, features, ..Plan::default() });
            let frame = frames::plain(100, size.into());
            attacker.send(&frame);
            scene.expect_at_y(&[frame]);
            attacker.front.set_status(0).expect("reset");
            attacker.front.set_features(FEATURES & !(1 << 28)).expect("features after a reset");
            attacker.rx = attacker::Raw::new(&attacker.ram, Side::Rx, &attacker.plan);
            attacker.tx = attacker::Raw::new(&attacker.ram, Side::Tx, &attacker.plan);
            attacker.start_ring(Side::Rx);
            attacker.start_ring(Side::Tx);
            let frame = frames::plain(150, size.into());
            attacker.send(&frame);
            scene.expect_at_y(&[frame]);
        }
    });
}

/// A driver is bound and unbound as fast as it goes, with two queue pairs and frames under way.
#[test]
fn d07_d09_bound_and_unbound() {
    case(|scene| {
        let end = Instant::now() + race_time();
        let mut rounds = 0;
        while Instant::now() < end {
            let config = VirtioNetConfig {
                queue_pairs: 2,
                queue_size: 64,
                timeout: PATIENCE,
                ..VirtioNetConfig::default()
            };
            let mut x = VirtioNet::connect(scene.socket(X), config).expect("connects");
            for tag in 0..32 {
                let queue = tag as usize % 2;
                x.pairs()[queue].tx.send(Default::default(), &frames::plain(100, tag)).expect("room");
            }
            rounds += 1;
            if rounds % 2 == 0 {
                x.disconnect().expect("in order");
            }
            scene.discard_at_y();
        }
        assert!(rounds > 5, "{rounds} rounds");
    });
}

/// Status bits in an order that no driver has.
#[test]
fn d10_status_out_of_order() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        for status in [4, 15, 8, 0x80, 0xff, 1, 0x40] {
            attacker.front.set_status(status).expect("a byte");
            assert_eq!(attacker.front.status().expect("told"), u64::from(status));
        }
        let state = attacker.front.order(Request::SetStatus, 0x100u64.as_bytes(), &[]);
        assert!(matches!(state, Err(FrontEndError::Refused { .. })), "{state:?}");
        let frame = frames::plain(64, 10);
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
    });
}

/// The usual attacker with a fresh connection and fresh RAM.
fn again(old: Attacker, scene: &Scene) -> Attacker {
    drop(old);
    Attacker::usual(scene)
}

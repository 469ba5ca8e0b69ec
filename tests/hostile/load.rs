//! As much as an attacker can offer: V6, V49, S9, S11, S17.

use std::os::fd::AsFd;
use std::time::Instant;

use pmd::DropReason;
use vhost::VhostUserSpec;
use vhost::driver::{
    BufferConfig, FrontEnd, GuestRam, NetHdr, RamConfig, SplitRing, VirtioNet, VirtioNetConfig,
};
use vhost::wire::net::{F_MQ, F_RING_PACKED};
use vhost::wire::ring::MAX_SIZE;

use crate::attacker::{self, Attacker, FEATURES, Plan, event, largest};
use crate::frames;
use crate::scene::{PATIENCE, X, attach, both, case, eventually, race_time};

/// Both queue pairs' TX rings are kept full without ever waiting: what the attacker holds of the pool stays bounded, and
/// the victims get their share of the lcore.
#[test]
fn v06_s13_rings_kept_full() {
    both(|scene, plan| {
        let buffers = BufferConfig { bytes: 1600, ..BufferConfig::default() };
        let features = VirtioNetConfig::default().features | plan.features & F_RING_PACKED;
        let config = VirtioNetConfig {
            features,
            queue_pairs: 2,
            queue_size: 1024,
            tx: buffers,
            rx: buffers,
            timeout: PATIENCE,
            ..VirtioNetConfig::default()
        };
        let mut x = VirtioNet::connect(scene.socket(X), config).expect("connects");
        let frame = frames::plain(1500, 6);
        let (end, before) = (Instant::now() + race_time(), scene.victims_received());
        let mut most_out = 0;
        while Instant::now() < end {
            for pair in x.pairs() {
                pair.tx.reclaim().expect("a sound ring");
                while pair.tx.post(NetHdr::default(), &frame).is_ok() {}
                pair.tx.publish();
            }
            most_out = most_out.max(scene.pool.balance().out);
            scene.discard_at_y();
        }
        assert!(most_out < 512, "{most_out} mbufs out");
        assert!(scene.victims_received() > before + 256, "the victims' share");
        drop(x);
    });
}

/// A port of 128 queue pairs, all 256 rings of 32,768 descriptors each and all of them full: the memory is what the
/// configuration says, and nobody starves.
#[test]
fn v49_every_ring_as_large_as_can_be() {
    case(|scene| {
        let spec = VhostUserSpec { queues: 128, ..VhostUserSpec::new(scene.another_socket("wide.sock")) };
        let (id, port) = attach(&mut scene.switch, scene.pool, "wide", &spec);
        let mut front = FrontEnd::connect(&spec.path, PATIENCE).expect("connects");
        attacker::negotiate(&mut front, FEATURES | F_MQ);
        let config = RamConfig { bytes: 4 << 20, gpa_base: attacker::GPA, ..RamConfig::default() };
        let ram = GuestRam::new(config).expect("RAM");
        // Nothing says that rings must not be one and the same.
        let ring = SplitRing::alloc(&ram, MAX_SIZE).expect("room");
        let frame = ram.alloc(200, 64).expect("room");
        frame.fill(0, 200, 0);
        (0..MAX_SIZE).for_each(|i| ring.set_desc(i, attacker::read(&frame)));
        ring.set_avail_idx(MAX_SIZE);
        front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("a table");
        // To nobody: the frames' destination is the sender's own port.
        frame.write(12, &[0x01, 0x80, 0xc2, 0, 0, 0, 2]);
        let event = event();
        for index in 0..256 {
            front.set_vring_num(index, MAX_SIZE.into()).expect("NUM");
            front.set_vring_addr(ring.addr(index)).expect("ADDR");
            front.set_vring_call(index, Some(event.as_fd())).expect("CALL");
            front.set_vring_kick(index, Some(event.as_fd())).expect("KICK");
            front.set_vring_enable(index, true).expect("ENABLE");
        }
        let before = scene.victims_received();
        eventually("the victims go on", || scene.victims_received() > before + 500);
        assert!(scene.pool.balance().out < 1024, "mbufs out");
        drop(front);
        scene.switch.remove_port(id).expect("removed");
        drop(port);
    });
}

/// A receiver that takes nothing, beside those that do: the sender drops at that receiver, the others lose nothing.
#[test]
fn s09_a_receiver_that_is_stuck() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, Plan { size: 1024, ..Plan::default() });
        let buffer = attacker.frame(&frames::plain(1000, 9));
        let head = attacker.tx.lay(&[buffer]);
        let (end, before) = (Instant::now() + race_time() / 2, scene.victims_received());
        let mut sent = 0u64;
        // `y` is not drained at all; the victims are.
        while Instant::now() < end || sent < 3000 {
            if attacker.tx.used() == attacker.tx.next {
                (0..500).for_each(|_| attacker.tx.stage(head));
                attacker.tx.publish();
                sent += 500;
            }
            std::thread::yield_now();
        }
        eventually("all came back", || attacker.tx.used() == attacker.tx.next);
        assert!(scene.victims_received() > before + 256);
        assert_eq!(scene.discard_at_y(), 1024, "as many as its ring holds");
        assert_eq!(scene.dropped(DropReason::TxFull), 0, "dropped at y, not at x");
    });
}

/// The largest rings, full of the largest frames, to a receiver that takes nothing: mbufs out stay bounded.
#[test]
fn s11_a_slow_port_holds_no_mbufs() {
    case(|scene| {
        let mut attacker = Attacker::start(scene, largest());
        let buffer = attacker.frame(&frames::plain(60_000, 11));
        let head = attacker.tx.lay(&[buffer]);
        (0..10_000).for_each(|_| attacker.tx.stage(head));
        attacker.tx.publish();
        let mut most_out = 0;
        while attacker.tx.used() < 10_000 {
            most_out = most_out.max(scene.pool.balance().out);
        }
        assert!(most_out < 512, "{most_out} mbufs out");
        assert!(scene.discard_at_y() > 0);
    });
}

/// A port comes and goes two hundred times under everybody's traffic, with a guest in it that sends: nobody loses a frame,
/// nothing leads to a port that is gone.
#[test]
fn d11_s17_ports_come_and_go() {
    case(|scene| {
        let spec = VhostUserSpec::new(scene.another_socket("brief.sock"));
        let mut with_guest = 0;
        for round in 0..200u32 {
            let (id, port) = attach(&mut scene.switch, scene.pool, "brief", &spec);
            if round % 8 == 0 {
                let config =
                    VirtioNetConfig { queue_size: 64, timeout: PATIENCE, ..VirtioNetConfig::default() };
                let mut guest = VirtioNet::connect(&spec.path, config).expect("connects");
                let mut frame = frames::plain(100, round);
                frame[6..12].copy_from_slice(&[0x02, 0x77, 0, 0, 0, 1]);
                for _ in 0..20 {
                    guest.send(&frame, NetHdr::default()).expect("room");
                }
                with_guest += 1;
                scene.switch.remove_port(id).expect("removed with its guest in it");
                drop(port);
                drop(guest);
            } else {
                scene.switch.remove_port(id).expect("removed");
                drop(port);
            }
            scene.discard_at_y();
        }
        assert_eq!(with_guest, 25);
        assert!(scene.switch.port_by_name("brief").is_none());
    });
}

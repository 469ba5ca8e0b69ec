//! Kicks, calls and their suppression: V38, V45, V47, K3.

use std::sync::atomic::Ordering;

use pmd::DropReason;
use vhost::driver::{NetHdr, VirtioNet, VirtioNetConfig};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_RING_PACKED};
use vhost::wire::ring::USED_RING_OFFSET;

use crate::attacker::{Attacker, FEATURES, Plan, Side};
use crate::frames;
use crate::numbers::Numbers;
use crate::races::racing;
use crate::scene::{PATIENCE, X, both, case, eventually};

/// Flags with bits that mean nothing, used_event and avail_event anywhere, all of it changing: at most that guest gets a call
/// too many or too few.
#[test]
fn v38_garbage_in_events_and_flags() {
    for features in [FEATURES, FEATURES | F_EVENT_IDX] {
        case(|scene| {
            let mut attacker = Attacker::start(scene, Plan { features, ..Plan::default() });
            let ring = attacker.tx.ring().clone();
            let flip = |numbers: &mut Numbers| {
                ring.set_avail_flags(numbers.next() as u16);
                ring.set_used_event(numbers.next() as u16);
                let avail_event = USED_RING_OFFSET + 8 * 256;
                ring.used.store_u16(avail_event, numbers.next() as u16, Ordering::Relaxed);
                ring.used.store_u16(0, numbers.next() as u16, Ordering::Relaxed);
            };
            racing(flip, || {
                for tag in 0..1000u32 {
                    let frame = frames::plain(60, tag);
                    let buffer = if tag < 256 {
                        attacker.frame(&frame)
                    } else {
                        attacker.tx.ring().desc(tag as u16 % 256)
                    };
                    attacker.tx.post(&[buffer]);
                    eventually("used", || attacker.tx.used() == tag as u16 + 1);
                }
            });
            assert_eq!(scene.frames_at_y(1000).len(), 1000);
            assert_eq!(scene.x_ring("tx0"), "running");
        });
    }
}

/// IN_ORDER negotiated: buffers come back exactly in the order in which they were offered, whatever is in them.
#[test]
fn v45_in_order() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan.with(F_IN_ORDER));
        let mut heads = Vec::new();
        let mut numbers = Numbers::new(45);
        for _ in 0..200 {
            // Short ones are dropped, long ones are not; they must not overtake each other.
            let len = numbers.pick(&[14usize, 60, 300, 1400]);
            let whole = attacker.frame(&frames::plain(len, 45));
            let short = numbers.below(4) == 0;
            let buffer = if short { crate::attacker::part(whole, 0, 13) } else { whole };
            let head = attacker.tx.lay(&[buffer]);
            heads.push(u32::from(attacker.tx.stage_numbered(head)));
        }
        attacker.tx.publish();
        let ids: Vec<_> = attacker.tx.expect_used(200).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, heads);
        scene.discard_at_y();
    });
    both(|scene, plan| {
        // A driver that relies on it.
        let defaults = VirtioNetConfig::default();
        let features = defaults.features | F_IN_ORDER | plan.features & F_RING_PACKED;
        let config = VirtioNetConfig { features, timeout: PATIENCE, ..defaults };
        let mut x = VirtioNet::connect(scene.socket(X), config).expect("connects");
        assert_ne!(x.features() & F_IN_ORDER, 0);
        for tag in 0..600 {
            let frame = frames::plain(60 + tag as usize, tag);
            eventually("room", || x.send(&frame, NetHdr::default()).is_ok());
            scene.expect_at_y(&[frame]);
        }
    });
}

/// A disabled TX ring is drained without effect, a disabled RX ring is not supplied; a kick to a ring that was never started
/// does nothing.
#[test]
fn v47_kicks_for_rings_that_do_not_run() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        attacker.front.set_vring_enable(0, false).expect("legal");
        attacker.front.set_vring_enable(1, false).expect("legal");
        for tag in 0..20 {
            attacker.send(&frames::plain(60, tag));
        }
        attacker.post_buffers(20, 256);
        rustix::io::write(&attacker.tx.kick, &1u64.to_ne_bytes()).expect("kicked");
        scene.expect_dropped(DropReason::RxDisabled, 20);
        attacker.tx.expect_used(20);
        scene.y_sends_plain(20, 60);
        scene.expect_dropped(DropReason::TxNotReady, 20);
        attacker.rx.expect_used(0);
        scene.expect_nothing_at_y();
        // Enabled, the RX ring gets what comes from then on.
        attacker.front.set_vring_enable(0, true).expect("legal");
        scene.y_sends_plain(20, 60);
        attacker.rx.expect_used(20);
    });
    both(|scene, plan| {
        let mut attacker = Attacker::negotiate(scene, plan);
        attacker.send(&frames::plain(60, 0));
        for side in [Side::Rx, Side::Tx] {
            rustix::io::write(&attacker.side(side).kick, &1u64.to_ne_bytes()).expect("kicked");
        }
        scene.expect_nothing_at_y();
        attacker.tx.expect_used(0);
    });
}

/// Kicks by the million cost nobody anything: nobody reads them.
#[test]
fn k03_kick_flood() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        for _ in 0..20_000 {
            // A full counter is no error of ours.
            let _ = rustix::io::write(&attacker.tx.kick, &(u64::MAX / 40_000).to_ne_bytes());
        }
        let frame = frames::plain(60, 3);
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
    });
}

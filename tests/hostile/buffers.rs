//! Buffers that hold nothing, and a ring that is disabled while frames come: A11, A16.

use pmd::DropReason;
use vhost::wire::net::F_MRG_RXBUF;
use vhost::wire::ring::{DESC_F_WRITE, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side, write};
use crate::packed::SHORT;
use crate::scene::{both, eventually};

/// Frames at once, and how often.
const BURST: u32 = 256;
const ROUNDS: u32 = 12;

/// RX rings full of buffers of 0, 1 and 11 bytes, and of chains of these: every frame is dropped at little cost, or the ring
/// breaks by name. The victims' streams judge the cost; `vhost`'s unit tests count it.
#[test]
fn a11_buffers_that_hold_nothing() {
    for (left_out, len) in [0, F_MRG_RXBUF].into_iter().flat_map(|out| [0, 1, 11].map(|len| (out, len))) {
        for chained in [1, 64] {
            both(|scene, plan| {
                let plan = Plan { size: 4096, ram_bytes: 4 << 20, ..plan }.without(left_out);
                let mut attacker = Attacker::start(scene, plan);
                let buffer = Desc { addr: GPA + (3 << 20), len, flags: DESC_F_WRITE, next: 0 };
                (0..4096 / chained).for_each(|_| _ = attacker.rx.post(&vec![buffer; chained]));
                let broken = left_out == 0 && len as usize * chained < 12;
                for _ in 0..ROUNDS {
                    scene.y_sends_plain(BURST, 1514);
                    scene.expect_y_sent();
                }
                if broken {
                    scene.expect_ring("rx0", SHORT);
                    attacker.rx.expect_used(0);
                } else {
                    let reasons = [DropReason::TxTooLong, DropReason::TxFull];
                    let got = || u64::from(attacker.rx.used());
                    let dropped = reasons.map(|reason| scene.dropped(reason)).iter().sum::<u64>();
                    assert!(dropped + got() > 0 && scene.x_ring("rx0") == "running");
                }
                attacker.front.vring_base(Side::Rx.index()).expect("it stops");
            });
        }
    }
}

/// SET_VRING_ENABLE(0) is acknowledged while frames come: not one more gets in.
#[test]
fn a16_no_frame_after_disable_was_acknowledged() {
    both(|scene, plan| {
        let mut attacker = Attacker::start(scene, plan);
        let span = attacker.ram.alloc(2048, 64).expect("room");
        let mut posted = 0;
        for round in 0..40u32 {
            while posted - attacker.rx.used() < 128 {
                attacker.rx.post(&[write(&span)]);
                posted += 1;
            }
            attacker.front.set_vring_enable(Side::Rx.index(), true).expect("ENABLE");
            scene.y_sends_plain(8 + round % 32, 60);
            attacker.front.set_vring_enable(Side::Rx.index(), false).expect("ENABLE");
            let before = attacker.rx.used();
            scene.y_sends_plain(64, 60);
            scene.expect_y_sent();
            eventually("a burst is over", || scene.dropped(DropReason::TxNotReady) >= 64);
            assert_eq!(attacker.rx.used(), before, "round {round}");
        }
        attacker.front.set_vring_enable(Side::Rx.index(), true).expect("ENABLE");
    });
}

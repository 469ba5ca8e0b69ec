//! Connections that end or fall silent: C31, D1, D2, D13.

use std::time::{Duration, Instant};

use vhost::driver::{FrontEnd, NetHdr};
use vhost::wire::message::{Header, Request, flags};
use zerocopy::IntoBytes;

use crate::attacker::{self, Attacker, FEATURES, Plan};
use crate::frames;
use crate::numbers::Numbers;
use crate::scene::{PATIENCE, Scene, X, case, eventually, race_time};

/// The victims' streams go on for a while.
fn others_go_on(scene: &Scene) {
    let before = scene.victims_received();
    eventually("the others go on", || scene.victims_received() > before + 500);
}

/// A front end that stops in the middle of the handshake, and in the middle of a message: nobody else waits. The silent one
/// may stay silent, the half message ends its session.
#[test]
fn c31_silent_in_mid_handshake() {
    case(|scene| {
        let mut front = FrontEnd::connect(scene.socket(X), PATIENCE).expect("connects");
        attacker::negotiate(&mut front, FEATURES);
        others_go_on(scene);
        assert!(
            !front.is_closed_within(Duration::from_millis(1)),
            "between messages one may think for as long as one likes"
        );
        let header = Header { request: Request::SetVringNum as u32, flags: flags::VERSION, size: 8 };
        front.send_raw(&header.as_bytes()[..7], &[]).expect("sent");
        others_go_on(scene);
        assert!(front.is_closed_within(PATIENCE), "half a message is not waited for");
        assert!(scene.x_count("slow_message") > 0);
    });
}

/// D13, C31: rings run, the guest is stopped; frames for it are dropped, and nobody waits.
#[test]
fn c31_d13_silent_while_running() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        attacker.post_buffers(100, 1024);
        scene.y_sends_plain(400, 500);
        others_go_on(scene);
        scene.expect_dropped(pmd::DropReason::TxFull, 300);
        attacker.rx.expect_used(100);
    });
}

/// The connection ends under full rings, again and again: at once, after a moment, in the middle of a message.
#[test]
fn d01_closed_in_mid_burst() {
    case(|scene| {
        let end = Instant::now() + race_time();
        let mut numbers = Numbers::new(1);
        while Instant::now() < end {
            let plan = Plan { size: 1024, ..Plan::default() };
            let mut attacker = Attacker::start(scene, plan);
            // Tails: most of each frame stays in the guest's memory until its receiver has it.
            let whole = attacker.place(&attacker.packet(NetHdr::default(), &frames::plain(1500, 1)));
            let head = attacker.tx.lay(&[attacker::read(&whole)]);
            attacker.post_buffers(32, 2048);
            (0..512).for_each(|_| attacker.tx.stage(head));
            attacker.tx.publish();
            scene.y_sends_plain(16, 1500);
            match numbers.below(3) {
                0 => {}
                1 => std::thread::sleep(Duration::from_micros(numbers.below(2000))),
                _ => attacker.front.send_raw(&[1, 0, 0], &[]).expect("sent"),
            }
            drop(attacker);
            scene.discard_at_y();
        }
    });
}

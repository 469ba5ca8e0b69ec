//! Driver and device on two threads, both asleep whenever there is nothing to do: neither sleeps through what the other did.
//!
//! This fails at once if one of them does not look again after asking to be woken. It does not show that the fences between
//! (N3, N4) are needed: the model's locks leave a processor too much time to get by without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pmd::nic::{NicDriver, RxRing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frames::{bytes, frame, packet};
use crate::model::Card;
use crate::scene::{KINDS, Scene};

/// How long anybody sleeps at most: longer than any scheduler takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The device: sends back what it is sent. Works when it was kicked, and asks to be kicked before it sleeps.
fn echo(card: &Card, stop: &AtomicBool) {
    let mut since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let sent = card.sent(0);
        for packet in &sent {
            assert!(card.receive(0, packet), "there are buffers");
        }
        if !sent.is_empty() {
            since = Instant::now();
            continue;
        }
        let asked = {
            let mut state = card.state();
            let queue = &mut state.queues[1];
            queue.kicked = false;
            queue.ask_for_kicks(&card.memory, true);
            queue.has_next(&card.memory)
        };
        // Something came before it was asked for: no sleep.
        while !asked && !card.state().queues[1].kicked && !stop.load(Ordering::Relaxed) {
            assert!(since.elapsed() < PATIENCE, "slept through a packet");
            std::thread::yield_now();
        }
        card.state().queues[1].ask_for_kicks(&card.memory, false);
    }
}

/// The driver: sends a few, sleeps until they are back.
fn ping(scene: &mut Scene, rounds: u64) {
    for round in 0..rounds {
        let n = 1 + round % 3;
        let packets = (0..n).map(|i| packet(scene.pool, &frame(60, round + i))).collect();
        assert_eq!(scene.send(0, packets), 0);
        let mut back = 0;
        while back < n {
            let came = scene.receive(0);
            assert!(came.iter().zip(back..).all(|(m, i)| bytes(m) == frame(60, round + i)));
            back += came.len() as u64;
            if back < n && scene.rings.rx[0].arm() {
                let event = scene.driver.rx_event(0).expect("there are vectors");
                let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
                let woken = poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], Some(&patience));
                assert_eq!(woken, Ok(1), "slept through a packet");
            }
            scene.rings.rx[0].disarm();
        }
    }
}

#[test]
fn neither_sleeps_through_what_the_other_did() {
    for (kind, features) in KINDS {
        println!("{kind}");
        let mut scene = Scene::new(features);
        let (card, stop) = (scene.card.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&card, &stop));
            let pinged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ping(&mut scene, 3000)));
            stop.store(true, Ordering::Relaxed);
            pinged.unwrap();
        });
        scene.end();
    }
}

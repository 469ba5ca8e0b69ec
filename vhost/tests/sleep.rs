//! An lcore that sleeps for a guest's ring, and what wakes it: kicks, starts, announcements; and what a hostile front end's
//! eventfd costs (V4, C14).

mod sleeper;

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use sleeper::{RINGS, SPLIT, Sleeper};
use vhost::driver::{Kicks, NetHdr};

const FRAME: [u8; 60] = [0x42; 60];

#[test]
fn a_kick_wakes_and_is_asked_for_only_when_it_is_needed() {
    for features in RINGS {
        let mut lcore = Sleeper::new();
        let mut guest = lcore.connect(features, Kicks::AsAsked);
        lcore.arm();
        for _ in 0..1000 {
            let before = guest.pairs()[0].tx.queue().kicks_sent();
            assert!(!lcore.wakes_now());
            guest.send(&FRAME, NetHdr::default()).unwrap();
            assert!(lcore.wakes_now(), "the kick is there when the guest has sent");
            lcore.rx.disarm();
            guest.send(&FRAME, NetHdr::default()).unwrap();
            assert_eq!(lcore.poll(), 2);
            guest.send(&FRAME, NetHdr::default()).unwrap();
            assert_eq!(guest.pairs()[0].tx.queue().kicks_sent(), before + 1, "none while it is polled");
            assert!(!lcore.rx.arm(), "a frame is there");
            lcore.rx.disarm();
            assert_eq!(lcore.poll(), 1);
            assert!(lcore.rx.arm());
        }
    }
}

#[test]
fn a_ring_that_starts_wakes() {
    let mut lcore = Sleeper::new();
    for features in RINGS {
        assert!(lcore.rx.arm(), "without a guest there is nothing to poll for");
        assert!(!lcore.wakes_now());
        let mut guest = lcore.connect(features, Kicks::AsAsked);
        assert!(lcore.wakes_soon());
        lcore.arm();
        guest.send(&FRAME, NetHdr::default()).unwrap();
        assert!(lcore.wakes_soon());
        assert_eq!(lcore.poll(), 1);
        lcore.arm();
        guest.disconnect().unwrap();
        lcore.wakes_now();
    }
}

#[test]
fn a_kick_that_is_replaced_while_asleep() {
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(SPLIT, Kicks::Never);
    for _ in 0..50 {
        lcore.arm();
        let old = guest.pairs()[0].tx.queue().kick_fd().try_clone_to_owned().unwrap();
        let new = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        guest.front_end().set_vring_kick(1, Some(new.as_fd())).unwrap();
        assert!(lcore.wakes_soon(), "the ring was started anew, and is not armed");
        lcore.arm();
        rustix::io::write(&old, &1u64.to_ne_bytes()).unwrap();
        assert!(!lcore.wakes_now(), "nobody watches the old one");
        guest.send(&FRAME, NetHdr::default()).unwrap();
        rustix::io::write(&new, &1u64.to_ne_bytes()).unwrap();
        assert!(lcore.wakes_now());
        assert_eq!(lcore.poll(), 1);
        // The front end's own end is closed: that guest cannot kick any more, and nobody else cares.
        drop(new);
        lcore.arm();
    }
}

#[test]
fn a_front_end_that_asks_to_be_polled_is() {
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(SPLIT, Kicks::Never);
    lcore.arm();
    guest.front_end().set_vring_kick(1, None).unwrap();
    assert!(lcore.wakes_soon());
    assert!(!lcore.rx.arm());
    let kick = guest.pairs()[0].tx.queue().kick_fd().try_clone_to_owned().unwrap();
    guest.front_end().set_vring_kick(1, Some(kick.as_fd())).unwrap();
    lcore.arm();
}

/// An eventfd that is always readable, blocks whoever reads or writes it, or counts by ones: all the same to who watches
/// for edges.
#[test]
fn c14_a_kick_that_would_block_or_is_always_readable() {
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(SPLIT, Kicks::Never);
    let full = eventfd(0, EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let counts = eventfd(1000, EventfdFlags::SEMAPHORE).unwrap();
    for kick in [full, counts] {
        guest.front_end().set_vring_kick(1, Some(kick.as_fd())).unwrap();
        // The front end takes the flag away that the control plane set.
        let flags = rustix::fs::fcntl_getfl(&kick).unwrap() - rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&kick, flags).unwrap();
        lcore.arm();
        for _ in 0..10 {
            assert!(!lcore.wakes_now(), "readable it was before");
        }
        assert!(!lcore.wakes(Duration::from_millis(30)));
        lcore.rx.disarm();
        lcore.arm();
    }
    guest.send(&FRAME, NetHdr::default()).unwrap();
    assert!(!lcore.rx.arm(), "what is there is seen without any kick");
    assert_eq!(lcore.poll(), 1);
}

#[test]
fn an_announcement_wakes() {
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(SPLIT, Kicks::AsAsked);
    lcore.arm();
    guest.front_end().send_rarp([2, 0, 0, 0, 0, 9]).unwrap();
    assert!(lcore.wakes_soon());
    assert_eq!(lcore.poll(), 1);
    assert_eq!(lcore.pool.balance().out, 0);
}

#[test]
fn a_pool_that_is_empty_lets_nobody_sleep() {
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(SPLIT, Kicks::AsAsked);
    lcore.arm();
    let mut all = Vec::new();
    while let Ok(mbuf) = lcore.pool.alloc(0) {
        all.push(mbuf);
    }
    guest.send(&FRAME, NetHdr::default()).unwrap();
    assert!(lcore.wakes_soon());
    assert_eq!(lcore.poll(), 0);
    assert!(!lcore.rx.arm(), "the frame is still there");
    drop(all);
    assert_eq!(lcore.poll(), 1);
}

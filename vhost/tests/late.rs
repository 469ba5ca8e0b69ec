//! What a driver that polls gets back late: the newest buffers it has sent, until others come, nothing comes for a moment, or
//! nobody looks any more.

mod sleeper;

use std::time::Duration;

use sleeper::{SPLIT, Sleeper};
use vhost::driver::{Kicks, NetHdr, VirtioNet};
use vhost::wire::net::F_EVENT_IDX;

const FRAME: [u8; 60] = [0x42; 60];
/// At most so many are late, of the driver's 256.
const LATE: usize = 32;

/// Sends `frames` and has the lcore take them; how many buffers have come back.
fn send_and_take(lcore: &mut Sleeper, guest: &mut VirtioNet, frames: usize) -> usize {
    for _ in 0..frames {
        guest.send(&FRAME, NetHdr::default()).unwrap();
    }
    assert_eq!(lcore.poll(), frames);
    guest.pairs()[0].tx.reclaim().unwrap()
}

/// A split ring without EVENT_IDX, whose driver polls, which it was asked as the ring was started.
fn polled() -> (Sleeper, VirtioNet) {
    let mut lcore = Sleeper::new();
    let guest = lcore.connect(SPLIT & !F_EVENT_IDX, Kicks::AsAsked);
    lcore.arm();
    lcore.rx.disarm();
    (lcore, guest)
}

#[test]
fn at_most_32_are_late_and_those_before_them_are_not() {
    let (mut lcore, mut guest) = polled();
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0);
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 40 - LATE);
    for _ in 0..30 {
        assert_eq!(send_and_take(&mut lcore, &mut guest, 32), 32, "the ones before");
    }
}

#[test]
fn a_moment_without_packets_shows_them() {
    let (mut lcore, mut guest) = polled();
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0);
    let polls = (1..=1000).find(|_| {
        lcore.poll();
        guest.pairs()[0].tx.reclaim().unwrap() > 0
    });
    assert!(polls.is_some_and(|polls| polls > 100), "{polls:?}");
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0, "and the next ones are late again");
}

#[test]
fn who_sleeps_has_shown_them() {
    let (mut lcore, mut guest) = polled();
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0);
    lcore.arm();
    assert_eq!(guest.pairs()[0].tx.reclaim().unwrap(), 20);
}

#[test]
fn a_ring_that_stops_has_shown_them() {
    let (mut lcore, mut guest) = polled();
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0);
    let mut pair = guest.take_pairs().pop().unwrap();
    guest.disconnect().unwrap();
    while lcore.rx.is_ready() {
        std::thread::yield_now();
    }
    assert_eq!(pair.tx.reclaim().unwrap(), 20);
}

/// Polls beside a driver that waits for what it sent to come back; whether it was called.
fn poll_until_called(lcore: &mut Sleeper, guest: &mut VirtioNet) -> bool {
    let mut pair = guest.take_pairs().pop().unwrap();
    let called = std::thread::scope(|scope| {
        let waits = scope.spawn(|| pair.tx.queue_mut().wait_used(Duration::from_secs(5)).unwrap());
        while !waits.is_finished() {
            lcore.poll();
        }
        waits.join().unwrap()
    });
    assert_eq!(pair.tx.reclaim().unwrap(), 20);
    called
}

/// V3 with a ring that is late: the driver polled when it was asked, and waits for a call by now.
#[test]
fn who_begins_to_wait_is_called_for_what_was_late() {
    let (mut lcore, mut guest) = polled();
    assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 0);
    assert!(poll_until_called(&mut lcore, &mut guest));
}

#[test]
fn with_event_idx_and_with_packed_rings_nothing_is_late() {
    for features in [SPLIT, !F_EVENT_IDX, u64::MAX] {
        let mut lcore = Sleeper::new();
        let mut guest = lcore.connect(features, Kicks::AsAsked);
        lcore.arm();
        lcore.rx.disarm();
        for _ in 0..10 {
            assert_eq!(send_and_take(&mut lcore, &mut guest, 20), 20);
        }
    }
}

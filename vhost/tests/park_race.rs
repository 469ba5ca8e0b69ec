//! K2, K9: guest and lcore both park at random, and change between polling and sleeping at random; no wake-up is lost.
//!
//! `POLDER_SOAK=n` makes it n times as long: 1,000 for 10^8 rounds, with `cargo test --release`.

mod sleeper;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sleeper::{RINGS, Sleeper};
use vhost::driver::{Kicks, NetHdr, TxRing};

/// Park and wake rounds of each of the four kinds of ring.
const ROUNDS: u64 = 25_000;
/// A sleep that lasts so long is looked into. The other side may be kept from running; but then nothing lies there.
const STALL: Duration = Duration::from_secs(1);

/// What the lcore counts.
#[derive(Debug, Default)]
struct Tally {
    /// Times that it asked to be woken.
    parks: u64,
    /// Of these: it was not needed, as there was something already.
    raced: u64,
    /// Of these: it was woken before it slept.
    at_once: u64,
    /// Times that it asked, and took that back at once.
    fickle: u64,
}

/// Numbers that look random (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Waits a little, or not at all: as long as the other side takes for a few steps, or to wake.
    fn dally(&mut self) {
        let most = [1, 4, 16, 16, 16, 64, 64, 400][self.below(8) as usize];
        (0..self.below(most)).for_each(|_| std::hint::spin_loop());
    }
}

/// The lcore: polls, and when nothing comes asks to be woken, sleeps, changes its mind.
fn turn_lcore(lcore: &mut Sleeper, rounds: u64, ended: &AtomicBool) -> Tally {
    let (mut tally, mut dice) = (Tally::default(), Dice(0x9e37_79b9_7f4a_7c15));
    while !ended.load(Ordering::Relaxed) {
        if lcore.poll() > 0 {
            continue;
        }
        match dice.below(8) {
            0 => std::thread::yield_now(),
            1 => dice.dally(),
            2 => {
                lcore.rx.arm();
                dice.dally();
                lcore.rx.disarm();
                tally.fickle += 1;
            }
            3..6 => {
                dice.dally();
                park(lcore, &mut tally, &mut dice);
            }
            _ => park(lcore, &mut tally, &mut dice),
        }
        if tally.parks >= rounds {
            ended.store(true, Ordering::Relaxed);
        }
    }
    // The guest may wait for what it has sent.
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        lcore.poll();
    }
    tally
}

/// Arms and waits. A sleep takes the longest by far, and the race is over before it: so mostly it sleeps only if it was not
/// woken meanwhile.
fn park(lcore: &mut Sleeper, tally: &mut Tally, dice: &mut Dice) {
    tally.parks += 1;
    if lcore.rx.arm() {
        let looks = if dice.below(16) == 0 { 0 } else { 2000 };
        let at_once = (0..looks).any(|_| lcore.wakes_now());
        tally.at_once += u64::from(at_once);
        let woken = at_once || lcore.wakes(STALL);
        lcore.rx.disarm();
        if !woken {
            let frames = lcore.poll();
            assert!(frames == 0 || lcore.wakes_soon(), "{frames} frames without a kick after {tally:?}");
        }
    } else {
        tally.raced += 1;
        lcore.rx.disarm();
    }
}

/// The guest: sends a few frames, and waits until all are back, polling or asking to be called.
fn turn_guest(tx: &mut TxRing, ended: &AtomicBool) -> u64 {
    let (mut parks, mut dice) = (0, Dice(0x0123_4567_89ab_cdef));
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..=dice.below(8).saturating_sub(5) {
            tx.send(NetHdr::default(), &[0x42; 60]).unwrap();
        }
        dice.dally();
        while tx.queue().in_flight() > 0 && !ended.load(Ordering::Relaxed) {
            // Polls as a rule, so that the next frame is on its way when the lcore is about to park.
            match dice.below(1024) {
                0 => std::thread::yield_now(),
                1 => wait_for_call(tx, &mut parks),
                _ => std::hint::spin_loop(),
            }
            tx.reclaim().unwrap();
        }
    }
    parks
}

fn wait_for_call(tx: &mut TxRing, parks: &mut u64) {
    *parks += 1;
    let start = Instant::now();
    // A call that came late for the time before wakes, too.
    if !tx.queue_mut().wait_used(STALL).unwrap() && start.elapsed() >= STALL {
        let back = tx.reclaim().unwrap();
        let is_told = back == 0 || tx.queue().wait_call(STALL).unwrap();
        assert!(is_told, "{back} buffers without a call after {parks} waits");
    }
}

/// On one CPU, where the scheduler would put two threads that wake each other, nothing happens at the same time.
fn pin(which: usize) {
    let allowed = sched_getaffinity(None).unwrap();
    if let Some(cpu) = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).nth(which) {
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).unwrap();
    }
}

/// Ends the other side's turn, too, when this side fails: without it the race never ended and nobody was told.
struct EndOnDrop<'e>(&'e AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn race(features: u64) {
    let soak = std::env::var("POLDER_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut lcore = Sleeper::new();
    let mut guest = lcore.connect(features, Kicks::AsAsked);
    let (ended, start) = (AtomicBool::new(false), Instant::now());
    let tx = &mut guest.pairs()[0].tx;
    let (at_lcore, at_guest) = std::thread::scope(|scope| {
        let lcore = scope.spawn(|| {
            pin(0);
            let _end = EndOnDrop(&ended);
            turn_lcore(&mut lcore, ROUNDS * soak, &ended)
        });
        let guest = scope.spawn(|| {
            pin(1);
            let _end = EndOnDrop(&ended);
            turn_guest(tx, &ended)
        });
        (lcore.join().unwrap(), guest.join().unwrap())
    });
    println!("features {features:#x}, {:?}, lcore: {at_lcore:?}, guest: {at_guest} parks", start.elapsed());
    assert!(at_lcore.raced < at_lcore.parks && at_guest > 0, "both sides slept");
}

/// One after the other: each needs two CPUs.
#[test]
fn k02_k09_no_wake_up_is_lost() {
    RINGS.into_iter().for_each(race);
}

//! Lcores that sleep: what wakes them, and what does not keep them awake.

mod fake;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fake::{Net, frame, mac};
use vswitch::{LcoreStats, Mac, Placement};

/// The longest sleep.
const LONGEST: Duration = Duration::from_millis(10);
/// Frames of a round.
const ROUND: u32 = 50;

/// A switch with ports that can be slept for, each on an lcore of its own if there are as many.
fn sleepable(lcores: usize, ports: usize) -> Net {
    let mut net = Net::new(lcores);
    net.sleepable = true;
    for n in 0..ports {
        net.add(&format!("p{n}"), 1, &Placement { lcores: vec![n % lcores] });
    }
    net
}

fn stats(net: &Net) -> Vec<LcoreStats> {
    net.switch.stats().lcores
}

/// Turns of all lcores within `time`.
fn turns_in(net: &Net, time: Duration) -> u64 {
    let before: u64 = stats(net).iter().map(|l| l.polls).sum();
    std::thread::sleep(time);
    stats(net).iter().map(|l| l.polls).sum::<u64>() - before
}

/// Waits until the lcores turn no more often than sleepers do.
fn until_asleep(net: &Net) {
    let end = Instant::now() + Duration::from_secs(20);
    while turns_in(net, Duration::from_millis(50)) > 12 * stats(net).len() as u64 {
        assert!(Instant::now() < end, "they never sleep");
    }
}

/// Sends a broadcast from a sleeping switch's first port; how long until the second one has it.
fn first_frame(net: &Net, tag: u32) -> Duration {
    std::thread::sleep(Duration::from_millis(1));
    let start = Instant::now();
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), tag));
    let wire = &net.ports[1].wires[0];
    while wire.tagged.load(SeqCst) <= tag.into() {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody woke");
        std::thread::yield_now();
    }
    start.elapsed()
}

/// Frames that find the switch asleep, a round of them at a time, until most of a round are prompt: a signal that is lost
/// costs what is left of the longest sleep each time, and a machine that is busy does not for ever.
fn assert_prompt(net: &Net) {
    let end = Instant::now() + Duration::from_secs(20);
    for round in 0.. {
        let mut times: Vec<_> = (0..ROUND).map(|n| first_frame(net, round * ROUND + n)).collect();
        times.sort_unstable();
        if times[ROUND as usize / 2] < LONGEST / 3 {
            return;
        }
        assert!(Instant::now() < end, "{times:?}");
    }
}

#[test]
fn packets_wake() {
    let net = sleepable(1, 2);
    until_asleep(&net);
    assert_prompt(&net);
    net.settle();
    assert!(net.ports[0].wires[0].signals.load(SeqCst) > 0, "it was asleep");
    net.assert_exact();
}

#[test]
fn packets_from_another_lcore_wake() {
    let net = sleepable(2, 2);
    until_asleep(&net);
    assert_prompt(&net);
    net.settle();
    assert!(stats(&net)[1].packets >= ROUND.into(), "handed over");
    net.assert_exact();
}

#[test]
fn time_asleep_is_idle_time() {
    let net = sleepable(2, 2);
    until_asleep(&net);
    let (before, start) = (stats(&net), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let (after, past) = (stats(&net), start.elapsed());
    for (before, after) in before.iter().zip(&after) {
        let idle_us = (after.idle_cycles - before.idle_cycles) / vswitch::cycles_per_us();
        let least = past - LONGEST - Duration::from_millis(100);
        assert!(idle_us as u128 >= least.as_micros(), "{idle_us} us of {past:?}");
        assert!(after.polls > before.polls);
    }
}

#[test]
fn ports_come_and_go_while_all_sleep() {
    let mut net = sleepable(2, 2);
    for tag in 0..4 {
        until_asleep(&net);
        let visitor = net.add("visitor", 2, &Placement::default());
        first_frame(&net, tag);
        visitor.send(frame(Mac::BROADCAST, mac(9), u32::MAX));
        net.settle();
        let home = net.switch.remove_port(visitor.id).unwrap();
        assert_eq!((home.rx.len(), home.tx.len()), (2, 2));
        assert!(!visitor.received().is_empty());
        net.ports.pop();
    }
    net.settle();
    net.assert_exact();
}

#[test]
fn one_that_nothing_wakes_for_is_visited_all_the_same() {
    let mut net = sleepable(1, 2);
    net.sleepable = false;
    net.add("polled", 1, &Placement::default());
    assert!(turns_in(&net, Duration::from_millis(200)) > 200, "it naps");
    for tag in 0..20 {
        let before = net.ports[1].wires[0].tagged.load(SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        net.ports[2].send(frame(Mac::BROADCAST, mac(3), tag));
        net.settle();
        assert_eq!(net.ports[1].wires[0].tagged.load(SeqCst), before + 1);
    }
    // It goes: now they sleep.
    let id = net.ports.pop().unwrap().id;
    net.switch.remove_port(id).unwrap();
    until_asleep(&net);
    net.assert_exact();
}

/// Ends another thread's loop, also if an assertion fails.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// K3: one that signals as fast as it can, and has nothing to give, costs naps and no more; others are served within one.
#[test]
fn k03_signals_for_nothing() {
    let net = sleepable(1, 3);
    until_asleep(&net);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                net.ports[2].wires[0].signal();
            }
        });
        let _stop = StopAtEnd(&stop);
        let start = Instant::now();
        let turns = turns_in(&net, Duration::from_millis(500));
        let signals = net.ports[2].wires[0].signals.load(SeqCst);
        // At most a nap each 50 us, and in each 10 ms the signals that are listened to, two turns for each.
        let most =
            start.elapsed().as_micros() as u64 / 50 + 40 * (start.elapsed().as_millis() as u64 / 10 + 2);
        assert!(turns < most, "{turns} turns, at most {most}, for {signals} signals");
        assert_prompt(&net);
    });
    until_asleep(&net);
    net.settle();
    net.assert_exact();
}

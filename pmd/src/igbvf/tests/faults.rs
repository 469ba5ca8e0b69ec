//! The N cases: a NIC's faults, under a port that runs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::igbvf::model::{Mood, Vf};

fn pair() -> (Card, Live, Live) {
    let card = Card::new(2);
    card.join(0, 1);
    let (a, b) = (Live::new(&card, 0), Live::new(&card, 1));
    (card, a, b)
}

/// Traffic from `a` to `b` while `what` is done to the card; `a` may be gone meanwhile.
fn under_load(a: &mut Live, b: &mut Live, what: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            what();
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            a.send(&FRAME, 32);
            b.receive();
            a.receive();
            b.send(&FRAME, 8);
        }
    });
}

#[test]
fn n01_surprise_removal_under_load() {
    let (card, mut a, mut b) = pair();
    a.until("up", |a| a.is_up());
    let began = std::sync::Mutex::new(None);
    under_load(&mut a, &mut b, || {
        std::thread::sleep(Duration::from_millis(30));
        *began.lock().unwrap() = Some(Instant::now());
        card.unplug(0);
        std::thread::sleep(Duration::from_millis(50));
    });
    a.until("it is gone", |a| a.detail("state") == "absent");
    assert!(began.lock().unwrap().unwrap().elapsed() < Duration::from_secs(1));
    assert_eq!(a.pool.balance().out, 0, "all mbufs of the VF are back");
    assert!(!a.queues.tx[0].is_ready() && a.send(&FRAME, 4) == 4, "dropped, not held");
    card.part(1);
    b.works();
    a.end();
    b.end();
}

#[test]
fn n01_orderly_removal_is_obeyed() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.ask_back(0);
    live.until("it is let go of", |live| live.detail("last trouble").contains("wants it back"));
    live.until("nothing is held", |live| live.pool.balance().out == 0 || live.is_up());
    live.end();
}

#[test]
fn n02_all_ones_end_every_wait() {
    let card = Card::new(1);
    let mut driver = Igbvf::new(card.open(0).unwrap(), &OPTIONS).unwrap();
    card.unplug(0);
    let began = Instant::now();
    let pool = frames::pool(256, 2048);
    let error = driver.start(QueueEnv { pool, port: 7 }).unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(began.elapsed() < Duration::from_millis(500));
    assert_eq!(pool.balance().out, 0);
    // And in the middle of it, at any register.
    for after in 1..60 {
        card.plug(0);
        let mut driver = Igbvf::new(card.open(0).unwrap(), &OPTIONS).unwrap();
        driver.mailbox.set_patience(Duration::from_millis(20));
        card.with(0, |vf| vf.unplugs_after = Some(after));
        let rings = driver.start(QueueEnv { pool, port: 7 });
        driver.stop();
        drop(rings);
        assert_eq!(pool.balance().out, 0, "after {after} reads");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn n04_replugged_it_is_the_same_port_again() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    for _ in 0..3 {
        live.works();
        card.unplug(0);
        live.until("it is gone", |live| live.detail("state") == "absent");
        card.with(0, |vf| vf.pf.asked.clear());
        card.plug(0);
        live.works();
        assert!(card.with(0, |vf| vf.pf.vf_longest) > 9000, "what the PF was asked for, it was asked again");
    }
    live.end();
}

#[test]
fn n05_a_thousand_link_flaps_under_load() {
    let (card, mut a, mut b) = pair();
    a.until("up", |a| a.is_up());
    under_load(&mut a, &mut b, || {
        for i in 0..1000 {
            card.set_link(i % 2, false);
            std::thread::sleep(Duration::from_micros(100));
            card.set_link(i % 2, true);
        }
    });
    assert_eq!((a.resets(), b.resets()), (0, 0), "no queue was stuck");
    for n in 0..2 {
        card.part(n);
    }
    a.works();
    b.works();
    // Down for long: dropped and counted, and nothing waits.
    card.set_link(0, false);
    a.until("down", |a| a.port.link() == Link::Down);
    let before = a.port.counters().tx[0].drops[DropReason::TxNotReady as usize].get();
    assert_eq!(a.send(&FRAME, 32), 32);
    assert_eq!(a.port.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), before + 32);
    a.end();
    b.end();
}

#[test]
fn n06_a_pf_reset_is_followed_and_all_is_asked_for_again() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    for round in 0..4 {
        let resets = live.resets();
        let began = Instant::now();
        card.with(0, |vf| match round {
            0 => vf.reset_pf(),
            1 => {
                vf.set_pf_in_reset(true);
                vf.set_pf_in_reset(false);
            }
            2 => {
                vf.reset_pf();
                vf.pf.mood = Mood::ForgetsAfter(2);
            }
            _ => {
                vf.reset_pf();
                vf.reset_pf();
            }
        });
        live.until("it was reset", |live| live.resets() > resets && live.is_up());
        assert!(began.elapsed() < Duration::from_secs(2));
        live.works();
        assert_eq!(card.with(0, |vf| vf.pf.vf_longest), 9026);
    }
    live.end();
}

#[test]
fn n06_a_pf_that_falls_silent_is_waited_for() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.with(0, |vf| {
        vf.reset_pf();
        vf.pf.mood = Mood::Silent;
    });
    live.until("it says so", |live| live.detail("last trouble").contains("ip link set PF up"));
    assert_eq!(live.detail("state"), "resetting");
    assert_eq!(live.pool.balance().out, 0, "nothing is held meanwhile");
    card.with(0, |vf| vf.pf.mood = Mood::Answers);
    live.works();
    live.end();
}

#[test]
fn n08_a_function_level_reset_behind_our_back() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.with(0, Vf::reset);
    live.until("it was noticed", |live| live.resets() == 1);
    live.works();
    live.end();
}

#[test]
fn n09_a_dma_fault_is_seen_as_a_queue_that_is_stuck() {
    let (card, mut a, mut b) = pair();
    a.until("up", |a| a.is_up());
    b.until("up", |b| b.is_up());
    let zone = a.pool.zone().base().addr().get() as u64;
    card.with(0, |vf| vf.lose_mapping(zone));
    assert!(a.send(&FRAME, 32) > 0);
    assert!(!card.with(0, |vf| vf.dma_faults().is_empty()), "the fault was there");
    a.until("the watchdog", |a| a.resets() == 1);
    assert_eq!(a.detail("last trouble"), "a transmit queue is stuck");
    assert_eq!(b.resets(), 0, "nobody else is touched");
    card.part(0);
    card.part(1);
    a.works();
    b.works();
    a.end();
    b.end();
}

/// PAUSE frames may hold a wire for as long as they keep coming (IEEE 802.3 annex 31B): the link partner asks for it, and a
/// reset would only lose what waits.
#[test]
fn n13_a_wire_that_is_paused_is_not_stuck() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.set_paused(0, true);
    while live.send(&FRAME, 32) > 0 {}
    live.stand_by(Duration::from_secs(7));
    assert_eq!(live.resets(), 0, "paused for longer than a queue may stand still");
    card.set_paused(0, false);
    live.works();
    assert_eq!(live.resets(), 0);
    live.end();
}

/// The pause bit is looked at every 10 ms: a wire that is paused most of the time may never be seen paused.
#[test]
fn n13_a_queue_that_stands_still_for_two_seconds_is_not_stuck() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.with(0, |vf| vf.tx_stands = true);
    while live.send(&FRAME, 32) > 0 {}
    live.stand_by(Duration::from_secs(2));
    card.with(0, |vf| vf.tx_stands = false);
    card.ring(0);
    live.works();
    assert_eq!(live.resets(), 0);
    live.end();
}

#[test]
fn n13_s12_completions_that_never_come() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    card.with(0, |vf| vf.tx_reports_nothing = true);
    while live.send(&FRAME, 32) > 0 {}
    let held = live.pool.balance();
    assert!(held.out_by_owner.iter().any(|(owner, n)| *owner == 3 && *n >= 100), "{held:?}");
    live.until("the watchdog", |live| live.resets() == 1);
    card.with(0, |vf| vf.tx_reports_nothing = false);
    live.works();
    live.end();
}

#[test]
fn n13_completions_that_come_twice() {
    let card = Card::new(1);
    card.with(0, |vf| vf.tx_reports_twice = true);
    let mut bare = Bare::new(&card, 0);
    for _ in 0..1000 {
        assert!(bare.send_bytes(&FRAME));
    }
    assert_eq!(card.sent(0).len(), 1000);
    bare.end();
}

/// Stops a thread of the test's also if the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn n14_interrupts_in_storms_and_lost_ones_do_not_matter_to_a_poller() {
    let card = Card::new(1);
    let mut live = Live::new(&card, 0);
    live.works();
    let frames = |live: &mut Live| {
        for _ in 0..1000 {
            let before = live.received;
            assert!(card.receive(0, &FRAME));
            live.until("it comes in", |live| live.received == before + 1);
        }
    };
    card.with(0, |vf| vf.loses_interrupts = true);
    frames(&mut live);
    // Lost while asleep: whoever arms again sees the packet without one.
    live.until("it can be armed", |live| live.queues.rx[0].arm());
    let before = live.received;
    assert!(card.receive(0, &FRAME));
    assert!(!live.queues.rx[0].arm(), "there is one");
    live.queues.rx[0].disarm();
    live.until("it comes in", |live| live.received == before + 1);
    card.with(0, |vf| vf.loses_interrupts = false);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                card.with(0, Vf::storm);
            }
        });
        let stop = StopAtEnd(&stop);
        frames(&mut live);
        drop(stop);
    });
    assert_eq!(live.resets(), 0);
    live.end();
}

#[test]
fn n15_the_balance_is_exact_in_every_state() {
    let (card, mut a, mut b) = pair();
    a.until("up", |a| a.is_up());
    b.until("up", |b| b.is_up());
    for _ in 0..200 {
        a.send(&FRAME, 32);
        while b.receive() > 0 {}
    }
    let balance = a.pool.balance();
    let sum: usize = balance.out_by_owner.iter().map(|(_, n)| n).sum();
    assert_eq!(balance.free + balance.cached + sum, balance.total);
    assert_eq!(balance.out_by_owner.iter().find(|(o, _)| *o == 7), Some(&(7, 128)), "two rings of 64");
    let tx = &a.port.counters().tx[0];
    let rx = &b.port.counters().rx[0];
    assert_eq!(tx.packets.get(), 200 * 32);
    assert_eq!(rx.packets.get() + card.with(1, |vf| vf.missed), 200 * 32);
    a.end();
    b.end();
}

/// The driver's double free would be one of safe Rust's impossibilities; what is left is a device that has us free what it still
/// reads. That costs the packet's secrecy, and cannot be told from a good completion.
#[test]
fn n16_each_mbuf_is_freed_once_whatever_is_reported() {
    let card = Card::new(1);
    let mut bare = Bare::new(&card, 0);
    card.with(0, |vf| vf.tx_reports_nothing = true);
    for _ in 0..100 {
        assert!(bare.send_bytes(&FRAME));
    }
    // All descriptors done at once, and again at each packet.
    card.with(0, |vf| (vf.tx_reports_nothing, vf.tx_reports_twice) = (false, true));
    for _ in 0..27 {
        assert!(bare.send_bytes(&FRAME));
    }
    bare.tx().check();
    bare.end();
}

/// A PF that stops spoofed sources is the operator's duty; what the driver does is to send under no MAC but what the switch forwards,
/// and to say whose MAC it has.
#[test]
fn n18_the_mac_in_use_is_told() {
    let card = Card::new(1);
    let live = Live::new(&card, 0);
    assert_eq!(live.detail("mac"), "02:00:00:00:00:00");
    live.end();
}

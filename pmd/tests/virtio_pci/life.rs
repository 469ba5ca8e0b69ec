//! A port on the card: resets, link, unplug and return.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mbuf::{Burst, Mempool};
use pmd::nic::{NicOptions, NicPort};
use pmd::{DropReason, Link, Port, QueueEnv, Queues};

use crate::frames::{bytes, frame, packet};
use crate::model::{Card, Driver, feature};
use crate::scene::{KINDS, PORT, pool};

struct Life {
    card: Card,
    port: NicPort<Driver>,
    queues: Queues,
    pool: &'static Mempool,
}

/// Waits, 5 s at most, until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < end, "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Life {
    fn new(features: u64) -> Self {
        let (card, pool) = (Card::with_features(features), pool(1024));
        let mut port = card.port(NicOptions::DEFAULT);
        let queues = port.open(QueueEnv { pool, port: PORT }).expect("it comes up");
        Self { card, port, queues, pool }
    }

    /// Sends one frame and receives one; whether both arrived as they were.
    fn works(&mut self, seed: u64) -> bool {
        let mut burst = Burst::new();
        assert!(burst.push(packet(self.pool, &frame(60, seed))).is_ok());
        self.queues.tx[0].tx_burst(&mut burst);
        self.queues.tx[0].drop_burst(&mut burst, DropReason::TxFull);
        self.queues.tx[0].flush();
        let sent = self.card.sent(0).last().is_some_and(|p| p.frame == frame(60, seed));
        let posted = self.card.receive(0, &frame(60, seed).into());
        let mut burst = Burst::new();
        self.queues.rx[0].rx_burst(&mut burst);
        sent && posted && burst.last().is_some_and(|m| bytes(m) == frame(60, seed))
    }

    fn detail(&self, name: &str) -> String {
        self.port.details().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v).unwrap_or_default()
    }

    fn runs_again(&mut self, resets: &str) {
        until("running", || self.detail("state") == "running" && self.detail("resets") == resets);
        until("ready", || self.queues.tx[0].is_ready());
        assert!(self.works(77));
    }

    fn end(self) {
        let Self { card, port, queues, pool } = self;
        drop(port);
        assert_eq!((pool.balance().out, card.memory.mappings()), (0, 0), "n15");
        assert_eq!((card.memory.faults(), card.state().status), (vec![], 0));
        drop(queues);
    }
}

#[test]
fn a_device_that_asks_to_be_reset_is() {
    for (_, features) in KINDS {
        let mut life = Life::new(features);
        assert!(life.works(1));
        life.card.break_down();
        life.runs_again("1");
        assert_eq!(life.detail("last trouble"), "the device asks to be reset");
        life.end();
    }
}

#[test]
fn one_that_was_reset_behind_our_back_is_brought_up_again() {
    let mut life = Life::new(feature::USUAL);
    life.card.state().set_status(0);
    life.runs_again("1");
    life.end();
}

#[test]
fn a_ring_that_broke_is_made_anew() {
    for (_, features) in KINDS {
        let mut life = Life::new(features);
        life.card.state().queues[0].lie = Some(crate::model::Lie::Id(9999));
        assert!(!life.works(1));
        life.runs_again("1");
        life.end();
    }
}

#[test]
fn n05_link_changes_are_seen_and_cost_nothing() {
    let mut life = Life::new(feature::USUAL);
    for _ in 0..100 {
        life.card.set_link(false);
        life.card.set_link(true);
        life.works(3);
    }
    life.card.set_link(false);
    until("link down", || life.port.link() == Link::Down);
    let mut burst = Burst::new();
    assert!(burst.push(packet(life.pool, &frame(60, 0))).is_ok());
    assert_eq!(life.queues.tx[0].tx_burst(&mut burst), 1, "dropped: down");
    life.card.set_link(true);
    until("link up", || life.queues.tx[0].is_ready());
    assert!(life.works(5));
    assert_eq!(life.detail("resets"), "0");
    life.end();
}

/// Ends a test's traffic however the test ends: a thread that went on would be waited for.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn n01_n04_pulled_out_under_traffic_and_put_back() {
    for features in [feature::USUAL, feature::USUAL | feature::RING_PACKED] {
        let mut life = Life::new(features);
        let (card, stop, worked) = (life.card.clone(), AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let tag = worked.load(Ordering::Relaxed);
                    worked.fetch_add(u64::from(life.works(tag)), Ordering::Relaxed);
                }
            });
            let _stop = StopOnDrop(&stop);
            for _ in 0..5 {
                card.set_present(false);
                until("let go of", || card.memory.mappings() == 0);
                card.set_present(true);
                until("taken back", || card.memory.mappings() > 0 && card.state().status & 4 != 0);
            }
            until("some of it came through", || worked.load(Ordering::Relaxed) > 0);
        });
        // What the other thread left in the rings at the last change comes first.
        until("it works again", || life.works(9));
        life.end();
    }
}

#[test]
fn n03_a_bar_that_vanishes_is_a_device_that_is_gone() {
    let mut life = Life::new(feature::USUAL);
    life.card.state().faulting = true;
    until("absent", || life.detail("state") == "absent");
    life.card.state().faulting = false;
    life.card.set_present(true);
    life.runs_again("1");
    life.end();
}

#[test]
fn n01_the_system_gets_the_device_back_when_it_asks() {
    let mut life = Life::new(feature::USUAL);
    life.card.removal.raise();
    until("let go of", || life.card.memory.mappings() == 0 && life.detail("state") == "absent");
    life.card.removal.clear();
    life.runs_again("1");
    life.end();
}

#[test]
fn a_sleeping_lcore_is_woken_by_a_packet() {
    for (_, features) in KINDS {
        let mut life = Life::new(features);
        assert!(life.works(1));
        let readable = |life: &mut Life| {
            let fd = life.queues.rx[0].wake_fd().expect("it can be waited on");
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 1
        };
        life.queues.rx[0].disarm();
        assert!(life.queues.rx[0].arm() && !readable(&mut life));
        assert!(life.card.receive(0, &frame(60, 0).into()));
        assert!(readable(&mut life));
        life.queues.rx[0].disarm();
        assert!(!readable(&mut life));
        life.end();
    }
}

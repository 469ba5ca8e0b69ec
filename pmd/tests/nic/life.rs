//! The life of a device under its port.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mbuf::{Burst, Mempool};
use pmd::nic::{Health, NicPort};
use pmd::{DropReason, Link, Port, PortError, QueueEnv, Queues};

use crate::fake::{Device, FakeDriver, pool, until};

struct Scene {
    device: Device,
    port: NicPort<FakeDriver>,
    queues: Queues,
    pool: &'static Mempool,
}

impl Scene {
    fn new() -> Self {
        let (device, pool) = (Device::new(), pool());
        let mut port = device.port();
        let queues = port.open(QueueEnv { pool, port: 3 }).expect("it comes up");
        Self { device, port, queues, pool }
    }

    /// Sends `n` packets; returns how many the device took.
    fn send(&mut self, n: usize) -> u64 {
        let before = self.port.counters().tx[0].packets.get();
        let mut burst = Burst::new();
        self.pool.alloc_bulk(&mut burst, n, 3).expect("mbufs");
        let tx = &mut self.queues.tx[0];
        tx.tx_burst(&mut burst);
        tx.drop_burst(&mut burst, DropReason::TxFull);
        tx.flush();
        self.port.counters().tx[0].packets.get() - before
    }

    /// Receives what is there.
    fn receive(&mut self) -> usize {
        let mut burst = Burst::new();
        self.queues.rx[0].rx_burst(&mut burst)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.port.counters().tx[0].drops[reason as usize].get()
    }

    fn detail(&self, name: &str) -> String {
        self.port.details().into_iter().find(|(n, _)| *n == name).map(|(_, v)| v).unwrap_or_default()
    }

    fn works(&mut self) -> bool {
        self.send(5) == 5 && self.receive() == 5
    }
}

#[test]
fn frames_go_both_ways_and_it_tells_how_it_is() {
    let mut scene = Scene::new();
    assert!(scene.works());
    assert_eq!((scene.port.kind(), scene.port.link(), scene.port.max_frame()), ("vfio", Link::Up, 1514));
    assert_eq!((scene.detail("state"), scene.detail("driver")), ("running".into(), "fake".into()));
    assert!(matches!(scene.port.open(QueueEnv { pool: scene.pool, port: 3 }), Err(PortError::QueuesTaken)));
}

#[test]
fn n05_link_down_and_up_a_thousand_times() {
    let mut scene = Scene::new();
    for round in 0..1000 {
        let link = if round % 2 == 0 { Link::Down } else { Link::Up };
        scene.device.world().link = link;
        let sent = scene.send(2);
        assert!(sent == 2 || sent == 0, "a burst is sent whole or dropped whole");
        scene.receive();
        // The port looks every 10 ms: it sees a good many of them.
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
    scene.device.world().link = Link::Down;
    until("link down", || scene.port.link() == Link::Down);
    let (before, ready) = (scene.dropped(DropReason::TxNotReady), scene.queues.tx[0].is_ready());
    assert!(!ready && scene.send(2) == 0);
    assert_eq!(scene.dropped(DropReason::TxNotReady), before + 2, "named");
    scene.device.world().link = Link::Up;
    until("link up", || scene.queues.tx[0].is_ready());
    while scene.receive() > 0 {}
    assert!(scene.works());
    assert_eq!(scene.device.world().stops, 0, "a link is no reason to reset");
    assert_eq!(scene.pool.balance().out, 0);
}

#[test]
fn a_reset_stops_before_it_frees_and_starts_anew() {
    let mut scene = Scene::new();
    for (n, by_look) in [true, false].into_iter().enumerate() {
        scene.send(5);
        if by_look {
            scene.device.world().health = Some(Health::Reset("the PF was reset"));
        } else {
            scene.device.world().trouble = Some("transmit stalled");
        }
        until("started again", || scene.device.world().starts == n + 2);
        until("running", || scene.detail("state") == "running");
        assert_eq!(scene.detail("resets"), (n + 1).to_string());
        until("ready", || scene.queues.tx[0].is_ready());
        assert!(scene.works());
    }
    assert_eq!(scene.detail("last trouble"), "transmit stalled");
    assert_eq!((scene.device.world().rings, scene.pool.balance().out), (2, 0));
}

#[test]
fn n06_a_device_that_does_not_answer_is_tried_again() {
    let mut scene = Scene::new();
    {
        let mut world = scene.device.world();
        world.answers = false;
        world.health = Some(Health::Reset("the PF is silent"));
    }
    until("given up for now", || scene.detail("last trouble").contains("did not answer the reset"));
    assert_eq!((scene.send(3), scene.receive()), (0, 0));
    assert_eq!((scene.detail("state"), scene.port.link()), ("resetting".into(), Link::Down));
    scene.device.world().answers = true;
    until("running again", || scene.queues.tx[0].is_ready());
    assert!(scene.works());
}

/// Ends a test's traffic however the test ends: a thread that went on would be waited for.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn n01_n04_a_device_that_goes_away_and_comes_back_under_traffic() {
    let mut scene = Scene::new();
    let (device, stop, received) = (scene.device.clone(), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                scene.send(4);
                received.fetch_add(scene.receive(), Ordering::Relaxed);
            }
        });
        let _stop = StopOnDrop(&stop);
        for round in 1..=5 {
            device.world().present = false;
            until("let go of", || device.world().rings == 0);
            device.world().present = true;
            until("taken back", || {
                let world = device.world();
                world.opens == round + 1 && world.rings == 2
            });
        }
        until("some of it came through", || received.load(Ordering::Relaxed) > 0);
    });
    until("ready", || scene.queues.tx[0].is_ready());
    while scene.receive() > 0 {}
    assert!(scene.works());
    assert_eq!(scene.pool.balance().out, 0, "n15");
}

#[test]
fn a_port_that_is_removed_leaves_nothing_behind() {
    let mut scene = Scene::new();
    scene.send(5);
    let Scene { device, port, mut queues, pool } = scene;
    drop(port);
    assert_eq!(device.world().rings, 0);
    assert_eq!(device.world().stops, 1);
    let mut burst = Burst::new();
    assert_eq!(queues.rx[0].rx_burst(&mut burst), 0);
    pool.alloc_bulk(&mut burst, 1, 3).unwrap();
    assert_eq!(queues.tx[0].tx_burst(&mut burst), 1, "dropped");
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn a_device_that_is_not_there_is_refused_at_once() {
    let device = Device::new();
    device.world().present = false;
    let opener = device.clone();
    let refused = NicPort::new("vfio", "0000:00:00.0", move || opener.open());
    assert!(refused.is_err_and(|e| e.to_string().contains("0000:00:00.0 is gone")));
    device.world().present = true;
    let mut port = device.port();
    device.world().answers = false;
    let refused = port.open(QueueEnv { pool: pool(), port: 3 });
    assert!(refused.is_err_and(|e| e.to_string().contains("did not answer the reset")));
}

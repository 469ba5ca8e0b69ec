//! S9: no port lets another wait.

mod fake;

use std::sync::atomic::Ordering::SeqCst;

use fake::{Net, frame, mac, tag};
use pmd::DropReason;
use vswitch::{Mac, Placement};

/// Station `n` behind port `n`, known to the switch.
fn introduce(net: &Net) {
    // One at a time: of two lcores that learn at once, one may find the table's lock taken and learn at the next frame.
    for (n, port) in net.ports.iter().enumerate() {
        port.send(frame(Mac::BROADCAST, mac(n as u32), 0));
        net.settle();
    }
    assert_eq!(net.switch.fdb().list(net.switch.now_s()).len(), net.ports.len());
    net.ports.iter().for_each(|p| drop(p.received()));
}

fn stalled_beside_healthy(lcores: usize) {
    let net = Net::with_ports(lcores, 3);
    introduce(&net);
    net.ports[1].wires[0].room.store(5, SeqCst);
    let mut healthy = 0;
    for n in 0..4000 {
        let to = 1 + n % 2;
        net.ports[0].send(frame(mac(to), mac(0), n));
        healthy += u32::from(to == 2);
        if n % 512 == 511 {
            net.settle();
        }
    }
    net.settle();
    let tags: Vec<_> = net.ports[2].received().iter().map(|f| tag(f)).collect();
    assert!(tags.iter().copied().eq((1..4000).step_by(2)), "{} of {healthy}", tags.len());
    assert_eq!(net.ports[1].received().len(), 5);
    assert_eq!(net.dropped(1, DropReason::TxFull), 1995, "counted where the room was missing");
    net.assert_exact();
}

#[test]
fn s09_a_stalled_receiver_costs_a_healthy_one_nothing() {
    stalled_beside_healthy(1);
}

#[test]
fn s09_across_lcores() {
    stalled_beside_healthy(2);
}

#[test]
fn a_receiver_that_is_not_ready_drops_under_its_own_reason() {
    let net = Net::with_ports(1, 2);
    introduce(&net);
    net.ports[1].wires[0].ready.store(false, SeqCst);
    (0..10).for_each(|n| net.ports[0].send(frame(mac(1), mac(0), n)));
    net.settle();
    assert_eq!(net.dropped(1, DropReason::TxNotReady), 10);
    net.assert_exact();
}

#[test]
fn s10_a_full_ring_between_lcores_drops_for_that_port_alone() {
    let mut net = Net::new(2);
    let on = |lcore| Placement { lcores: vec![lcore] };
    net.add("sender", 1, &on(0));
    net.add("far", 1, &on(1));
    net.add("near", 1, &on(0));
    introduce(&net);
    // The far lcore stands still: it waits for its receiver's lock, which no real receiver has.
    let far = net.ports[1].wires[0].clone();
    let held = far.hold();
    for n in 0..4000 {
        net.ports[0].send(frame(mac(1 + n % 2), mac(0), n));
    }
    let start = std::time::Instant::now();
    while net.ports[0].wires[0].waiting() > 0 {
        assert!(start.elapsed().as_secs() < 10, "the sender waits for a receiver");
        std::thread::yield_now();
    }
    drop(held);
    net.settle();
    assert_eq!(net.ports[2].received().len(), 2000, "the near one loses nothing");
    let far = net.ports[1].received().len() as u64;
    assert_eq!(far + net.dropped(0, DropReason::HandoverFull), 2000);
    assert!((1024..=1024 + 64).contains(&far), "{far}: the ring, and what was in hand");
    net.assert_exact();
}

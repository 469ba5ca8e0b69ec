//! Ports of several queues: same flow, same queue; only those that are ready.

mod fake;

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;

use fake::{FakePort, Net, frame, mac, tag};
use pmd::DropReason;
use vswitch::{Mac, Placement};

/// A UDP datagram of flow `flow`.
fn datagram(dst: Mac, src: Mac, flow: u32) -> Vec<u8> {
    let mut frame = frame(dst, src, 0);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[23] = 17;
    frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
    frame[30..34].copy_from_slice(&flow.to_be_bytes());
    frame
}

fn net(lcores: usize, queues: usize) -> (Net, FakePort, FakePort) {
    let mut net = Net::new(lcores);
    let a = net.add("a", queues, &Placement::default());
    let b = net.add("b", queues, &Placement::default());
    b.send(frame(Mac::BROADCAST, mac(2), 0));
    net.settle();
    a.received();
    (net, a, b)
}

#[test]
fn each_flow_keeps_to_one_queue_and_all_ready_queues_are_used() {
    let (net, a, b) = net(1, 4);
    for round in 0..20 {
        for flow in 0..200 {
            let mut packet = datagram(mac(2), mac(1), flow);
            packet[50] = round;
            a.send(packet);
        }
    }
    net.settle();
    let mut queue_of = HashMap::new();
    for (queue, wire) in b.wires.iter().enumerate() {
        let got = wire.received();
        assert!(got.len() > 400, "queue {queue} got {} of 4000", got.len());
        let mut rounds: HashMap<Vec<u8>, u8> = HashMap::new();
        for packet in got {
            let flow = packet[30..34].to_vec();
            assert_eq!(*queue_of.entry(flow.clone()).or_insert(queue), queue);
            let next = rounds.entry(flow).or_insert(0);
            assert_eq!(packet[50], *next, "a flow's packets keep their order");
            *next += 1;
        }
    }
    net.assert_exact();
}

#[test]
fn queues_that_are_not_ready_get_nothing() {
    let (net, a, b) = net(1, 4);
    b.wires[1].ready.store(false, SeqCst);
    b.wires[2].ready.store(false, SeqCst);
    (0..400).for_each(|flow| a.send(datagram(mac(2), mac(1), flow)));
    net.settle();
    let got: Vec<_> = b.wires.iter().map(|w| w.received().len()).collect();
    assert_eq!((got[1], got[2], got[0] + got[3]), (0, 0, 400), "{got:?}");
    assert!(got[0] > 100 && got[3] > 100, "{got:?}");
    net.assert_exact();
}

#[test]
fn a_guest_that_uses_one_of_its_queues_is_reached_from_every_lcore() {
    let (net, a, b) = net(2, 2);
    b.wires[1].ready.store(false, SeqCst);
    for n in 0..100 {
        a.wires[n as usize % 2].send(frame(mac(2), mac(1), n));
    }
    net.settle();
    let mut tags: Vec<_> = b.wires[0].received().iter().map(|f| tag(f)).collect();
    tags.sort_unstable();
    assert!(tags.iter().copied().eq(0..100), "{tags:?}");
    assert_eq!(net.dropped(1, DropReason::TxNotReady), 0);
    net.assert_exact();
}

#[test]
fn halves_come_home_in_the_order_they_left() {
    for lcores in 1..4 {
        let (mut net, a, _b) = net(lcores, 5);
        let mut home = net.switch.remove_port(a.id).unwrap();
        for (n, wire) in a.wires.iter().enumerate() {
            wire.send(frame(mac(1), mac(2), n as u32));
            let mut burst = mbuf::Burst::new();
            assert_eq!(home.rx[n].rx_burst(&mut burst), 1);
            assert_eq!(home.tx[n].tx_burst(&mut burst), 1);
            assert_eq!(tag(&wire.received()[0]), n as u32);
        }
    }
}

//! What a learning switch does with addresses.

mod fake;

use std::time::Duration;

use fake::{Net, frame, mac};
use pmd::DropReason;
use vswitch::Mac;

#[test]
fn unknown_stations_are_flooded_and_known_ones_are_not() {
    let net = Net::with_ports(1, 4);
    net.ports[0].send(frame(mac(2), mac(1), 1));
    net.settle();
    let got: Vec<_> = net.ports.iter().map(|p| p.received().len()).collect();
    assert_eq!(got, [0, 1, 1, 1], "to all but where it came from");
    net.ports[1].send(frame(mac(1), mac(2), 2));
    net.settle();
    net.ports[0].send(frame(mac(2), mac(1), 3));
    net.settle();
    assert_eq!(net.ports[0].received(), [frame(mac(1), mac(2), 2)]);
    assert_eq!(net.ports[1].received(), [frame(mac(2), mac(1), 3)]);
    assert!(net.ports[2].received().is_empty() && net.ports[3].received().is_empty());
    let totals = net.totals();
    assert_eq!((totals.rx_packets, totals.flood_copies, totals.tx_packets), (3, 2, 5));
    net.assert_exact();
}

#[test]
fn groups_are_flooded_and_reserved_ones_are_not_forwarded() {
    let net = Net::with_ports(1, 3);
    for last in [0u8, 1, 0x0e, 0x0f, 0x10] {
        net.ports[0].send(frame(Mac([0x01, 0x80, 0xc2, 0, 0, last]), mac(1), u32::from(last)));
    }
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 99));
    net.ports[0].send(frame(Mac([0x33, 0x33, 0, 0, 0, 1]), mac(1), 98));
    net.settle();
    assert_eq!(net.dropped(0, DropReason::ReservedGroup), 4);
    let tags: Vec<_> = net.ports[2].received().iter().map(|f| fake::tag(f)).collect();
    assert_eq!(tags, [0x10, 99, 98]);
    net.assert_exact();
}

#[test]
fn a_card_that_gives_broadcasts_back_moves_nobody() {
    let mut net = Net::with_ports(1, 2);
    let uplink = net.add_reflecting("uplink");
    let guest_asks = frame(Mac::BROADCAST, mac(1), 1);
    net.ports[0].send(guest_asks.clone());
    net.settle();
    assert_eq!(uplink.received(), std::slice::from_ref(&guest_asks));
    // The card hands it back, among others' frames; it goes nowhere, and the guest stays where it is.
    for f in [frame(mac(1), mac(9), 2), guest_asks.clone(), frame(Mac::BROADCAST, mac(8), 3)] {
        uplink.send(f);
    }
    net.settle();
    assert_eq!(net.ports[0].received(), [frame(mac(1), mac(9), 2), frame(Mac::BROADCAST, mac(8), 3)]);
    assert_eq!(net.dropped(2, DropReason::Reflected), 1);
    net.ports[1].received();
    // Others' broadcasts go on, and an answer finds the guest.
    uplink.send(frame(Mac::BROADCAST, mac(8), 4));
    uplink.send(frame(mac(1), mac(9), 5));
    net.settle();
    assert_eq!(net.ports[0].received().len(), 2);
    assert_eq!(net.ports[1].received(), [frame(Mac::BROADCAST, mac(8), 4)]);
    // Who really moved there, and speaks to somebody, is believed at once; so is a broadcast after some seconds.
    uplink.send(frame(mac(8), mac(1), 6));
    net.settle();
    net.ports[0].send(frame(mac(1), mac(7), 7));
    net.settle();
    assert_eq!(uplink.received(), [frame(mac(1), mac(7), 7)]);
    net.pass_time(Duration::from_secs(4), || net.switch.now_s() > 4);
    uplink.send(frame(Mac::BROADCAST, mac(7), 8));
    net.settle();
    assert_eq!(net.ports[1].received(), [frame(Mac::BROADCAST, mac(7), 8)]);
    net.assert_exact();
}

#[test]
fn no_group_and_no_zero_is_learned() {
    let net = Net::with_ports(1, 2);
    for src in [Mac::BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 1]), Mac([0; 6])] {
        net.ports[0].send(frame(mac(9), src, 0));
    }
    net.settle();
    assert!(net.switch.fdb().list(net.switch.now_s()).is_empty());
    assert_eq!(net.ports[1].received().len(), 3, "they are forwarded all the same");
    net.assert_exact();
}

#[test]
fn back_to_the_same_port_and_nowhere_to_go() {
    let net = Net::with_ports(1, 1);
    net.ports[0].send(frame(mac(2), mac(1), 0));
    net.ports[0].send(frame(mac(2), mac(3), 0));
    net.settle();
    assert_eq!(net.dropped(0, DropReason::NoOutput), 2);
    net.ports[0].send(frame(mac(1), mac(3), 0));
    net.ports[0].send(vec![0xff; 13]);
    net.settle();
    assert_eq!(net.dropped(0, DropReason::SamePort), 1);
    assert_eq!(net.dropped(0, DropReason::RxTooShort), 1);
    net.assert_exact();
}

#[test]
fn a_station_that_moves_is_followed_and_counted() {
    let net = Net::with_ports(1, 3);
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    net.settle();
    net.ports[1].send(frame(Mac::BROADCAST, mac(1), 0));
    net.settle();
    net.ports.iter().for_each(|p| drop(p.received()));
    net.ports[2].send(frame(mac(1), mac(3), 7));
    net.settle();
    assert!(net.ports[0].received().is_empty());
    assert_eq!(net.ports[1].received().len(), 1);
    assert_eq!(net.switch.stats().fdb.moved, 1);
    assert_eq!(net.switch.fdb().held_by(net.ports[0].id), 0);
    assert_eq!(net.switch.fdb().held_by(net.ports[1].id), 1);
}

#[test]
fn the_silent_are_forgotten_and_the_others_are_not() {
    let net = Net::with_ports(1, 3);
    let fdb = net.switch.fdb();
    fdb.add_static(mac(7), 0, net.ports[2].id).unwrap();
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    net.ports[1].send(frame(Mac::BROADCAST, mac(2), 0));
    net.settle();
    for _ in 0..2 {
        net.pass_time(Duration::from_secs(120), || true);
        let heard = || fdb.list(net.switch.now_s()).iter().any(|e| e.mac == mac(2) && e.age_s < 10);
        net.pass_time(Duration::ZERO, || {
            net.ports[1].send(frame(Mac::BROADCAST, mac(2), 0));
            heard()
        });
    }
    assert_eq!(fdb.lookup(mac(1), 0), Some(net.ports[0].id), "silent for 240 s");
    net.pass_time(Duration::from_secs(62), || fdb.lookup(mac(1), 0).is_none());
    assert!(net.switch.now_s() < 320, "silent for {} s", net.switch.now_s());
    assert_eq!(fdb.lookup(mac(2), 0), Some(net.ports[1].id), "heard of every 120 s");
    assert_eq!(fdb.lookup(mac(7), 0), Some(net.ports[2].id), "static");
    assert_eq!(net.switch.stats().fdb.expired, 1);
}

#[test]
fn a_static_entry_stays_where_it_was_put() {
    let net = Net::with_ports(1, 3);
    let fdb = net.switch.fdb();
    fdb.add_static(mac(5), 0, net.ports[1].id).unwrap();
    net.ports[0].send(frame(Mac::BROADCAST, mac(5), 0));
    net.settle();
    assert_eq!(fdb.lookup(mac(5), 0), Some(net.ports[1].id));
    assert_eq!(net.switch.stats().fdb.refused_static, 1);
    assert_eq!(fdb.flush(), 0, "flush leaves static entries");
    assert!(fdb.remove(mac(5), 0) && !fdb.remove(mac(5), 0));
    assert!(fdb.add_static(Mac::BROADCAST, 0, net.ports[1].id).is_err());
}

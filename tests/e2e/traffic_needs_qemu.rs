//! Traffic between two guests: pings, and TCP with a checksum under each of the card's settings.

use crate::guest::Guest;
use crate::scene::Kind::{FourQueuePairs, OneQueuePair};
use crate::scene::{Kind, on};
use crate::traffic::{ping_loses_nothing, tcp_arrives_whole};

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_both_ways_lose_nothing() {
    on(OneQueuePair, |scene| ping_both_ways(scene.pair(), 56));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_both_ways_lose_nothing_with_four_queue_pairs() {
    on(FourQueuePairs, |scene| {
        let (a, b) = scene.pair();
        use_queue_pairs(a, 4);
        use_queue_pairs(b, 4);
        ping_both_ways((a, b), 56);
        use_queue_pairs(a, 1);
        ping_both_ways((a, b), 56);
        use_queue_pairs(a, 4);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_fill_each_mtu() {
    on(OneQueuePair, |scene| {
        let (a, b) = scene.pair();
        for mtu in [9000, 1500] {
            set_mtu(a, b, mtu);
            // Less the headers of IPv4 and ICMP.
            ping_both_ways((a, b), mtu - 28);
        }
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_with_offloads() {
    tcp_100mb(OneQueuePair, 1500, Offloads::On);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_without_offloads() {
    tcp_100mb(OneQueuePair, 1500, Offloads::Off);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_with_offloads() {
    tcp_100mb(OneQueuePair, 9000, Offloads::On);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_without_offloads() {
    tcp_100mb(OneQueuePair, 9000, Offloads::Off);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_with_offloads_and_four_queue_pairs() {
    tcp_100mb(FourQueuePairs, 1500, Offloads::On);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_without_offloads_and_four_queue_pairs() {
    tcp_100mb(FourQueuePairs, 1500, Offloads::Off);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_with_offloads_and_four_queue_pairs() {
    tcp_100mb(FourQueuePairs, 9000, Offloads::On);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_without_offloads_and_four_queue_pairs() {
    tcp_100mb(FourQueuePairs, 9000, Offloads::Off);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offloads {
    On,
    Off,
}

/// One stream a queue pair, 100 MB in all; the card is left as it was at boot.
fn tcp_100mb(kind: Kind, mtu: u16, offloads: Offloads) {
    on(kind, |scene| {
        let (a, b) = scene.pair();
        set_mtu(a, b, mtu);
        for guest in [&mut *a, &mut *b] {
            use_queue_pairs(guest, kind.queue_pairs());
            set_offloads(guest, offloads);
        }
        tcp_arrives_whole(a, b, kind.queue_pairs(), 100 / u32::from(kind.queue_pairs()));
        set_offloads(a, Offloads::On);
        set_offloads(b, Offloads::On);
        set_mtu(a, b, 1500);
    });
}

fn ping_both_ways((a, b): (&mut Guest, &mut Guest), size: u16) {
    ping_loses_nothing(a, &b.ip(), size);
    ping_loses_nothing(b, &a.ip(), size);
}

fn set_mtu(a: &mut Guest, b: &mut Guest, mtu: u16) {
    a.set_mtu(mtu);
    b.set_mtu(mtu);
}

fn use_queue_pairs(guest: &mut Guest, pairs: u16) {
    // ethtool calls it an error to set what is set already.
    guest.sh(&format!("ethtool -L eth0 combined {pairs} || [ $? = 80 ]"));
    let shown = guest.sh("ethtool -l eth0 | tail -n 2");
    assert!(shown.contains(&format!("Combined:\t{pairs}")), "queue pairs in use: {shown}");
}

fn set_offloads(guest: &mut Guest, offloads: Offloads) {
    let word = if offloads == Offloads::On { "on" } else { "off" };
    guest.sh(&format!(
        "ethtool -K eth0 tx {word} sg {word} tso {word} gso {word} gro {word} rx {word} || true"
    ));
    let shown = guest.sh("ethtool -k eth0");
    for feature in ["tx-checksumming", "tcp-segmentation-offload"] {
        assert!(shown.contains(&format!("{feature}: {word}")), "{feature} is not {word}: {shown}");
    }
}

//! Guests a and b, each with four queue pairs, on devices that offer an MTU of 9000.

use crate::card::{Offloads, use_queue_pairs};
use crate::lifecycle::rebind;
use crate::scene::{Kind, Scene};
use crate::traffic::{
    ping_both_ways, ping_comes_back, ping_loses_nothing, start_flood, stop_flood, tcp_100mb,
};

fn on_scene(test: impl FnOnce(&mut Scene)) {
    crate::scene::on(Kind::FourQueuePairs, test);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_lose_nothing_with_queue_pairs_switched_off_and_on() {
    on_scene(|scene| {
        for pairs in [1, 4] {
            use_queue_pairs(scene.pair().0, pairs);
            ping_both_ways(scene.pair(), 56);
        }
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_with_offloads() {
    on_scene(|scene| tcp_100mb(scene, 1500, Offloads::On));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_1500_without_offloads() {
    on_scene(|scene| tcp_100mb(scene, 1500, Offloads::Off));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_with_offloads() {
    on_scene(|scene| tcp_100mb(scene, 9000, Offloads::On));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn tcp_100mb_mtu_9000_without_offloads() {
    on_scene(|scene| tcp_100mb(scene, 9000, Offloads::Off));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pci_driver_unbind_and_bind_under_traffic() {
    on_scene(|scene| {
        let (a, b) = scene.pair();
        start_flood(a, b);
        let device = b.sysfs_name("..");
        rebind(b, "pci", "virtio-pci", &device);
        ping_comes_back(b, &a.ip());
        stop_flood(a);
        stop_flood(b);
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn hard_reset_under_traffic() {
    on_scene(|scene| {
        let (a, b) = scene.pair();
        start_flood(a, b);
        b.reset();
        b.wait_boot();
        stop_flood(a);
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

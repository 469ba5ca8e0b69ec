//! Guests a and b, each with two queue pairs of packed rings.

use crate::card::{Offloads, set_mtu};
use crate::lifecycle::rebind;
use crate::scene::{Kind, Scene};
use crate::traffic::{
    ping_both_ways, ping_comes_back, ping_loses_nothing, start_flood, stop_flood, tcp_100mb,
};

fn on_scene(test: impl FnOnce(&mut Scene)) {
    crate::scene::on(Kind::PackedRings, |scene| {
        for guest in &mut scene.guests {
            // VIRTIO_F_RING_PACKED is bit 34.
            let negotiated = guest.sh("cut -c 35 /sys/class/net/eth0/device/features");
            assert_eq!(negotiated.trim(), "1", "{} has packed rings", guest.name());
        }
        test(scene);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_fill_each_mtu() {
    on_scene(|scene| {
        for mtu in [9000, 1500] {
            set_mtu(scene.pair(), mtu);
            // Less the headers of IPv4 and ICMP.
            ping_both_ways(scene.pair(), mtu - 28);
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
fn tcp_100mb_mtu_9000_without_offloads() {
    on_scene(|scene| tcp_100mb(scene, 9000, Offloads::Off));
}

/// The rings stop, start anew from their start, and go on.
#[test]
#[ignore = "needs QEMU: run ./test"]
fn driver_unbind_and_bind_under_traffic() {
    on_scene(|scene| {
        let (a, b) = scene.pair();
        start_flood(a, b);
        let device = b.sysfs_name("");
        rebind(b, "virtio", "virtio_net", &device);
        ping_comes_back(b, &a.ip());
        stop_flood(a);
        stop_flood(b);
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

//! Guests a, b and c, each with one queue pair.

use crate::card::{Offloads, set_mtu};
use crate::deadline::secs;
use crate::guest::Guest;
use crate::lifecycle::{rebind, while_others_lose_nothing};
use crate::scene::{Kind, Scene};
use crate::traffic::{
    ping_both_ways, ping_comes_back, ping_loses_nothing, start_flood, stop_flood, tcp_100mb,
};

fn on_scene(test: impl FnOnce(&mut Scene)) {
    crate::scene::on(Kind::OneQueuePair, test);
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn pings_both_ways_lose_nothing() {
    on_scene(|scene| ping_both_ways(scene.pair(), 56));
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
fn driver_unbind_and_bind_under_traffic() {
    on_scene(|scene| {
        let (a, b, c) = scene.three();
        while_others_lose_nothing(a, c, |a| {
            start_flood(a, b);
            let device = b.sysfs_name("");
            rebind(b, "virtio", "virtio_net", &device);
            ping_comes_back(b, &a.ip());
            stop_flood(a);
            stop_flood(b);
        });
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn device_del_and_add_under_traffic() {
    on_scene(|scene| {
        let (a, b, c) = scene.three();
        while_others_lose_nothing(a, c, |a| {
            start_flood(a, b);
            b.unplug_nic();
            b.plug_nic();
            b.nic_up();
            ping_comes_back(b, &a.ip());
            stop_flood(a);
            stop_flood(b);
        });
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn reboot_under_traffic() {
    on_scene(|scene| {
        let (a, b, c) = scene.three();
        while_others_lose_nothing(a, c, |a| {
            start_flood(a, b);
            b.spawn("reboot", "usleep 200000; reboot -f");
            b.wait_boot();
            stop_flood(a);
        });
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn kill9_of_a_receiving_guest() {
    on_scene(|scene| kill9_under_flood(scene, start_flood));
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn kill9_of_a_sending_guest() {
    on_scene(|scene| kill9_under_flood(scene, |a, victim| start_flood(victim, a)));
}

/// Kills guest b's QEMU under traffic with a, while c's pings to a go on; then boots b again on the same port.
fn kill9_under_flood(scene: &mut Scene, flood: impl FnOnce(&mut Guest, &mut Guest)) {
    let mut victim = scene.guests.remove(1);
    let (a, c) = scene.pair();
    let spec = while_others_lose_nothing(a, c, |a| {
        flood(a, &mut victim);
        let spec = victim.kill9();
        a.sh_within("sleep 2", secs(10));
        stop_flood(a);
        spec
    });
    let mut again = Guest::boot(spec);
    ping_loses_nothing(&mut again, &a.ip(), 56);
    scene.guests.insert(1, again);
}

//! What guests on one switch must be able to do, and a table that says which scene is put to which of it.

use crate::card::{Offloads, set_mtu, use_queue_pairs};
use crate::deadline::secs;
use crate::guest::Guest;
use crate::lifecycle::{rebind, while_others_lose_nothing};
use crate::scene::Scene;
use crate::traffic::{
    ping_both_ways, ping_comes_back, ping_loses_nothing, start_flood, stop_flood, tcp_100mb,
};

/// A module for each scene, and in it a test of the same name for each function.
macro_rules! scenes {
    ($($(#[$doc:meta])* $scene:ident: $kind:expr => $tests:tt)*) => {
        $($(#[$doc])* mod $scene { scenes!(@ $kind => $tests); })*
    };
    (@ $kind:expr => [$($test:ident),* $(,)?]) => {
        use crate::scene::Kind;

        $(
            #[test]
            #[ignore = "needs QEMU: run ./test"]
            fn $test() {
                crate::scene::on($kind, super::$test);
            }
        )*
    };
}

scenes! {
    one_queue_pair: Kind { guests: &["a", "b", "c"], ..Kind::PLAIN } => [
        pings_both_ways_lose_nothing,
        pings_fill_each_mtu,
        tcp_100mb_mtu_1500_with_offloads,
        tcp_100mb_mtu_1500_without_offloads,
        tcp_100mb_mtu_9000_with_offloads,
        tcp_100mb_mtu_9000_without_offloads,
        d07_driver_unbind_and_bind_under_traffic,
        d14_device_del_and_add_under_traffic,
        d05_reboot_under_traffic,
        d02_kill9_of_a_receiving_guest,
        d02_kill9_of_a_sending_guest,
    ]
    /// On devices that offer an MTU of 9000.
    four_queue_pairs: Kind { queue_pairs: 4, host_mtu: Some(9000), ..Kind::PLAIN } => [
        pings_lose_nothing_with_queue_pairs_switched_off_and_on,
        tcp_100mb_mtu_1500_with_offloads,
        tcp_100mb_mtu_1500_without_offloads,
        tcp_100mb_mtu_9000_with_offloads,
        tcp_100mb_mtu_9000_without_offloads,
        d07_pci_driver_unbind_and_bind_under_traffic,
        d05_hard_reset_under_traffic,
    ]
    two_queue_pairs_of_packed_rings: Kind { queue_pairs: 2, packed: true, ..Kind::PLAIN } => [
        pings_fill_each_mtu,
        tcp_100mb_mtu_1500_with_offloads,
        tcp_100mb_mtu_9000_without_offloads,
        d07_driver_unbind_and_bind_under_traffic,
    ]
}

fn pings_both_ways_lose_nothing(scene: &mut Scene) {
    ping_both_ways(scene.pair(), 56);
}

fn pings_fill_each_mtu(scene: &mut Scene) {
    for mtu in [9000, 1500] {
        set_mtu(scene.pair(), mtu);
        // Less the headers of IPv4 and ICMP.
        ping_both_ways(scene.pair(), mtu - 28);
    }
}

fn pings_lose_nothing_with_queue_pairs_switched_off_and_on(scene: &mut Scene) {
    for pairs in [1, 4] {
        use_queue_pairs(scene.pair().0, pairs);
        ping_both_ways(scene.pair(), 56);
    }
}

fn tcp_100mb_mtu_1500_with_offloads(scene: &mut Scene) {
    tcp_100mb(scene, 1500, Offloads::On);
}

fn tcp_100mb_mtu_1500_without_offloads(scene: &mut Scene) {
    tcp_100mb(scene, 1500, Offloads::Off);
}

fn tcp_100mb_mtu_9000_with_offloads(scene: &mut Scene) {
    tcp_100mb(scene, 9000, Offloads::On);
}

fn tcp_100mb_mtu_9000_without_offloads(scene: &mut Scene) {
    tcp_100mb(scene, 9000, Offloads::Off);
}

/// Something is done to guest b while a stream from guest a goes on. Afterwards they reach each other, and a third guest, if
/// there is one, has lost nothing meanwhile.
fn under_traffic(scene: &mut Scene, act: impl FnOnce(&mut Guest, &mut Guest)) {
    let (a, b, bystander) = scene.pair_and_bystander();
    let flooded = |a: &mut Guest| {
        start_flood(a, b);
        act(a, b);
    };
    match bystander {
        Some(c) => while_others_lose_nothing(a, c, flooded),
        None => flooded(a),
    }
    let (a, b) = scene.pair();
    ping_loses_nothing(b, &a.ip(), 56);
}

/// The card is back, though b was not away: it has to find its neighbour again, and both still have the stream's ends.
fn end_flood(a: &mut Guest, b: &mut Guest) {
    ping_comes_back(b, &a.ip());
    stop_flood(a);
    stop_flood(b);
}

/// The rings stop, start anew from their start, and go on.
fn d07_driver_unbind_and_bind_under_traffic(scene: &mut Scene) {
    under_traffic(scene, |a, b| {
        let device = b.sysfs_name("");
        rebind(b, "virtio", "virtio_net", &device);
        end_flood(a, b);
    });
}

fn d07_pci_driver_unbind_and_bind_under_traffic(scene: &mut Scene) {
    under_traffic(scene, |a, b| {
        let device = b.sysfs_name("..");
        rebind(b, "pci", "virtio-pci", &device);
        end_flood(a, b);
    });
}

fn d14_device_del_and_add_under_traffic(scene: &mut Scene) {
    under_traffic(scene, |a, b| {
        b.unplug_nic();
        b.plug_nic();
        b.nic_up();
        end_flood(a, b);
    });
}

/// The guest's interface goes down first. Linux 6.1.192 breaks the rings of a card before it resets it, and then spins for
/// ever (a soft lockup) if it just has something to send: `start_xmit` waits until the broken ring is empty.
fn d05_reboot_under_traffic(scene: &mut Scene) {
    under_traffic(scene, |a, b| {
        b.spawn("reboot", "usleep 200000; ip link set eth0 down; reboot -f");
        b.wait_boot();
        stop_flood(a);
    });
}

fn d05_hard_reset_under_traffic(scene: &mut Scene) {
    under_traffic(scene, |a, b| {
        b.reset();
        b.wait_boot();
        stop_flood(a);
    });
}

fn d02_kill9_of_a_receiving_guest(scene: &mut Scene) {
    kill9_under_flood(scene, start_flood);
}

fn d02_kill9_of_a_sending_guest(scene: &mut Scene) {
    kill9_under_flood(scene, |a, victim| start_flood(victim, a));
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

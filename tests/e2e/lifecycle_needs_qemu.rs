//! Cards and guests that come and go under traffic: the others notice nothing, and who comes back is served again.

use crate::deadline::secs;
use crate::guest::Guest;
use crate::scene::Kind::{FourQueuePairs, OneQueuePair};
use crate::scene::on;
use crate::traffic::{
    PingCount, finish_pings, ping_comes_back, ping_loses_nothing, start_flood, start_pings, stop_flood,
};

#[test]
#[ignore = "needs QEMU: run ./test"]
fn driver_unbind_and_bind_under_traffic() {
    on(OneQueuePair, |scene| {
        let (a, b, c) = scene.three();
        with_bystanders(a, c, |a| {
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
fn driver_unbind_and_bind_with_four_queue_pairs() {
    on(FourQueuePairs, |scene| {
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
fn device_del_and_add_under_traffic() {
    on(OneQueuePair, |scene| {
        let (a, b, c) = scene.three();
        with_bystanders(a, c, |a| {
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
    on(OneQueuePair, |scene| {
        let (a, b, c) = scene.three();
        with_bystanders(a, c, |a| {
            start_flood(a, b);
            b.spawn("reboot", "sleep 0.2; reboot -f");
            b.wait_boot();
            stop_flood(a);
        });
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn hard_reset_under_traffic_with_four_queue_pairs() {
    on(FourQueuePairs, |scene| {
        let (a, b) = scene.pair();
        start_flood(a, b);
        b.reset();
        b.wait_boot();
        stop_flood(a);
        ping_loses_nothing(b, &a.ip(), 56);
    });
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn kill9_under_traffic_both_ways() {
    on(OneQueuePair, |scene| {
        for towards_victim in [false, true] {
            let mut victim = scene.guests.remove(1);
            let [a, c] = &mut scene.guests[..] else { panic!("two guests are left") };
            let mut spec = None;
            with_bystanders(a, c, |a| {
                if towards_victim {
                    start_flood(a, &mut victim);
                } else {
                    start_flood(&mut victim, a);
                }
                spec = Some(victim.kill9());
                a.sh("sleep 1");
                stop_flood(a);
            });
            let mut again = Guest::boot(spec.expect("the victim's specification"));
            ping_loses_nothing(&mut again, &a.ip(), 56);
            scene.guests.insert(1, again);
        }
    });
}

/// Pings go from `c` to `a` while `act` works on a third guest; none may be lost.
fn with_bystanders(a: &mut Guest, c: &mut Guest, act: impl FnOnce(&mut Guest)) {
    ping_comes_back(c, &a.ip());
    start_pings(c, &a.ip(), 10);
    act(a);
    let count = finish_pings(c);
    assert_eq!(count, PingCount { sent: 500, received: 500 }, "pings between the two other guests");
}

fn rebind(guest: &mut Guest, bus: &str, driver: &str, device: &str) {
    let folder = format!("/sys/bus/{bus}/drivers/{driver}");
    guest.sh_within(&format!("echo {device} >{folder}/unbind"), secs(30));
    guest.sh("! [ -e /sys/class/net/eth0 ]");
    guest.sh(&format!("echo {device} >{folder}/bind"));
    guest.nic_up();
}

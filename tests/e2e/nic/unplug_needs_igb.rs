//! A virtual function that leaves, falls silent or is reset under traffic, while two vhost-user ports beside it go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::frames::{self, Mac};
use super::lab::{Lab, Setup, program, vf, vf_mac};
use super::mishap;
use super::nested::{assert_every_packet_counted, start_polder, stats};
use super::wire::Wire;
use crate::deadline::{secs, wait_for};

/// How long the guests talk: longer than anything takes that is done to the VF.
const GUESTS_SECONDS: u64 = 40;
/// Makes card 0's VF anew and gives it to vfio-pci, as a host's administrator would.
const MAKE_VF: &str = "ip link set pf0 up && \
     echo 0 >/sys/bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe && \
     echo 1 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs && \
     ip link set pf0 vf 0 mac 02:00:00:00:00:00 && \
     echo vfio-pci >/sys/bus/pci/devices/0000:01:10.0/driver_override && \
     echo 0000:01:10.0 >/sys/bus/pci/drivers_probe";

#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn the_pf_goes_down_and_up() {
    in_traffic(|lab| {
        lab.sh("ip link set pf0 down; sleep 1; ip link set pf0 up");
    });
}

#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn the_function_is_reset_by_sysfs() {
    in_traffic(|lab| {
        lab.sh(&format!("echo 1 >/sys/bus/pci/devices/{}/reset", vf(0, 0)));
    });
}

#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn the_vf_is_taken_and_made_again() {
    in_traffic(|lab| {
        leaves_within_a_second(lab, "echo 0 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs");
        lab.sh(MAKE_VF);
    });
}

#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn n17_kill9_and_the_vf_opens_again() {
    mishap::play(scene);
}

fn scene() {
    let mut lab = Lab::boot(&Setup::igb(1, 1));
    for _ in 0..3 {
        start(&mut lab);
        let flood = Flood::start(lab.wires.pop().expect("a wire"), vf_mac(0, 0));
        uplink_receives(&mut lab);
        lab.stop("polder", "KILL");
        lab.wires.push(flood.stop());
    }
}

/// Lets `act` work on the VF while frames come in by its wire and two guests talk beside it: the guests lose nothing, the
/// VF comes back, and every packet is counted.
fn in_traffic(act: impl Fn(&mut Lab)) {
    mishap::play(|| in_traffic_once(&act));
}

fn in_traffic_once(act: &impl Fn(&mut Lab)) {
    let mut lab = Lab::boot(&Setup::igb(1, 1));
    start(&mut lab);
    let load = format!("--verify --window 128 --warm-up 0 --seconds {GUESTS_SECONDS}");
    lab.start("pktgen", &format!("{} /tmp/a.sock /tmp/b.sock {load} --cpu 0", program("pktgen")));
    let flood = Flood::start(lab.wires.pop().expect("a wire"), vf_mac(0, 0));
    uplink_receives(&mut lab);
    act(&mut lab);
    guests_go_on(&mut lab);
    uplink_receives(&mut lab);
    flood.stop();
    lab.wait_for_line("pktgen", "whole run", secs(2 * GUESTS_SECONDS));
    let log = lab.log("pktgen");
    eprintln!("pktgen: {log}");
    assert!(log.contains(" 0 lost, 0 duplicated, 0 reordered, 0 corrupted"), "{log}");
    assert_every_packet_counted(&mut lab);
    let log = lab.stop("polder", "TERM");
    assert!(!log.contains("panicked"), "{log}");
}

fn start(lab: &mut Lab) {
    let port = |name: &str| format!("vhost-user:/tmp/{name}.sock");
    start_polder(lab, &[("uplink", format!("vfio:{}", vf(0, 0))), ("a", port("a")), ("b", port("b"))]);
}

fn uplink_is_up(lab: &mut Lab) -> bool {
    stats(lab).port("uplink").link_up
}

fn uplink_receives(lab: &mut Lab) {
    let before = stats(lab).port("uplink").rx_packets;
    wait_for("the uplink to be up and receive", secs(30), || {
        let now = stats(lab);
        let uplink = now.port("uplink");
        (uplink.link_up && uplink.rx_packets > before).then_some(())
    });
}

fn guests_go_on(lab: &mut Lab) {
    let before = stats(lab);
    wait_for("the guests' frames", secs(10), || {
        let now = stats(lab);
        ["a", "b"].iter().all(|n| now.port(n).rx_packets > before.port(n).rx_packets).then_some(())
    });
}

/// Tells the kernel to take the VF: the switch lets go of it within a second. The kernel itself takes longer, since igb
/// sleeps most of a second for cards that are slow.
fn leaves_within_a_second(lab: &mut Lab, command: &str) {
    let held = "pid=$(cat /tmp/polder.pid); \
         for fd in /proc/$pid/fd/*; do case $(readlink $fd) in *vfio-device*) held=$fd;; esac; done; [ -n \"$held\" ]";
    let wait = "while [ -e $held ]; do sleep 0.02; done";
    let timed = format!(
        "{held} || exit 1; a=$(date +%s%N); ({command}) & {wait}; b=$(date +%s%N); wait; echo $(((b - a) / 1000000))"
    );
    let text = lab.sh_within(&timed, secs(30)).text;
    eprintln!("{command}: let go of after {} ms", text.trim());
    let took_ms: u64 = text.trim().parse().unwrap_or_else(|_| panic!("{timed}: {text}"));
    assert!(took_ms <= 1000, "the VF was let go of after {took_ms} ms");
    assert!(!uplink_is_up(lab), "the link of a VF that is gone");
}

/// Frames into a wire until it is stopped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Wire>,
}

impl Flood {
    fn start(mut wire: Wire, to: Mac) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let burst: Vec<_> = (0..32).map(|n| frames::frame_of(to, n, 60)).collect();
            while !stopped.load(Ordering::Relaxed) {
                wire.send(burst.iter().map(Vec::as_slice));
                std::thread::sleep(std::time::Duration::from_millis(10));
                wire.drain();
            }
            wire
        });
        Self { stop, thread }
    }

    /// Ends it; the wire can be used again.
    fn stop(self) -> Wire {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the flood")
    }
}

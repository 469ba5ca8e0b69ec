//! The whole mission in one machine: a guest, the switch, a virtual function, and a peer on the card's wire.

use std::path::Path;
use std::process::Command;

use super::lab::{Lab, Setup, vf, vf_mac};
use super::mishap;
use super::nested::{Guest, assert_every_packet_counted, start_polder, stats};
use crate::deadline::secs;
use crate::machine::{needs_program, needs_root};
use crate::namespace::Namespace;
use crate::process::{Process, timed};
use crate::traffic::{PingCount, ping_until_answered};
use crate::undo::{next_number, run_dir};

const PEER: &str = "10.77.0.100";
const PEER_MAC: &str = "02:00:00:ee:00:02";
/// What each direction carries.
const MEGABYTES: usize = 10;

#[test]
#[ignore = "needs root and a QEMU with igb: run ./test"]
fn a_guest_pings_and_transfers_10_mb_through_a_vf() {
    mishap::play(scene);
}

fn scene() {
    needs_root();
    needs_program("ip");
    let wire = wire_side();
    let mut script = Command::new("ip");
    script.args(["netns", "exec", wire.name()]).arg(Lab::script());
    let setup = Setup::igb(1, 1).with("LAB_NETDEV0", "tap,ifname=wire0,script=no,downscript=no");
    let mut lab = Lab::boot_under(script, &setup);
    let socket = Path::new("/tmp/vm.sock");
    start_polder(
        &mut lab,
        &[("uplink", format!("vfio:{}", vf(0, 0))), ("vm", format!("vhost-user:{}", socket.display()))],
    );
    // The card hands the VF what is for the VF's MAC; so that is the guest's, as with any card that only knows its own.
    let (mut guest, took) = timed(|| Guest::boot(&mut lab, 1, vf_mac(0, 0), socket));
    eprintln!("the guest in the lab booted in {:.0} s", took.as_secs_f64());

    // The card hands the VF its own broadcasts back: the guest asks who has the address, and stays where it is. How long the
    // first question takes in a machine in a machine is nothing to fail for.
    guest.sh(&ping_until_answered(PEER), secs(60));
    let pings = guest.sh(&format!("ping -q -c 20 -i 0.2 -W 5 {PEER}"), secs(60));
    assert_eq!(PingCount::parse(&pings), PingCount { sent: 20, received: 20 });
    let pings = wire.run("ping -q -c 20 -i 0.2 -W 5 10.77.0.1");
    assert_eq!(PingCount::parse(&pings), PingCount { sent: 20, received: 20 });
    guest_to_peer(&mut guest, &wire);
    peer_to_guest(&mut guest, &wire);
    assert_every_packet_counted(&mut lab);
    let stats = stats(&mut lab);
    assert!(stats.ports.iter().all(|port| port.link_up), "{stats:?}");
    lab.stop("polder", "TERM");
}

/// The peer: the host's network stack on the far end of the card's wire.
fn wire_side() -> Namespace {
    let space = Namespace::new();
    // busybox's `ip` makes no TAP.
    let made =
        space.command("ip").args(["tuntap", "add", "wire0", "mode", "tap"]).status().expect("start ip");
    assert!(made.success(), "ip tuntap add wire0 mode tap");
    space.run(&format!("ip link set wire0 address {PEER_MAC}"));
    space.run(&format!("ip address add {PEER}/24 dev wire0"));
    space.run("ip link set wire0 up");
    space
}

fn guest_to_peer(guest: &mut Guest, wire: &Namespace) {
    let sent = guest.sh(&format!("stream {MEGABYTES} | md5sum"), secs(120));
    let mut listener = wire.command("busybox");
    let mut listener =
        Process::start("peer", listener.args(["sh", "-c", "nc -l -p 5001 </dev/null | md5sum"]));
    let ((), took) = timed(|| {
        guest.sh(&format!("usleep 500000; nc {PEER} 5001 -e stream {MEGABYTES}"), secs(180));
        assert!(listener.wait(secs(30)).success());
    });
    assert_eq!(listener.output(), sent, "MD5 of what the guest sent");
    eprintln!("{MEGABYTES} MB from the guest in {:.1} s", took.as_secs_f64());
}

fn peer_to_guest(guest: &mut Guest, wire: &Namespace) {
    let file = run_dir().join(format!("block-{}", next_number()));
    let bytes: Vec<u8> =
        (0..MEGABYTES * 1_000_000 / 8).flat_map(|n| (n * 0x9e37_79b9).to_be_bytes()).collect();
    std::fs::write(&file, bytes).expect("write a file to send");
    let sent = wire.run(&format!("md5sum <{}", file.display()));
    let mut sender = wire.command("busybox");
    let send = format!("nc -l -p 5002 -e cat {}", file.display());
    let mut sender = Process::start("peer", sender.args(["sh", "-c", &send]));
    let (received, took) = timed(|| {
        guest.sh(
            &format!("usleep 500000; nc {PEER} 5002 -e sh -c 'md5sum >/tmp/md5'; cat /tmp/md5"),
            secs(180),
        )
    });
    assert!(sender.wait(secs(30)).success());
    assert_eq!(received, sent, "MD5 of what the guest received");
    eprintln!("{MEGABYTES} MB to the guest in {:.1} s", took.as_secs_f64());
}

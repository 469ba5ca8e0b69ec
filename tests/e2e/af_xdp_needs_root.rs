//! AF_XDP ports: two hosts behind veths, with the switch between them.

use std::process::Command;

use serde_json::Value;

use crate::deadline::{secs, wait_for};
use crate::machine::{needs_program, needs_root};
use crate::namespace::Namespace;
use crate::polder::{Polder, Port, binary};
use crate::process::Process;
use crate::traffic::{PingCount, ping_until_answered};

/// The switch's own namespace, and hosts whose `eth0` is the other end of a veth there.
struct Wired {
    // The switch goes before its interfaces do: fields drop in order.
    polder: Polder,
    hosts: Vec<Namespace>,
    middle: Namespace,
}

impl Wired {
    fn set_up(hosts: usize, queues: usize) -> Self {
        needs_root();
        ["ip", "iperf3", "ethtool", "busybox"].into_iter().for_each(needs_program);
        let middle = Namespace::new();
        let hosts: Vec<_> = (1..=hosts).map(|_| Namespace::new()).collect();
        for (i, host) in hosts.iter().enumerate() {
            plug(&middle, host, i + 1, queues);
        }
        let ports: Vec<_> = (1..=hosts.len())
            .map(|i| Port::new(&format!("h{i}"), format!("af_xdp:veth{i},queues={queues}")))
            .collect();
        let polder = Polder::run_under(middle.command(binary()), &ports);
        let wired = Self { polder, hosts, middle };
        wired.wait_until_all_are_up();
        wired
    }

    fn wait_until_all_are_up(&self) {
        wait_for("all links up", secs(10), || {
            self.polder.stats().ports.iter().all(|p| p.link_up).then_some(())
        });
    }

    /// Ends the switch as an operator would, with its counts compared before.
    fn end(self) {
        self.polder.assert_every_packet_counted();
        self.polder.stop();
    }
}

/// Joins host `number` to the middle by a veth of its own.
fn plug(middle: &Namespace, host: &Namespace, number: usize, queues: usize) {
    let many = format!("numrxqueues {queues} numtxqueues {queues}");
    let peer = format!("peer name eth0 netns {} {many}", host.name());
    middle.ip(&format!("link add veth{number} {many} type veth {peer}"));
    host.ip(&format!("address add {}/24 dev eth0", address(number)));
    host.ip("link set eth0 up");
}

fn address(number: usize) -> String {
    format!("10.78.0.{number}")
}

/// An iperf3 server for one client after the other.
fn serve(host: &Namespace) -> Process {
    let mut server = Process::start("iperf3 -s", host.command("iperf3").args(["-s", "--forceflush"]));
    server.wait_for_output("Server listening", secs(10));
    server
}

/// A client's run: the bytes that arrived.
fn stream(from: &Namespace, to: usize, more: &[&str]) -> u64 {
    let mut command = from.command("iperf3");
    command.args(["-J", "-t", "3", "-c", &address(to)]).args(more);
    let output = command.output().expect("start ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "iperf3 {more:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&text).expect("iperf3's report");
    let arrived = report["end"]["sum_received"]["bytes"].as_u64().expect("a count of bytes");
    let seconds = report["end"]["sum_received"]["seconds"].as_f64().expect("a time");
    let again = report["end"]["sum_sent"]["retransmits"].as_u64();
    eprintln!(
        "iperf3 {more:?}: {arrived} bytes in {seconds:.1} s, {:.0} Mbit/s, {again:?} segments sent again",
        arrived as f64 * 8e-6 / seconds
    );
    arrived
}

/// Least that must arrive within three seconds: far below what any machine does, far above what a connection
/// does whose every other segment is dropped for its checksum.
const ENOUGH: u64 = 50_000_000;

#[test]
#[ignore = "needs root: run ./test"]
fn iperf3_with_the_offloads_that_a_veth_has() {
    let wired = Wired::set_up(2, 1);
    // Nobody has switched anything off; segmentation the kernel takes away by itself when a program is attached.
    let features = wired.hosts[0].run("ethtool -k eth0");
    assert!(features.contains("tx-checksumming: on"), "{features}");
    assert!(features.contains("tcp-segmentation-offload: off"), "{features}");
    let server = serve(&wired.hosts[1]);
    for more in [&[][..], &["-R"], &["-P", "4"], &["--bidir"]] {
        assert!(stream(&wired.hosts[0], 2, more) > ENOUGH, "{more:?}");
    }
    drop(server);
    wired.end();
}

#[test]
#[ignore = "needs root: run ./test"]
fn iperf3_over_several_queues_and_jumbo_frames() {
    let wired = Wired::set_up(2, 2);
    for (i, host) in wired.hosts.iter().enumerate() {
        wired.middle.ip(&format!("link set veth{} mtu 9000", i + 1));
        host.ip("link set eth0 mtu 9000");
    }
    let server = serve(&wired.hosts[1]);
    for more in [&["-P", "4"][..], &["-P", "4", "-R"]] {
        assert!(stream(&wired.hosts[0], 2, more) > ENOUGH, "{more:?}");
    }
    let pings = wired.hosts[0].run(&format!("ping -q -c 20 -i 0.05 -s 8900 -W 5 {}", address(2)));
    assert_eq!(PingCount::parse(&pings), PingCount { sent: 20, received: 20 });
    drop(server);
    wired.end();
}

/// The veth of one host is deleted while TCP runs through it: two others do not notice, and it is taken again when it is
/// back.
#[test]
#[ignore = "needs root: run ./test"]
fn a_veth_is_unplugged_under_traffic_and_comes_back() {
    let mut wired = Wired::set_up(3, 1);
    for _ in 0..3 {
        // A new one each time: it does not soon let go of a client that fell silent.
        let _server = serve(&wired.hosts[1]);
        let _flood = flood(&wired.hosts[0], 2);
        let wire = wired.polder.stats().port("h1").rx_packets;
        wait_for("traffic", secs(10), || {
            (wired.polder.stats().port("h1").rx_packets > wire + 10_000).then_some(())
        });
        let pings = ping_beside(&wired.hosts[2], 2);
        wired.middle.ip("link delete veth1");
        wait_for("the port to be down", secs(10), || {
            (!wired.polder.stats().port("h1").link_up).then_some(())
        });
        assert_eq!(pings.wait(), PingCount { sent: 200, received: 200 }, "between two others");
        assert!(wired.polder.is_running());
        plug(&wired.middle, &wired.hosts[0], 1, 1);
        wired.wait_until_all_are_up();
        wired.hosts[0].run(&ping_until_answered(&address(2)));
    }
    wired.end();
}

/// The program goes with the process, even if that is killed: the host has its interface back.
#[test]
#[ignore = "needs root: run ./test"]
fn a_switch_that_is_killed_leaves_no_program_behind() {
    let wired = Wired::set_up(1, 1);
    let Wired { polder, middle, hosts } = wired;
    let has_program = || middle.ip("link show veth1").contains("prog/xdp");
    assert!(has_program());
    polder.kill9();
    wait_for("the program to be gone", secs(10), || (!has_program()).then_some(()));
    middle.ip("address add 10.78.0.100/24 dev veth1");
    let pings = hosts[0].run("ping -q -c 5 -i 0.05 -W 5 10.78.0.100");
    assert_eq!(PingCount::parse(&pings), PingCount { sent: 5, received: 5 });
}

/// TCP that goes on until it is dropped.
fn flood(from: &Namespace, to: usize) -> Process {
    Process::start("iperf3 -c", from.command("iperf3").args(["-t", "60", "-c", &address(to)]))
}

/// Pings that go on beside what follows.
struct Pings(Process);

fn ping_beside(from: &Namespace, to: usize) -> Pings {
    let mut command: Command = from.command("busybox");
    command.args(["ping", "-q", "-c", "200", "-i", "0.01", "-W", "5", &address(to)]);
    Pings(Process::start("ping", &mut command))
}

impl Pings {
    fn wait(mut self) -> PingCount {
        self.0.wait(secs(30));
        PingCount::parse(&self.0.output())
    }
}

//! TCP between two Linux guests through the switch and through the Linux bridge, in turns: each guest has a card on either.
//!
//! The bridge's cards are TAPs that QEMU itself serves (no vhost-net); everything else is the same: guests, drivers, offloads.

use std::path::Path;

use crate::card::{Offloads, assert_offloads};
use crate::cpu_time;
use crate::deadline::secs;
use crate::guest::{Guest, Spec, ip};
use crate::machine::{needs_program, needs_root, newest_qemu};
use crate::namespace::Namespace;
use crate::polder::{Polder, Port, socket_path, vhost_user};
use crate::stats::Stats;
use crate::traffic::{ping_loses_nothing, tcp_arrives_whole};

/// Transfers each way, in turns.
const RUNS: usize = 5;
/// What each sends, 262 MB: some seconds under software emulation.
const BLOCKS: u64 = 4_000;
const BLOCK: u64 = 65_536;
/// Far below what is reached, as other work on the machine disturbs one way or the other.
const LEAST_RATIO: f64 = 0.7;

/// Feature bits that say how much a packet costs (virtio 1.3 §5.1.3, §6): checksums and segmentation both ways, mergeable
/// buffers, indirect descriptors, event suppression, packed rings.
const COSTLY_FEATURES: [usize; 8] = [0, 1, 7, 11, 15, 28, 29, 34];

/// A way between the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Polder,
    Bridge,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Polder, Self::Bridge];

    fn card(self) -> &'static str {
        match self {
            Self::Polder => "eth0",
            Self::Bridge => "eth1",
        }
    }

    fn address(self, number: u8) -> String {
        match self {
            Self::Polder => ip(number),
            Self::Bridge => format!("10.78.0.{number}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Polder => "Polder, adaptive",
            Self::Bridge => "Linux bridge, TAP without vhost-net",
        }
    }
}

/// Two guests, each with a card on the switch and one on the bridge.
struct Both {
    // Guests leave before the switch and the bridge do: fields drop in order.
    guests: Vec<Guest>,
    polder: Polder,
    _space: Namespace,
}

impl Both {
    fn set_up() -> Self {
        needs_root();
        needs_program("ip");
        let space = bridge(&["tap1", "tap2"]);
        let sockets = [socket_path("a"), socket_path("b")];
        let ports = [Port::new("a", vhost_user(&sockets[0], 1)), Port::new("b", vhost_user(&sockets[1], 1))];
        let polder = Polder::run(&ports);
        let specs = vec![spec("a", 1, &sockets[0]), spec("b", 2, &sockets[1])];
        let mut guests = Guest::boot_all_inside(&space, specs);
        for guest in &mut guests {
            let address = Way::Bridge.address(guest.spec.number);
            guest.sh(&format!("ip addr add {address}/24 dev eth1; ip link set eth1 up"));
        }
        Self { guests, polder, _space: space }
    }

    fn pair(&mut self) -> (&mut Guest, &mut Guest) {
        let [a, b] = &mut self.guests[..] else { panic!("two guests") };
        (a, b)
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            guests: self.guests.iter().map(|guest| cpu_time::of_process(guest.pid())).sum(),
            polder: cpu_time::of_process(self.polder.pid()),
            kernel: cpu_time::of_kernel_threads(),
        }
    }

    /// Streams [`BLOCKS`] from the first guest to the second; both count.
    fn stream(&mut self, way: Way) -> Run {
        let before = self.cpu();
        let (a, b) = self.pair();
        let timed = "read -r start _ </proc/uptime; dd of=/dev/null bs=65536 iflag=fullblock; read -r end _ </proc/uptime";
        b.spawn("tcp", &format!("nc -l -p 5001 -e sh -c '{timed}; echo from $start to $end >&2'"));
        let send = format!("dd if=/dev/zero bs={BLOCK} count={BLOCKS}");
        a.spawn("tcp", &format!("usleep 200000; nc {} 5001 -e {send}", way.address(2)));
        let received = b.finish("tcp", secs(120));
        let sent = a.finish("tcp", secs(10));
        let whole = format!("{BLOCKS}+0 records out");
        assert!(sent.contains(&whole) && received.contains(&whole), "{way:?}: {sent}{received}");
        Run { seconds: seconds_of(&received), cpu: self.cpu().since(before) }
    }

    /// The same by the switch, which loses nothing, sees large frames, and whose counts agree.
    fn stream_and_look(&mut self, way: Way) -> Run {
        let before = self.polder.stats();
        let run = self.stream(way);
        let after = self.polder.stats();
        let gained = |of: fn(&Stats) -> u64| of(&after) - of(&before);
        let frames = gained(|stats| stats.port("a").rx_packets);
        if way == Way::Polder {
            let average = gained(|stats| stats.port("a").rx_bytes) / frames;
            eprintln!("{frames} frames through the switch, {average} bytes on average");
            assert!(average > 10_000, "frames are not cut on the way: {average} bytes on average");
        } else {
            assert!(frames < 100, "the other way goes past the switch");
        }
        assert_eq!(gained(|stats| stats.ports.iter().map(crate::stats::PortStats::dropped).sum()), 0);
        run
    }
}

/// Both cards have segmentation and checksums left to them, and their drivers negotiated the same.
fn assert_same_features(guest: &mut Guest) {
    let [ours, theirs] = Way::BOTH.map(|way| {
        assert_offloads(guest, way.card(), Offloads::On);
        let features = guest.sh(&format!("cat /sys/class/net/{}/device/features", way.card()));
        COSTLY_FEATURES.map(|bit| &features[bit..=bit] == "1")
    });
    assert_eq!(ours, theirs, "feature bits {COSTLY_FEATURES:?} of {}'s two cards", guest.name());
}

fn spec(name: &'static str, number: u8, socket: &Path) -> Spec {
    let tap = Some(format!("tap{number}"));
    Spec { tap, qemu: newest_qemu(), ..Spec::new(name, number, socket) }
}

/// A namespace with a bridge over TAPs, which checksums and segments may cross unfinished.
fn bridge(taps: &[&str]) -> Namespace {
    let space = Namespace::new();
    space.ip("link add bridge0 type bridge forward_delay 0");
    space.ip("link set bridge0 up");
    for tap in taps {
        space.ip(&format!("tuntap add dev {tap} mode tap vnet_hdr"));
        space.ip(&format!("link set {tap} master bridge0 up"));
    }
    space
}

/// CPU seconds by who took them.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    /// Both QEMUs, with what the kernel did in their system calls: for the bridge, all of its work.
    guests: f64,
    polder: f64,
    /// Threads of the kernel.
    kernel: f64,
}

impl Cpu {
    fn since(self, earlier: Self) -> Self {
        Self {
            guests: self.guests - earlier.guests,
            polder: self.polder - earlier.polder,
            kernel: self.kernel - earlier.kernel,
        }
    }

    fn whole(&self) -> f64 {
        self.guests + self.polder + self.kernel
    }
}

/// One transfer.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// By the receiver's clock, from its first byte on.
    seconds: f64,
    cpu: Cpu,
}

impl Run {
    fn mbit_per_s(&self) -> f64 {
        (BLOCKS * BLOCK) as f64 * 8e-6 / self.seconds
    }

    fn per_gb(of: fn(&Cpu) -> f64) -> impl Fn(&Self) -> f64 {
        move |run| of(&run.cpu) * 1e9 / (BLOCKS * BLOCK) as f64
    }
}

/// The time that the receiver saw pass.
fn seconds_of(report: &str) -> f64 {
    let line = report.lines().find_map(|line| line.strip_prefix("from ")).unwrap_or_default();
    let times = line.split_once(" to ").map(|(start, end)| (start.parse::<f64>(), end.parse::<f64>()));
    let Some((Ok(start), Ok(end))) = times else { panic!("no times in {report:?}") };
    end - start
}

/// Least, median and most.
fn spread(runs: &[Run], of: impl Fn(&Run) -> f64) -> [f64; 3] {
    let mut all: Vec<_> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    [all[0], all[all.len() / 2], all[all.len() - 1]]
}

fn report(way: Way, runs: &[Run]) {
    let [least, median, most] = spread(runs, Run::mbit_per_s);
    let cpu = |of: fn(&Cpu) -> f64| spread(runs, Run::per_gb(of))[1];
    eprintln!(
        "| {} | {median:.0} ({least:.0} to {most:.0}) | {:.2} | {:.2} | {:.2} | {:.2} |",
        way.name(),
        cpu(Cpu::whole),
        cpu(|cpu| cpu.guests),
        cpu(|cpu| cpu.polder),
        cpu(|cpu| cpu.kernel)
    );
}

#[test]
#[ignore = "needs root and QEMU: run ./test"]
fn not_slower_and_the_cpu_it_takes() {
    let mut both = Both::set_up();
    both.guests.iter_mut().for_each(assert_same_features);
    for way in Way::BOTH {
        let (a, b) = both.pair();
        ping_loses_nothing(a, &way.address(2), 56);
        tcp_arrives_whole(a, b, &way.address(2), 1, 20);
        // What software emulation translates once is translated now.
        both.stream(way);
    }
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (way, runs) in Way::BOTH.into_iter().zip(&mut runs) {
            runs.push(both.stream_and_look(way));
            eprintln!(
                "{way:?}: {:.0} Mbit/s, {:?}",
                runs[runs.len() - 1].mbit_per_s(),
                runs[runs.len() - 1].cpu
            );
        }
    }
    eprintln!(
        "| medians of {RUNS}, in turns | Mbit/s | CPU s/GB | QEMUs | Polder | kernel threads |\n|---|---|---|---|---|---|"
    );
    for (way, runs) in Way::BOTH.into_iter().zip(&runs) {
        report(way, runs);
    }
    let [ours, theirs] = runs.each_ref().map(|runs| spread(runs, Run::mbit_per_s)[1]);
    eprintln!("Polder / bridge: {:.2}", ours / theirs);
    both.polder.assert_every_packet_counted();
    assert!(ours >= LEAST_RATIO * theirs, "{ours:.0} Mbit/s beside the bridge's {theirs:.0}");
}

#[test]
fn the_receivers_report_is_read() {
    let report = "8000+0 records in\n8000+0 records out\nfrom 20.50 to 23.75\n";
    assert!((seconds_of(report) - 3.25).abs() < 1e-6);
}

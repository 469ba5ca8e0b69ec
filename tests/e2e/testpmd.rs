//! DPDK's testpmd with two virtio-user ports: a front end from outside the tree.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::deadline::{secs, wait_for};
use crate::machine::needs_program;
use crate::process::Process;

/// What the virtio-user driver is told to offer, and the receive path that it then says it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DriverPath {
    pub(crate) packed: bool,
    pub(crate) mergeable: bool,
    pub(crate) in_order: bool,
    pub(crate) vectorized: bool,
    pub(crate) says: &'static str,
}

impl DriverPath {
    fn arguments(self) -> String {
        let vectorized = if self.vectorized { ",vectorized=1" } else { "" };
        let [packed, mergeable, in_order] = [self.packed, self.mergeable, self.in_order].map(u8::from);
        format!("queue_size=256,packed_vq={packed},mrg_rxbuf={mergeable},in_order={in_order}{vectorized}")
    }
}

/// Counts of one of testpmd's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortCount {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
}

pub(crate) struct Testpmd {
    process: Process,
}

impl Testpmd {
    pub(crate) fn start(path: DriverPath, sockets: [&Path; 2]) -> Self {
        needs_program("dpdk-testpmd");
        let mut process = Process::start("testpmd", &mut command(path, sockets));
        process.wait_for_output("testpmd> ", secs(30));
        Self { process }
    }

    /// Everything testpmd has written.
    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Sends one line and waits until testpmd asks for the next.
    pub(crate) fn say(&mut self, line: &str) -> String {
        let before = self.process.output().len();
        writeln!(self.process.stdin(), "{line}").expect("write to testpmd");
        wait_for(&format!("testpmd to answer {line:?}"), secs(30), || {
            let output = self.process.output().split_off(before);
            output.ends_with("testpmd> ").then_some(output)
        })
    }

    /// Sends `bursts` bursts of 32 from both ports, and what comes in goes out of the other port, until both have
    /// received `packets`; then takes in what is still on its way.
    pub(crate) fn bounce(&mut self, bursts: u16, packets: u64) {
        self.say("set fwd mac");
        self.say(&format!("start tx_first {bursts}"));
        wait_for("testpmd's ports to receive", secs(60), || {
            self.counts().iter().all(|count| count.rx_packets >= packets).then_some(())
        });
        self.say("stop");
        self.drain();
    }

    fn drain(&mut self) {
        self.say("set fwd rxonly");
        self.say("start");
        std::thread::sleep(Duration::from_millis(500));
        self.say("stop");
    }

    pub(crate) fn counts(&mut self) -> [PortCount; 2] {
        [0, 1].map(|port| PortCount::parse(&self.say(&format!("show port stats {port}"))))
    }

    pub(crate) fn quit(mut self) {
        writeln!(self.process.stdin(), "quit").expect("write to testpmd");
        let status = self.process.wait(secs(20));
        assert!(status.success(), "testpmd ended with {status}");
    }
}

impl PortCount {
    fn parse(text: &str) -> Self {
        let count = |key: &str| {
            let after = text.split(key).nth(1).and_then(|t| t.split_whitespace().next());
            after.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text:?}"))
        };
        Self { rx_packets: count("RX-packets:"), tx_packets: count("TX-packets:") }
    }
}

fn command(path: DriverPath, sockets: [&Path; 2]) -> Command {
    // Each line at once, though its output is no terminal.
    let mut command = Command::new("stdbuf");
    command
        .args([
            "-o0",
            "dpdk-testpmd",
            "--lcores=0@(0-1),1@(0-1)",
            "--iova-mode=va",
            "--no-pci",
            "--no-telemetry",
        ])
        // One memory file that the switch can map; hugepages are not needed for it.
        .args(["--no-huge", "-m", "256", "--single-file-segments", "--log-level=pmd.net.virtio.*:info"])
        .arg(format!("--file-prefix=e2e{}", std::process::id()));
    if path.packed && path.vectorized {
        // Its vectors are longer than DPDK uses unasked.
        command.arg("--force-max-simd-bitwidth=512");
    }
    for (i, socket) in sockets.iter().enumerate() {
        let arguments = path.arguments();
        command.arg("--vdev").arg(format!(
            "net_virtio_user{i},path={},mac=02:00:00:00:00:0{},{arguments}",
            socket.display(),
            i + 1
        ));
    }
    command.args(["--", "-i", "--nb-cores=1", "--total-num-mbufs=8192", "--rxd=256", "--txd=256"]);
    command.args(["--eth-peer=0,02:00:00:00:00:02", "--eth-peer=1,02:00:00:00:00:01"]);
    command
}

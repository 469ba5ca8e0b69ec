//! Programs that send what comes in by one port out of the other.

use super::lab::{Lab, program};
use crate::deadline::secs;

/// The CPU that forwards, as a shell finds it.
const LAST_CPU: &str = "$(($(nproc) - 1))";

/// A forwarder at work in the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarder {
    /// `examples/l2fwd`.
    L2fwd,
    /// DPDK's testpmd in its `io` mode.
    Testpmd,
}

/// What it counted itself, at its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Received by its first and its second port.
    pub(crate) rx: [u64; 2],
    pub(crate) tx: [u64; 2],
    pub(crate) dropped: u64,
    /// Packet buffers that were not back in their pool after the ports were gone, where the program says so.
    pub(crate) mbufs_out: Option<u64>,
}

impl Forwarder {
    /// Starts it on two PCI functions and waits until both links are up.
    pub(crate) fn start(self, lab: &mut Lab, devices: &[String; 2]) {
        let [a, b] = devices;
        match self {
            Self::L2fwd => {
                lab.start("forwarder", &format!("{} --cpu {LAST_CPU} vfio:{a} vfio:{b}", program("l2fwd")));
                lab.wait_for_line("forwarder", &format!("{b}.*link up"), secs(30));
            }
            Self::Testpmd => {
                let arguments = format!(
                    "--lcores=0@0,1@{LAST_CPU} -m 256 -a {a} -a {b} -- --nb-cores=1 --forward-mode=io --total-num-mbufs=8192 \
                     --stats-period=3600"
                );
                lab.start("forwarder", &format!("stdbuf -o0 dpdk-testpmd {arguments}"));
                lab.wait_for_line("forwarder", "port 1: RX queue number", secs(60));
            }
        }
    }

    /// Ends it and reads its counts.
    pub(crate) fn stop(self, lab: &mut Lab) -> Counts {
        let log = lab.stop("forwarder", "INT");
        match self {
            Self::L2fwd => l2fwd_counts(&log),
            Self::Testpmd => testpmd_counts(&log),
        }
    }
}

/// The number behind each place of `key`.
fn numbers(text: &str, key: &str) -> Vec<u64> {
    let behind = text.split(key).skip(1);
    behind
        .filter_map(|rest| rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect()
}

fn l2fwd_counts(log: &str) -> Counts {
    // The last report: a line a port.
    let last = |key| numbers(log, key).split_off(numbers(log, key).len() - 2);
    let pair = |key| last(key).try_into().expect("two ports");
    let mbufs =
        log.lines().find(|l| l.starts_with("mbufs: ")).unwrap_or_else(|| panic!("no balance in {log}"));
    let mbufs =
        mbufs.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect::<Vec<u64>>();
    let &[free, cached, out, total] = &mbufs[..] else { panic!("no balance in {log}") };
    assert_eq!(free + cached + out, total, "the mempool's balance");
    Counts {
        rx: pair(" rx "),
        tx: pair(" tx "),
        dropped: last(" dropped ").iter().sum(),
        mbufs_out: Some(out),
    }
}

fn testpmd_counts(log: &str) -> Counts {
    let report =
        log.split("Forward statistics for port 0").nth(1).unwrap_or_else(|| panic!("no report in {log}"));
    let pair = |key| numbers(report, key)[..2].try_into().expect("two ports");
    let dropped =
        numbers(report, "TX-dropped:")[..2].iter().chain(&numbers(report, "RX-dropped:")[..2]).sum();
    Counts { rx: pair("RX-packets:"), tx: pair("TX-packets:"), dropped, mbufs_out: None }
}

#[test]
fn reports_are_read() {
    let log = "vfio:x: link up, rx 1, tx 2, dropped 0\nvfio:y: link up, rx 2, tx 1, dropped 0\n\
               vfio:x: link up, rx 10, tx 20, dropped 1\nvfio:y: link up, rx 21, tx 9, dropped 1\n\
               mbufs: 100 free + 20 cached + 0 out = 120\n";
    assert_eq!(l2fwd_counts(log), Counts { rx: [10, 21], tx: [20, 9], dropped: 2, mbufs_out: Some(0) });
    let port = |n| {
        format!(
            "- Forward statistics for port {n} -\n RX-packets: {n}7 RX-dropped: 0\n TX-packets: {n}8 TX-dropped: 1\n"
        )
    };
    let log = format!("{}{}", port(0), port(1));
    assert_eq!(testpmd_counts(&log), Counts { rx: [7, 17], tx: [8, 18], dropped: 2, mbufs_out: None });
}

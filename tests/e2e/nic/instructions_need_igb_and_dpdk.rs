//! What a forwarded packet costs: l2fwd beside DPDK's testpmd, on the same two virtual functions of one machine.
//!
//! QEMU counts instructions: with `-icount shift=0` the machine's clock moves one nanosecond an instruction, whatever the
//! host does meanwhile. There is one CPU and the forwarder spins on it, so the clock says how many instructions it ran. Both
//! VFs are of one card, which sends what is for itself back at once: each frame that was put in comes round for ever, and
//! each poll finds a full burst (testpmd's own burst statistics say so). The card's registers say how many packets that were.

use super::forwarder::Forwarder;
use super::frames::{self, Mac};
use super::lab::{Lab, Setup, vf, vf_mac};
use super::mishap;
use crate::deadline::secs;

/// Going round through each VF.
const FRAMES: u64 = 128;
const SAMPLES: usize = 3;
/// Of the machine's own clock.
const SAMPLE_SECONDS: f64 = 0.2;

#[test]
#[ignore = "needs a QEMU with igb and DPDK: run ./test"]
fn l2fwd_runs_no_more_instructions_a_packet_than_testpmd() {
    mishap::play(scene);
}

fn scene() {
    let setup = Setup::igb(1, 2)
        .with("LAB_CPUS", "1")
        .with("LAB_QEMU", "-icount shift=0")
        // The card's registers may be read beside its driver.
        .with("LAB_KERNEL", "iomem=relaxed");
    let mut lab = Lab::boot(&setup);
    let theirs = measure(&mut lab, Forwarder::Testpmd);
    let ours = measure(&mut lab, Forwarder::L2fwd);
    eprintln!("instructions a packet, forwarded: l2fwd {ours:?}, testpmd {theirs:?}");
    let (ours, theirs) = (mean(&ours), mean(&theirs));
    let (our_rate, their_rate) = (1e3 / ours, 1e3 / theirs);
    eprintln!(
        "in the mean: l2fwd {ours:.1}, testpmd {theirs:.1}; at 10^9 instructions a second {our_rate:.2} and {their_rate:.2} Mpps"
    );
    assert!(ours <= theirs, "l2fwd runs {ours:.1} instructions a packet, testpmd {theirs:.1}");
}

/// Instructions a packet, in several samples one after the other.
fn measure(lab: &mut Lab, forwarder: Forwarder) -> Vec<f64> {
    forwarder.start(lab, &[vf(0, 0), vf(0, 1)]);
    for number in 0..2 {
        put_in(lab, vf_mac(0, number));
    }
    let samples: Vec<_> = (0..SAMPLES).map(|_| sample(lab)).collect();
    eprintln!("{forwarder:?}: {samples:?}");
    forwarder.stop(lab);
    samples
}

fn put_in(lab: &mut Lab, mac: Mac) {
    let burst: Vec<_> = (0..FRAMES).map(|n| frames::frame_of(mac, n, 60)).collect();
    lab.wires[0].send(burst.iter().map(Vec::as_slice));
}

/// What one packet more costs: the difference between a long and a short stretch, so that what the reading itself runs,
/// the same in both, does not count.
fn sample(lab: &mut Lab) -> f64 {
    let read = "echo $(date +%s%N) $(busybox devmem $((bar + 0x10010))) $(busybox devmem $((bar + 0x10110)))";
    let bar = "bar=$(head -n 1 /sys/bus/pci/devices/0000:01:00.0/resource | cut -d\" \" -f1)";
    let readings = format!("{bar}; {read}; sleep 0; {read}; sleep {SAMPLE_SECONDS}; {read}");
    let text = lab.sh_within(&readings, secs(120)).text;
    let numbers: Vec<u64> = text.split_whitespace().map(number).collect();
    let &[t0, a0, b0, t1, a1, b1, t2, a2, b2] = &numbers[..] else { panic!("not three readings: {text}") };
    let short = (a1 - a0) + (b1 - b0);
    let long = (a2 - a1) + (b2 - b1);
    assert!(long > short + 100_000, "the frames do not go round: {text}");
    ((t2 - t1) as f64 - (t1 - t0) as f64) / (long - short) as f64
}

fn number(text: &str) -> u64 {
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

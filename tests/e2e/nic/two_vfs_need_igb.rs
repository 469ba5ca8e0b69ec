//! l2fwd between two virtual functions of Intel's 82576, one on each of two cards.

use super::bench::{Pair, a_million_frames_arrive_whole};
use super::forwarder::Forwarder;
use super::lab::{Setup, vf, vf_mac};

pub(crate) fn pair() -> Pair {
    Pair { devices: [vf(0, 0), vf(1, 0)], macs: [vf_mac(0, 0), vf_mac(1, 0)] }
}

#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn l2fwd_forwards_a_million_frames_whole() {
    a_million_frames_arrive_whole(Forwarder::L2fwd, &Setup::igb(2, 1), &pair());
}

#[test]
#[ignore = "needs a QEMU with igb and DPDK: run ./test"]
fn testpmd_on_the_same_bench_does_too() {
    a_million_frames_arrive_whole(Forwarder::Testpmd, &Setup::igb(2, 1), &pair());
}

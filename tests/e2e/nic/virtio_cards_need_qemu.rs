//! l2fwd between two virtio-net cards on PCI, behind the IOMMU.

use super::bench::{Pair, a_million_frames_arrive_whole};
use super::forwarder::Forwarder;
use super::lab::{Setup, virtio, virtio_mac};

fn pair() -> Pair {
    Pair { devices: [virtio(0), virtio(1)], macs: [virtio_mac(0), virtio_mac(1)] }
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn l2fwd_on_split_rings() {
    a_million_frames_arrive_whole(Forwarder::L2fwd, &Setup::virtio(2, "packed=off"), &pair());
}

#[test]
#[ignore = "needs QEMU: run ./test"]
fn l2fwd_on_packed_rings() {
    a_million_frames_arrive_whole(Forwarder::L2fwd, &Setup::virtio(2, "packed=on"), &pair());
}

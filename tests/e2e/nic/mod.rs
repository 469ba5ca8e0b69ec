//! NICs without the kernel, end to end: `scripts/nic-lab`'s machine with SR-IOV virtual functions and virtio-net cards on
//! the Linux VFIO stack behind an IOMMU, and programs of this tree and DPDK's on them.

mod bench;
mod forwarder;
mod frames;
mod guest_behind_a_vf_needs_igb;
mod instructions_need_igb_and_dpdk;
mod lab;
mod mishap;
mod nested;
mod polder_nic_needs_igb;
mod two_vfs_need_igb;
mod unplug_needs_igb;
mod virtio_cards_need_qemu;
mod wire;

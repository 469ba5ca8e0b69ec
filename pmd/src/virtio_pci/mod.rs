//! virtio-net over PCI, the driver's side (virtio 1.3 §4.1, §5.1): the NIC of nested and cloud hosts, and of hardware that
//! speaks virtio. Modern devices only, with split or packed rings, as many queue pairs as the device has.
//!
//! | module | what it is |
//! |---|---|
//! | `regs` | registers and capabilities; layout alone |
//! | `capability` | where the registers are: virtio's PCI capabilities, checked against their BARs |
//! | `transport` | the device behind the common configuration: status, features, configuration, queues |
//! | `features` | which features we take, and what offloads they mean |
//! | `virtqueue` | what a ring of either format is to those above it; `split`, `packed`, and their free `ids` |
//! | `ctrlq` | the control queue |
//! | `rx`, `tx`, `header` | bursts, straight down the page |
//! | `rings` | the two formats as one type: told apart once a burst |
//! | `port` | the driver: start, look, stop |
//!
//! # Orderings
//! The partners are the device's (`vhost`'s V1 to V4, if Polder were the device too): N1 load of used.idx, or of a used
//! descriptor's flags, Acquire; N2 store of avail.idx, or of a burst's first descriptor, Release; N3 full fence between
//! publishing and reading whether the device wants a kick; N4 full fence between asking for an interrupt and looking once
//! more.
//!
//! # Whom it trusts
//! The device to be honest about packets' content, since the IOMMU lets it write what it likes into the buffers that it has;
//! not to be right about anything else. A buffer that it returns must be one that it has; lengths and counts are checked
//! against what it was given; a header against its packet. What makes no sense breaks the ring, and resets the device.

mod capability;
mod ctrlq;
mod features;
mod header;
mod ids;
mod packed;
mod port;
mod regs;
mod rings;
mod rx;
mod split;
mod transport;
mod tx;
mod virtqueue;

pub use port::VirtioPci;
pub use rings::{VirtioRx, VirtioTx};

use crate::bus::PciIds;

/// Whether this driver knows the device: a virtio network card, modern or transitional.
#[must_use]
pub fn matches(ids: &PciIds) -> bool {
    ids.vendor == regs::VENDOR && [regs::MODERN_NET, regs::TRANSITIONAL_NET].contains(&ids.device)
}

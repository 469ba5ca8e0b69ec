//! igbvf: virtual functions of Intel's 82576 and I350.
//!
//! The driver is to be read beside the datasheets ("82576EB Gigabit Ethernet Controller", "I350"); where a comment says
//! "82576 datasheet" and a number, that is the section.
//!
//! | module | what it is |
//! |---|---|
//! | `regs`, `desc` | registers and descriptors: layout alone |
//! | `mailbox` | how a VF and its PF talk |
//! | `port` | the driver: opens, starts, looks after, stops |
//! | `init` | what `start` does to the registers, step by step |
//! | `rx`, `odd` | the receive ring: what almost every packet needs, and the rest |
//! | `tx`, `offload` | the transmit ring, and what the card is told of checksums and segmentation |
//! | `stats` | the VF's own counters |
//! | `model` | such a VF in memory, for tests |
//!
//! # What it leaves to others
//! - VLAN tags stay in their frames, in both directions. The driver never asks for stripping. Where the PF strips (it does
//!   for VLANs that the VF registered for, and for a port VLAN), the tag is put back, or stays hidden with a port VLAN.
//! - A VF has no RSS registers: how packets are spread over its two receive queues is the PF's to say. Linux' PF does
//!   not spread, and all come to queue 0.
//! - Spoofed source addresses are stopped by the PF (`ip link set PF vf N spoofchk on`), if at all.

mod desc;
mod init;
mod mailbox;
#[cfg(any(test, feature = "test-models"))]
pub mod model;
mod odd;
mod offload;
mod port;
mod regs;
mod rx;
mod stats;
#[cfg(test)]
mod tests;
mod tx;

use crate::bus::PciIds;

pub use port::Igbvf;
pub use rx::IgbvfRx;
pub use tx::IgbvfTx;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vf82576,
    VfI350,
}

impl Kind {
    fn of(ids: &PciIds) -> Option<Self> {
        match (ids.vendor, ids.device) {
            (0x8086, 0x10ca) => Some(Self::Vf82576),
            (0x8086, 0x1520) => Some(Self::VfI350),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vf82576 => "82576 VF",
            Self::VfI350 => "I350 VF",
        }
    }

    /// Queue pairs that the hardware gives each VF.
    fn queue_pairs(self) -> usize {
        match self {
            Self::Vf82576 => 2,
            Self::VfI350 => 1,
        }
    }
}

/// Whether this driver is the one for such a device.
#[must_use]
pub fn matches(ids: &PciIds) -> bool {
    Kind::of(ids).is_some()
}

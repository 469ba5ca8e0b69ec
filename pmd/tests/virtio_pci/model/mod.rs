//! A virtio network card in memory: registers, capabilities, queues of both formats, interrupts; and whatever a real one may
//! do wrong, on demand. The unmodified driver runs on it.

mod bar;
mod card;
mod config_space;
mod net;
mod queue;

pub(crate) use card::{Card, Driver};
pub(crate) use config_space::{ConfigSpace, Structure};
pub(crate) use net::Packet;
pub(crate) use queue::Lie;

/// Feature bits by the standard's names (virtio 1.3 §5.1.3, §6): the model shares no code with the driver.
pub(crate) mod feature {
    pub(crate) const CSUM: u64 = 1;
    pub(crate) const GUEST_CSUM: u64 = 1 << 1;
    pub(crate) const MTU: u64 = 1 << 3;
    pub(crate) const MAC: u64 = 1 << 5;
    pub(crate) const GUEST_TSO4: u64 = 1 << 7;
    pub(crate) const GUEST_TSO6: u64 = 1 << 8;
    pub(crate) const GUEST_ECN: u64 = 1 << 9;
    pub(crate) const HOST_TSO4: u64 = 1 << 11;
    pub(crate) const HOST_TSO6: u64 = 1 << 12;
    pub(crate) const HOST_ECN: u64 = 1 << 13;
    pub(crate) const MRG_RXBUF: u64 = 1 << 15;
    pub(crate) const STATUS: u64 = 1 << 16;
    pub(crate) const CTRL_VQ: u64 = 1 << 17;
    pub(crate) const CTRL_RX: u64 = 1 << 18;
    pub(crate) const CTRL_VLAN: u64 = 1 << 19;
    pub(crate) const MQ: u64 = 1 << 22;
    pub(crate) const INDIRECT: u64 = 1 << 28;
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
    pub(crate) const RING_PACKED: u64 = 1 << 34;
    pub(crate) const IN_ORDER: u64 = 1 << 35;

    /// What QEMU's card offers, more or less.
    pub(crate) const USUAL: u64 = CSUM
        | GUEST_CSUM
        | MAC
        | GUEST_TSO4
        | GUEST_TSO6
        | GUEST_ECN
        | HOST_TSO4
        | HOST_TSO6
        | HOST_ECN
        | MRG_RXBUF
        | STATUS
        | CTRL_VQ
        | CTRL_RX
        | CTRL_VLAN
        | MQ
        | INDIRECT
        | EVENT_IDX
        | VERSION_1
        | ACCESS_PLATFORM;
}

/// What a card is to be.
#[derive(Clone, Debug)]
pub(crate) struct CardConfig {
    pub(crate) features: u64,
    pub(crate) max_pairs: u16,
    /// Descriptors of each queue, at most.
    pub(crate) queue_size: u16,
    pub(crate) mtu: u16,
    pub(crate) vectors: usize,
    /// Between our addresses and the device's.
    pub(crate) offset: u64,
    /// Whether an IOMMU stands behind it.
    pub(crate) iommu: bool,
}

impl Default for CardConfig {
    fn default() -> Self {
        Self {
            features: feature::USUAL,
            max_pairs: 1,
            queue_size: 256,
            mtu: 1500,
            vectors: 16,
            // An address that the driver forgot to translate lies nowhere.
            offset: 1 << 60,
            iommu: true,
        }
    }
}

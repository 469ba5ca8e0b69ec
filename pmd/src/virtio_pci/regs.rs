//! Registers of a modern virtio PCI device (virtio 1.3 §4.1.4) and of virtio-net's configuration (§5.1.4). Layout alone.

/// PCI vendor of all virtio devices (§4.1.2).
pub(super) const VENDOR: u16 = 0x1af4;
/// A network card: transitional, and modern (0x1040 + device type 1).
pub(super) const TRANSITIONAL_NET: u16 = 0x1000;
pub(super) const MODERN_NET: u16 = 0x1041;

/// PCI's ID for vendor-specific capabilities; virtio's structures are found by them (§4.1.4).
pub(super) const VENDOR_CAPABILITY: u8 = 0x09;

/// `struct virtio_pci_cap`, from the capability's start.
pub(super) mod cap {
    /// `cap_len`, and behind it `cfg_type`.
    pub(crate) const LEN: u16 = 2;
    pub(crate) const BAR: u16 = 4;
    pub(crate) const OFFSET: u16 = 8;
    pub(crate) const LENGTH: u16 = 12;
    /// `notify_off_multiplier`, of the notification structure's capability only (§4.1.4.4).
    pub(crate) const MULTIPLIER: u16 = 16;
    /// Bytes of a capability, without and with the multiplier.
    pub(crate) const SIZE: u8 = 16;
    pub(crate) const NOTIFY_SIZE: u8 = 20;

    /// `cfg_type`
    pub(crate) const COMMON: u8 = 1;
    pub(crate) const NOTIFY: u8 = 2;
    pub(crate) const ISR: u8 = 3;
    pub(crate) const DEVICE: u8 = 4;
}

/// `struct virtio_pci_common_cfg` (§4.1.4.3), up to what every modern device has.
pub(super) mod common {
    pub(crate) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(crate) const DEVICE_FEATURE: usize = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(crate) const DRIVER_FEATURE: usize = 0x0c;
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub(crate) const DEVICE_STATUS: usize = 0x14;
    pub(crate) const CONFIG_GENERATION: usize = 0x15;
    pub(crate) const QUEUE_SELECT: usize = 0x16;
    pub(crate) const QUEUE_SIZE: usize = 0x18;
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 0x1a;
    pub(crate) const QUEUE_ENABLE: usize = 0x1c;
    pub(crate) const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub(crate) const QUEUE_DESC: usize = 0x20;
    pub(crate) const QUEUE_DRIVER: usize = 0x28;
    pub(crate) const QUEUE_DEVICE: usize = 0x30;
    pub(crate) const SIZE: usize = 0x38;
}

/// "No vector" (§4.1.4.3): also what a device answers that cannot have the one asked for.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// `device_status` (§2.1).
pub(super) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const NEEDS_RESET: u8 = 64;
    /// What a device that is gone reads as.
    pub(crate) const GONE: u8 = 0xff;
}

/// `struct virtio_net_config` (§5.1.4).
pub(super) mod net {
    pub(crate) const MAC: usize = 0;
    pub(crate) const STATUS: usize = 6;
    pub(crate) const MAX_VIRTQUEUE_PAIRS: usize = 8;
    pub(crate) const MTU: usize = 10;
    /// VIRTIO_NET_S_LINK_UP
    pub(crate) const S_LINK_UP: u16 = 1;
    /// Pairs that a device may have (§5.1.4.1).
    pub(crate) const MAX_PAIRS: u16 = 0x8000;
    /// Smallest MTU that a device may report (§5.1.4.1).
    pub(crate) const MIN_MTU: u16 = 68;
}

const _: () = assert!(common::QUEUE_DEVICE + 8 == common::SIZE);

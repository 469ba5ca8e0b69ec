//! virtio-net: feature bits and the packet header (virtio 1.3 §5.1.3, §5.1.6).

/// The driver gives the device packets with a partial checksum.
pub const F_CSUM: u64 = 1 << 0;
/// The driver takes packets with a partial checksum.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The device reports its MTU.
pub const F_MTU: u64 = 1 << 3;
/// The device has a MAC address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes TSOv4.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TSOv6.
pub const F_GUEST_TSO6: u64 = 1 << 8;
/// The driver takes TSO with ECN.
pub const F_GUEST_ECN: u64 = 1 << 9;
/// The driver takes UFO.
pub const F_GUEST_UFO: u64 = 1 << 10;
/// The device takes TSOv4.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// The device takes TSOv6.
pub const F_HOST_TSO6: u64 = 1 << 12;
/// The device takes TSO with ECN.
pub const F_HOST_ECN: u64 = 1 << 13;
/// The device takes UFO.
pub const F_HOST_UFO: u64 = 1 << 14;
/// A received packet may be spread over several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// The configuration has a link status.
pub const F_STATUS: u64 = 1 << 16;
/// There is a control queue.
pub const F_CTRL_VQ: u64 = 1 << 17;
/// The control queue sets receive modes.
pub const F_CTRL_RX: u64 = 1 << 18;
/// The driver can announce itself.
pub const F_GUEST_ANNOUNCE: u64 = 1 << 21;
/// Several queue pairs.
pub const F_MQ: u64 = 1 << 22;
/// The driver takes USOv4.
pub const F_GUEST_USO4: u64 = 1 << 54;
/// The driver takes USOv6.
pub const F_GUEST_USO6: u64 = 1 << 55;
/// The device takes USO.
pub const F_HOST_USO: u64 = 1 << 56;

/// The ring may be left empty without a notification (legacy, §6.3).
pub const F_NOTIFY_ON_EMPTY: u64 = 1 << 24;
/// Vhost: log writes to guest memory.
pub const F_LOG_ALL: u64 = 1 << 26;
/// Any descriptor layout (legacy's name for what version 1 always allows).
pub const F_ANY_LAYOUT: u64 = 1 << 27;
/// Indirect descriptors (§2.7.5.3).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Event index (§2.7.7, §2.7.10).
pub const F_EVENT_IDX: u64 = 1 << 29;
/// Vhost-user: there are protocol features to negotiate.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// Virtio 1.0 and later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Addresses pass an IOMMU.
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;
/// Packed rings.
pub const F_RING_PACKED: u64 = 1 << 34;
/// Buffers are used in the order they were made available.
pub const F_IN_ORDER: u64 = 1 << 35;

/// Header flag: the checksum is partial.
pub const HDR_F_NEEDS_CSUM: u8 = 1;
/// Header flag: the checksum is known to be right.
pub const HDR_F_DATA_VALID: u8 = 2;
/// No segmentation.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// UDP fragmentation (UFO).
pub const GSO_UDP: u8 = 3;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP segmentation (USO).
pub const GSO_UDP_L4: u8 = 5;
/// Or-ed in: the packet has ECN set.
pub const GSO_ECN: u8 = 0x80;

/// Bytes of the header without `num_buffers`: legacy, without mergeable buffers.
pub const HDR_LEN_LEGACY: usize = 10;
/// Bytes of the header with `num_buffers`: version 1, or mergeable buffers.
pub const HDR_LEN: usize = 12;
/// Where `num_buffers` stands.
pub const NUM_BUFFERS_OFFSET: usize = 10;

/// The header's size for a set of negotiated features.
#[must_use]
pub const fn hdr_len(features: u64) -> usize {
    if features & (F_VERSION_1 | F_MRG_RXBUF) != 0 { HDR_LEN } else { HDR_LEN_LEGACY }
}

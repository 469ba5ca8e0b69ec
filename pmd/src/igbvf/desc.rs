//! Advanced descriptors: two words of 64 bits each, little-endian. Layout alone.
#![cfg_attr(
    not(any(test, feature = "test-models")),
    expect(dead_code, reason = "some of it only the device's side names, which is the model's")
)]

use core::sync::atomic::AtomicU64;

/// A descriptor in memory that the device shares. Written whole by us, written back by the device.
pub(super) type Descriptor = [AtomicU64; 2];
/// Its bytes.
pub(super) const DESCRIPTOR: usize = 16;

const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR);

/// Receive descriptors (82576 datasheet 7.1.5). As posted: word 0 is the packet buffer's address, word 1 that of a header
/// buffer, which is none: 0, and so not done. As written back: word 0 is packet type and RSS hash; of word 1
/// the lower half is status and errors, then come 16 bits of length and 16 of the VLAN tag that was taken out.
pub(super) mod rx {
    /// Descriptor done.
    pub(in super::super) const DD: u64 = 1;
    /// End of packet.
    pub(in super::super) const EOP: u64 = 1 << 1;
    /// A VLAN tag was taken out.
    pub(in super::super) const VP: u64 = 1 << 3;
    /// The UDP checksum was looked at.
    pub(in super::super) const UDPCS: u64 = 1 << 4;
    /// The transport checksum was looked at.
    pub(in super::super) const L4CS: u64 = 1 << 5;
    /// The packet came from another function of the card.
    pub(in super::super) const LB: u64 = 1 << 18;
    /// The transport checksum is wrong.
    pub(in super::super) const L4E: u64 = 1 << 29;
    /// The IP checksum is wrong.
    pub(in super::super) const IPE: u64 = 1 << 30;
    /// The frame is broken: CRC, symbol, sequence, carrier extension, or any other receive error.
    pub(in super::super) const BROKEN: u64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31;
    /// Where the length is.
    pub(in super::super) const LENGTH_SHIFT: u32 = 32;
    /// Where the tag is.
    pub(in super::super) const TAG_SHIFT: u32 = 48;

    /// The length in a word 1.
    #[inline(always)]
    pub(in super::super) const fn length(word: u64) -> usize {
        (word >> LENGTH_SHIFT) as u16 as usize
    }
    const _: () = assert!(length(0xabcd_1234_5678_9abc) == 0x1234);
}

/// Transmit descriptors (82576 datasheet 7.2.2). Data descriptors: word 0 is the buffer's address; of word 1 the lower half
/// is length, type and commands, the upper one is status, options and the packet's bytes. Context descriptors: word 0 has
/// the headers' lengths, word 1 what they are, the transport header's length and the MSS.
pub(super) mod tx {
    /// An advanced data descriptor that ends in a frame with FCS.
    pub(in super::super) const DATA: u64 = 3 << 20 | 1 << 29 | 1 << 25;
    /// An advanced context descriptor.
    pub(in super::super) const CONTEXT: u64 = 2 << 20 | 1 << 29;
    /// The type's bits.
    pub(in super::super) const TYPE: u64 = 0xf << 20;
    /// End of packet.
    pub(in super::super) const EOP: u64 = 1 << 24;
    /// Report status: write DD back when done.
    pub(in super::super) const RS: u64 = 1 << 27;
    /// Extended: set in both types.
    pub(in super::super) const DEXT: u64 = 1 << 29;
    /// Segment.
    pub(in super::super) const TSE: u64 = 1 << 31;
    /// Written back: done.
    pub(in super::super) const DD: u64 = 1 << 32;
    /// Insert the IP header's checksum.
    pub(in super::super) const IXSM: u64 = 1 << (32 + 8);
    /// Insert the transport checksum.
    pub(in super::super) const TXSM: u64 = 1 << (32 + 9);
    /// Where the packet's bytes are: all of them, or those behind the headers of one that is to be segmented.
    pub(in super::super) const PAYLEN_SHIFT: u32 = 32 + 14;
    /// Most bytes there.
    pub(in super::super) const PAYLEN_MAX: usize = (1 << 18) - 1;

    /// Context, word 0: where the IP header's and the link header's lengths are.
    pub(in super::super) const IPLEN_SHIFT: u32 = 0;
    /// See [`IPLEN_SHIFT`].
    pub(in super::super) const MACLEN_SHIFT: u32 = 9;
    /// Most that fits there.
    pub(in super::super) const IPLEN_MAX: usize = 511;
    /// See [`IPLEN_MAX`].
    pub(in super::super) const MACLEN_MAX: usize = 127;
    /// Context, word 1: IPv4 (else IPv6).
    pub(in super::super) const IPV4: u64 = 1 << 10;
    /// Context, word 1: TCP (else UDP).
    pub(in super::super) const TCP: u64 = 1 << 11;
    /// Context, word 1: where the transport header's length and the MSS are.
    pub(in super::super) const L4LEN_SHIFT: u32 = 32 + 8;
    /// See [`L4LEN_SHIFT`].
    pub(in super::super) const MSS_SHIFT: u32 = 32 + 16;

    const _: () = assert!(DATA == 0x2230_0000 && CONTEXT == 0x2020_0000);
    const _: () = assert!(PAYLEN_SHIFT + 18 == 64);
}

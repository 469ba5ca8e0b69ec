//! What is left to be done to a packet (checksum, segmentation), in Polder's own terms.
//!
//! A receive half fills this in from what its peer said *after checking it against the packet*; a transmit half either
//! passes it on in its device's terms or does the work itself.

use zerocopy::{Immutable, IntoBytes};

/// What is known or owed about the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
pub enum Checksum {
    /// Nothing known: the checksum in the packet is what it is.
    #[default]
    Unknown = 0,
    /// Somebody trustworthy for this packet checked it (or vouches for it).
    Valid = 1,
    /// Still to be computed: the sum over the bytes from `csum_start` on goes to `csum_start + csum_offset`.
    Partial = 2,
}

/// How a frame larger than the path's MTU is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(u8)]
pub enum GsoKind {
    /// Not at all.
    #[default]
    None = 0,
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 2,
    /// UDP, each segment a datagram (VIRTIO_NET_HDR_GSO_UDP_L4).
    UdpL4 = 3,
}

/// Offload request and result of one packet. Sixteen bytes; all zero means "nothing owed, nothing known".
#[derive(Clone, Copy, Debug, Default, Eq, IntoBytes, Immutable)]
#[repr(C, align(8))]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Segmentation owed. Anything but `None` implies `Checksum::Partial`.
    pub gso: GsoKind,
    /// Segments carry ECN's congestion-window-reduced flag by the sender's leave (VIRTIO_NET_HDR_GSO_ECN).
    pub gso_ecn: bool,
    _pad: u8,
    /// Payload bytes of each segment; 0 if `gso` is `None`.
    pub gso_size: u16,
    /// Where the summed bytes start, from the start of the frame.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
    /// Bytes of all headers up to the transport payload, as our own parse found them; 0 if not parsed.
    pub hdr_len: u16,
    /// VLAN tag control information taken out of the frame by a NIC; 0 if none.
    pub vlan_tci: u16,
    _pad2: u16,
}

impl Offload {
    /// Nothing owed, nothing known.
    pub const NONE: Self = Self {
        checksum: Checksum::Unknown,
        gso: GsoKind::None,
        gso_ecn: false,
        _pad: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        hdr_len: 0,
        vlan_tci: 0,
        _pad2: 0,
    };

    /// All of it as two words: the compiler compares field by field otherwise.
    #[inline(always)]
    fn words(&self) -> [u64; 2] {
        zerocopy::transmute!(*self)
    }

    /// Whether it is [`NONE`](Self::NONE): nothing owed, nothing known.
    #[inline(always)]
    #[must_use]
    pub fn is_blank(&self) -> bool {
        let [a, b] = self.words();
        a | b == 0
    }

    /// Whether a receiver that knows no offloads can take the packet as it is.
    #[inline(always)]
    #[must_use]
    pub fn is_none(&self) -> bool {
        // Not `&&`: two bytes of one line are sooner looked at than jumped over.
        (self.checksum != Checksum::Partial) & (self.gso == GsoKind::None)
    }
}

impl PartialEq for Offload {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

const _: () = assert!(size_of::<Offload>() == 16);

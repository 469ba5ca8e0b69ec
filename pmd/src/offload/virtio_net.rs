//! The virtio-net header (virtio 1.3 §5.1.6), its first ten bytes. Layout, and the way from our own terms to it.

use mbuf::{Checksum, GsoKind, Offload};

use crate::offload::OffloadSet;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM
pub(crate) const F_NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID
pub(crate) const F_DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_GSO_NONE
pub(crate) const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_TCPV4
pub(crate) const GSO_TCPV4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6
pub(crate) const GSO_TCPV6: u8 = 4;
/// VIRTIO_NET_HDR_GSO_UDP_L4
pub(crate) const GSO_UDP_L4: u8 = 5;
/// VIRTIO_NET_HDR_GSO_ECN, added to one of the TCP types.
pub(crate) const GSO_ECN: u8 = 0x80;

/// The header's numbers, as a peer wrote them or is to read them. `num_buffers` and what follows it are the queue's
/// business, not the packet's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// VIRTIO_NET_HDR_F_*
    pub flags: u8,
    /// VIRTIO_NET_HDR_GSO_*
    pub gso_type: u8,
    /// Bytes of all headers. A hint of the sender that we never use.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the summed bytes start, from the start of the frame.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioNetHdr {
    /// Its length in bytes.
    pub const LEN: usize = 10;

    /// Reads it as VIRTIO_F_VERSION_1 has it: little-endian.
    #[inline]
    #[must_use]
    pub fn from_le_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self::read(bytes, u16::from_le_bytes)
    }

    /// Reads it as the Linux kernel gives it to TAP and packet sockets: in the host's order.
    #[inline]
    #[must_use]
    pub fn from_ne_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self::read(bytes, u16::from_ne_bytes)
    }

    #[inline(always)]
    fn read(b: &[u8; Self::LEN], word: fn([u8; 2]) -> u16) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: word([b[2], b[3]]),
            gso_size: word([b[4], b[5]]),
            csum_start: word([b[6], b[7]]),
            csum_offset: word([b[8], b[9]]),
        }
    }

    /// Its bytes, little-endian.
    #[inline]
    #[must_use]
    pub fn to_le_bytes(&self) -> [u8; Self::LEN] {
        self.write(u16::to_le_bytes)
    }

    /// Its bytes in the host's order.
    #[inline]
    #[must_use]
    pub fn to_ne_bytes(&self) -> [u8; Self::LEN] {
        self.write(u16::to_ne_bytes)
    }

    #[inline(always)]
    fn write(&self, word: fn(u16) -> [u8; 2]) -> [u8; Self::LEN] {
        let [h, g, s, o] = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].map(word);
        [self.flags, self.gso_type, h[0], h[1], g[0], g[1], s[0], s[1], o[0], o[1]]
    }
}

/// The header for a receiver that accepts `accepted`, which must [cover](OffloadSet::covers) the packet. All zero for a
/// packet that nothing is owed to; DATA_VALID only to who negotiated checksums.
#[inline]
#[must_use]
pub fn to_virtio_net(offload: &Offload, accepted: OffloadSet) -> VirtioNetHdr {
    debug_assert!(accepted.covers(offload), "{offload:?} for a receiver of {accepted:?}");
    match offload.checksum {
        Checksum::Unknown => VirtioNetHdr::default(),
        Checksum::Valid if accepted.contains(OffloadSet::CSUM) => {
            VirtioNetHdr { flags: F_DATA_VALID, ..VirtioNetHdr::default() }
        }
        Checksum::Valid => VirtioNetHdr::default(),
        Checksum::Partial => VirtioNetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: gso_type(offload),
            hdr_len: offload.hdr_len,
            gso_size: offload.gso_size,
            csum_start: offload.csum_start,
            csum_offset: offload.csum_offset,
        },
    }
}

#[inline]
fn gso_type(offload: &Offload) -> u8 {
    let ecn = if offload.gso_ecn { GSO_ECN } else { 0 };
    match offload.gso {
        GsoKind::None => GSO_NONE,
        GsoKind::TcpV4 => GSO_TCPV4 | ecn,
        GsoKind::TcpV6 => GSO_TCPV6 | ecn,
        GsoKind::UdpL4 => GSO_UDP_L4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_in_both_orders() {
        let hdr = VirtioNetHdr {
            flags: 1,
            gso_type: 0x81,
            hdr_len: 0x0203,
            gso_size: 0x0405,
            csum_start: 0x0607,
            csum_offset: 0x0809,
        };
        assert_eq!(hdr.to_le_bytes(), [1, 0x81, 3, 2, 5, 4, 7, 6, 9, 8]);
        assert_eq!(VirtioNetHdr::from_le_bytes(&hdr.to_le_bytes()), hdr);
        assert_eq!(VirtioNetHdr::from_ne_bytes(&hdr.to_ne_bytes()), hdr);
    }

    #[test]
    fn h12_only_what_was_accepted_is_said() {
        let mut o = Offload::NONE;
        o.checksum = Checksum::Valid;
        assert_eq!(to_virtio_net(&o, OffloadSet::NONE), VirtioNetHdr::default());
        assert_eq!(to_virtio_net(&o, OffloadSet::CSUM).flags, F_DATA_VALID);
        o.checksum = Checksum::Partial;
        (o.gso, o.gso_ecn, o.gso_size) = (GsoKind::TcpV4, true, 1460);
        (o.csum_start, o.csum_offset, o.hdr_len) = (34, 16, 54);
        let hdr = to_virtio_net(&o, OffloadSet::ALL);
        let want = VirtioNetHdr {
            flags: F_NEEDS_CSUM,
            gso_type: 0x81,
            hdr_len: 54,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 16,
        };
        assert_eq!(hdr, want);
    }
}

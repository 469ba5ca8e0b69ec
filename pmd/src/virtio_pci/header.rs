//! The header in front of each packet (virtio 1.3 §5.1.6).

use mbuf::Offload;

use crate::offload::{OffloadSet, VirtioNetHdr, to_virtio_net};

/// Its bytes, `num_buffers` included: always there with VIRTIO_F_VERSION_1.
pub(super) const HDR_LEN: usize = 12;

/// What a device wrote in front of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxHeader([u8; HDR_LEN]);

impl RxHeader {
    /// From a buffer's first bytes; `None` if there are too few.
    #[inline(always)]
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| Self(*bytes))
    }

    /// Whether it says nothing of the packet.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        self.0[..VirtioNetHdr::LEN] == [0; VirtioNetHdr::LEN]
    }

    /// What it says of the packet.
    pub(super) fn hdr(&self) -> VirtioNetHdr {
        let [hdr @ .., _, _] = &self.0;
        VirtioNetHdr::from_le_bytes(hdr)
    }

    /// Buffers that the packet takes, this one included. Means something with MRG_RXBUF only.
    #[inline(always)]
    pub(super) fn num_buffers(&self) -> u16 {
        let [.., low, high] = self.0;
        u16::from_le_bytes([low, high])
    }
}

/// The header of a packet that is sent to a device that takes `accepted`, which covers it. `num_buffers` is 0 (§5.1.6.2.1).
#[inline]
pub(super) fn tx_header(offload: &Offload, accepted: OffloadSet) -> [u8; HDR_LEN] {
    let mut bytes = [0; HDR_LEN];
    if !offload.is_none() {
        bytes[..VirtioNetHdr::LEN].copy_from_slice(&to_virtio_net(offload, accepted).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use mbuf::Checksum;

    use super::*;

    #[test]
    fn a_driver_never_says_data_valid() {
        let mut owed = Offload::NONE;
        owed.checksum = Checksum::Valid;
        assert_eq!(tx_header(&owed, OffloadSet::ALL), [0; HDR_LEN]);
        (owed.checksum, owed.csum_start, owed.csum_offset) = (Checksum::Partial, 34, 16);
        assert_eq!(tx_header(&owed, OffloadSet::ALL), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn eleven_bytes_are_no_header() {
        assert!(RxHeader::from_bytes(&[0; 11]).is_none());
        assert_eq!(
            RxHeader::from_bytes(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1]).map(|h| h.num_buffers()),
            Some(259)
        );
    }
}

//! The packet header as a driver reads and writes it (virtio 1.3 §5.1.6).

use crate::wire::net::{HDR_LEN, NUM_BUFFERS_OFFSET};

/// The virtio-net header, as a private copy. All zero: a plain frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetHdr {
    /// `HDR_F_*`.
    pub flags: u8,
    /// `GSO_*`.
    pub gso_type: u8,
    /// Bytes of all headers, for segmentation. A hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts to sum.
    pub csum_start: u16,
    /// Where the sum goes, from `csum_start` on.
    pub csum_offset: u16,
    /// Buffers of this packet. Written by the device, with mergeable buffers or version 1.
    pub num_buffers: u16,
}

impl NetHdr {
    /// As it stands in memory. A header of 10 bytes is the same without the last two.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HDR_LEN] {
        let mut bytes = [0; HDR_LEN];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let words = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (i, word) in words.into_iter().enumerate() {
            bytes[2 + 2 * i..4 + 2 * i].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// From memory. Of a header of 10 bytes, pass zeros as the last two.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HDR_LEN]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(NUM_BUFFERS_OFFSET),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let hdr = NetHdr {
            flags: 1,
            gso_type: 4,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
            num_buffers: 0x090a,
        };
        assert_eq!(hdr.to_bytes(), [1, 4, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9]);
        assert_eq!(NetHdr::from_bytes(hdr.to_bytes()), hdr);
    }
}

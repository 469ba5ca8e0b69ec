//! SEND_RARP: after a migration the switch must learn where the guest is now, though the guest itself stays silent.

use std::sync::atomic::{AtomicU64, Ordering};

/// Set beside a MAC address, so that none is 0.
const PRESENT: u64 = 1 << 48;

/// A station whose address is to be announced as if its guest had sent a RARP. Holds one: a newer one takes its place.
#[derive(Debug, Default)]
pub(crate) struct AnnounceSlot(AtomicU64);

impl AnnounceSlot {
    /// Puts in the address. Control plane.
    pub(crate) fn post(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.0.store(PRESENT | u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), Ordering::Relaxed);
    }

    /// Whether there is one.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Takes out the address, if there is one. Data plane: one load while there is none.
    #[inline]
    pub(crate) fn take(&self) -> Option<[u8; 6]> {
        if self.0.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let word = self.0.swap(0, Ordering::Relaxed);
        let [a, b, c, d, e, f, present, _] = word.to_le_bytes();
        (present != 0).then_some([a, b, c, d, e, f])
    }
}

/// Bytes of a RARP frame, padded to Ethernet's minimum without FCS.
pub(crate) const RARP_LEN: usize = 60;

/// A reverse ARP request (RFC 903) by `mac` to everybody: who am I? Nobody answers; every switch learns.
pub(crate) fn rarp_frame(mac: [u8; 6]) -> [u8; RARP_LEN] {
    let mut frame = [0u8; RARP_LEN];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    // Ethertype RARP; hardware Ethernet, protocol IPv4, address lengths 6 and 4; operation 3, request reverse.
    frame[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 0x08, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac);
    frame[32..38].copy_from_slice(&mac);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_at_a_time() {
        let slot = AnnounceSlot::default();
        assert_eq!(slot.take(), None);
        slot.post([2, 0, 0, 0, 0, 1]);
        slot.post([2, 0, 0, 0, 0, 2]);
        assert_eq!(slot.take(), Some([2, 0, 0, 0, 0, 2]));
        assert_eq!(slot.take(), None);
    }

    #[test]
    fn a_rarp_frame_byte_by_byte() {
        let frame = rarp_frame([2, 3, 4, 5, 6, 7]);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 3, 4, 5, 6, 7, 0x80, 0x35]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frame[22..28], &frame[32..38]), (&[2, 3, 4, 5, 6, 7][..], &[2, 3, 4, 5, 6, 7][..]));
        assert!(frame[28..32].iter().chain(&frame[38..]).all(|&b| b == 0));
    }
}

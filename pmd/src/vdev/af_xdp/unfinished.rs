//! Checksums that were left to a NIC that is not there.
//!
//! The host's stack does not sum up a TCP or UDP packet that leaves by an interface with checksum offload, and a veth has
//! it: no wire, no checksum. What it writes into the checksum field is the sum over the pseudo-header alone, and a mark beside the
//! packet says so (CHECKSUM_PARTIAL). AF_XDP hands over the frame without the mark. But the field tells by itself: it holds
//! exactly that sum. In one of 65,536 finished packets it does so by chance, and then to finish it once more changes nothing.

use mbuf::{Checksum, Offload};

use crate::offload::{Headers, Network, Sum, Transport, parse};

/// What is owed to a frame of `frame_len` bytes that begins with `head`.
#[inline]
pub(crate) fn owed(head: &[u8], frame_len: usize) -> Offload {
    let mut offload = Offload::NONE;
    let h = parse(head, frame_len);
    let Some(csum_offset) = h.transport.checksum_offset() else { return offload };
    if is_unfinished(head, &h, csum_offset.into()) {
        offload.checksum = Checksum::Partial;
        offload.csum_start = h.l4 as u16;
        offload.csum_offset = csum_offset;
        offload.hdr_len = h.payload as u16;
    }
    offload
}

/// Whether the checksum field holds the sum of the pseudo-header (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1), not complemented.
#[inline]
fn is_unfinished(head: &[u8], h: &Headers, csum_offset: usize) -> bool {
    let addresses = if h.network == Network::V6 { h.l3 + 8..h.l3 + 40 } else { h.l3 + 12..h.l3 + 20 };
    let field = h.l4 + csum_offset;
    let (Some(addresses), Some(&[high, low])) = (head.get(addresses), head.get(field..field + 2)) else {
        return false;
    };
    let mut sum = Sum::new();
    sum.add(addresses);
    sum.add_word(if h.transport == Transport::Tcp { 6 } else { 17 });
    sum.add_word((h.l3_end - h.l4) as u16);
    u16::from_be_bytes([high, low]) == !sum.finish()
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn frames() -> [Vec<u8>; 4] {
        let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
        let (v4, v6) = ([10, 0, 0, 1], [0xfd; 16]);
        let mut frames: [Vec<u8>; 4] = Default::default();
        let [a, b, c, d] = &mut frames;
        ethernet().ipv4(v4, [10, 0, 0, 2], 64).tcp(1, 2, 3, 4).write(a, b"payload").unwrap();
        ethernet().ipv6(v6, [0xfc; 16], 64).tcp(1, 2, 3, 4).write(b, b"odd payload").unwrap();
        ethernet().ipv4(v4, [10, 0, 0, 2], 64).udp(1, 2).write(c, b"").unwrap();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .single_vlan(7u16.try_into().unwrap())
            .ipv6(v6, [0xfc; 16], 64)
            .udp(1, 2)
            .write(d, b"payload")
            .unwrap();
        frames
    }

    /// The sum over the pseudo-header, worked out the long way round: all of it, minus the transport layer.
    fn leave_unfinished(frame: &mut [u8]) -> (usize, usize) {
        let h = parse(frame, frame.len());
        let field = h.l4 + usize::from(h.transport.checksum_offset().unwrap());
        let words = |bytes: &[u8]| -> u32 {
            bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum()
        };
        frame[field..field + 2].fill(0);
        let addresses = if h.network == Network::V6 { 8..40 } else { 12..20 };
        let proto = if h.transport == Transport::Tcp { 6 } else { 17 };
        let mut sum = words(&frame[h.l3..][addresses]) + proto + (frame.len() - h.l4) as u32;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        frame[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        (h.l4, h.payload)
    }

    #[test]
    fn a_sum_of_the_pseudo_header_alone_is_unfinished() {
        for mut frame in frames() {
            assert_eq!(owed(&frame, frame.len()), Offload::NONE, "whole");
            let (l4, payload) = leave_unfinished(&mut frame);
            let offload = owed(&frame, frame.len());
            assert_eq!(offload.checksum, Checksum::Partial);
            assert_eq!((usize::from(offload.csum_start), usize::from(offload.hdr_len)), (l4, payload));
            frame[l4 + 1] ^= 1;
            assert_eq!(
                owed(&frame, frame.len()).checksum,
                Checksum::Partial,
                "what it covers does not matter"
            );
            let at = l4 + usize::from(offload.csum_offset);
            frame[at] ^= 1;
            assert_eq!(owed(&frame, frame.len()), Offload::NONE);
        }
    }

    #[test]
    fn nothing_is_owed_to_what_is_no_transport_packet() {
        for frame in [&[0u8; 60][..], &[0xff; 14], &[0xff; 13], &[]] {
            assert_eq!(owed(frame, frame.len()), Offload::NONE);
        }
    }
}

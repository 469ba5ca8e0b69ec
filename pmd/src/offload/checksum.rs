//! The Internet checksum (RFC 1071), and the completion of a partial one.

use mbuf::{Checksum, GsoKind, Mbuf, Offload};

use super::width::sum;
use crate::DropReason;

/// A ones' complement sum over bytes that come in pieces, of any length each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The sum so far in the machine's own byte order (RFC 1071 §2 (B)), not yet folded.
    acc: u64,
    /// Whether an odd number of bytes came so far: the next piece then starts with a word's second byte.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { acc: 0, odd: false }
    }

    /// Adds `bytes` behind those that came before.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let piece = fold(sum(bytes));
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        self.acc += u64::from(piece);
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// Adds a 16-bit number, as if its two bytes came in network order at an even place.
    #[inline]
    pub fn add_word(&mut self, word: u16) {
        self.acc += u64::from(word.to_be());
    }

    /// The checksum: the complement of the sum, as the number whose big-endian bytes go into the packet. 0 if the bytes
    /// contain their own right checksum.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        u16::from_be(!fold(self.acc))
    }
}

/// Adds the upper halves to the lower ones until 16 bits are left.
#[inline]
fn fold(acc: u64) -> u16 {
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 32) + (acc & 0xffff_ffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    let acc = (acc >> 16) + (acc & 0xffff);
    ((acc >> 16) + (acc & 0xffff)) as u16
}

/// Completes a [partial](Checksum::Partial) checksum in software; any other packet comes back as it is. A packet that is
/// shared or has a tail is copied first: others must not see the change, and what was summed must be what is sent.
///
/// # Errors
/// [`DropReason::NoMbufs`] if the copy cannot be made; [`DropReason::TxOffload`] for a packet that must be cut
/// ([`Segmenter`](crate::offload::Segmenter)), or whose checksum lies outside of it. The packet is dropped then.
pub fn finish(mbuf: Mbuf<'_>) -> Result<Mbuf<'_>, DropReason> {
    let offload = *mbuf.offload();
    if offload.gso != GsoKind::None {
        return Err(DropReason::TxOffload);
    }
    if offload.checksum != Checksum::Partial {
        return Ok(mbuf);
    }
    let mut mbuf = changeable(mbuf, field_end(&offload))?;
    let mut sum = Sum::new();
    sum_from(&mbuf, offload.csum_start.into(), &mut sum);
    let checksum = non_zero(sum.finish());
    let at = field_end(&offload) - 2;
    let field = mbuf.data_mut().and_then(|d| d.get_mut(at..at + 2)).ok_or(DropReason::TxOffload)?;
    field.copy_from_slice(&checksum.to_be_bytes());
    let mut done = Offload::NONE;
    done.checksum = Checksum::Valid;
    done.vlan_tci = offload.vlan_tci;
    mbuf.set_offload(done);
    Ok(mbuf)
}

/// UDP's 0 means "none"; 0xFFFF is the same number in ones' complement, and right for TCP too.
#[inline]
pub(crate) fn non_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

fn field_end(offload: &Offload) -> usize {
    usize::from(offload.csum_start) + usize::from(offload.csum_offset) + 2
}

/// The packet, or a copy, such that its first segment can be changed and holds the first `head` bytes.
fn changeable(mbuf: Mbuf<'_>, head: usize) -> Result<Mbuf<'_>, DropReason> {
    if !mbuf.has_tail() && mbuf.is_unique() && mbuf.data().len() >= head {
        return Ok(mbuf);
    }
    if mbuf.len() < head {
        return Err(DropReason::TxOffload);
    }
    mbuf.duplicate().map(|m| m as Mbuf<'_>).map_err(|_| DropReason::NoMbufs)
}

/// Adds an owned packet's bytes from `start` on.
pub(crate) fn sum_from(mbuf: &Mbuf<'_>, start: usize, sum: &mut Sum) {
    let mut skip = start;
    for segment in mbuf.segments() {
        match segment.get(skip..) {
            Some(bytes) => {
                sum.add(bytes);
                skip = 0;
            }
            None => skip -= segment.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as its text has it: one 16-bit word after the other.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum: u32 =
            bytes.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)]))).sum();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_example() {
        let mut s = Sum::new();
        s.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(s.finish(), !0xddf2);
        let mut s = Sum::new();
        for w in [0x0001, 0xf203, 0xf4f5, 0xf6f7] {
            s.add_word(w);
        }
        assert_eq!(s.finish(), !0xddf2);
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_sum_to_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let mut s = Sum::new();
            for pair in at.windows(2) {
                s.add(&bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(s.finish(), plain(&bytes));
        }
    }
}

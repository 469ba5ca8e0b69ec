//! Checksum and segmentation offload: the check of what a peer says, and the work in software for who cannot do it.
//!
//! On the way in, [`from_virtio_net`] checks every number of a virtio-net header against the packet itself and makes an
//! [`Offload`] of it. On the way out, [`adapt`] gives the receiver what it can take: the packet as it is, with its checksum
//! [finished](finish), or cut into [segments](Segmenter). Nothing that the receiver did not accept is ever passed on.
//!
//! `Offload::hdr_len` is not 0 exactly if our own [`parse`] found a TCP or UDP header that agrees with `csum_start` and
//! `csum_offset`. Only such a packet may be handed to a NIC's offload engine.

mod check;
mod checksum;
mod parse;
mod segment;
mod set;
mod virtio_net;
mod width;

use mbuf::{Checksum, GsoKind, Mbuf, Offload};

use crate::DropReason;

pub use check::{HeaderLie, from_virtio_net};
pub use checksum::{Sum, finish};
pub use parse::{Headers, Network, Transport, parse};
pub use segment::{MAX_SEGMENTS, Segmenter};
pub use set::OffloadSet;
pub use virtio_net::{VirtioNetHdr, to_virtio_net};
pub use width::Width;

/// A packet in a form that its receiver accepts.
#[derive(Debug)]
pub enum Adapted<'t> {
    /// One packet: send it with what [`to_virtio_net`] says of it.
    One(Mbuf<'t>),
    /// Its segments, finished: send each without any offload.
    Many(Segmenter<'t>),
}

/// Does in software what `mbuf` asks for and a receiver that accepts `accepted` cannot do.
///
/// # Errors
/// Why it cannot be done; the packet is dropped then.
#[inline]
pub fn adapt(mbuf: Mbuf<'_>, accepted: OffloadSet) -> Result<Adapted<'_>, DropReason> {
    if accepted.covers(mbuf.offload()) {
        return Ok(Adapted::One(mbuf));
    }
    if mbuf.offload().gso == GsoKind::None {
        return Ok(Adapted::One(finish(mbuf)?));
    }
    Ok(Adapted::Many(Segmenter::new(mbuf)?))
}

/// What is owed to a packet whose bytes from the link layer's end on moved by `bytes` (4 for a VLAN tag put in, -4 for one
/// taken out). `None` if an offset leaves its range.
#[must_use]
pub fn moved(offload: &Offload, bytes: i16) -> Option<Offload> {
    let mut moved = *offload;
    if offload.checksum == Checksum::Partial {
        moved.csum_start = offload.csum_start.checked_add_signed(bytes)?;
    }
    if offload.hdr_len != 0 {
        moved.hdr_len = offload.hdr_len.checked_add_signed(bytes)?;
    }
    Some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_moves_the_offsets_that_are_set() {
        let mut o = Offload::NONE;
        assert_eq!(moved(&o, 4), Some(o), "nothing is owed, nothing moves");
        o.checksum = Checksum::Partial;
        o.csum_start = 34;
        o.hdr_len = 54;
        let tagged = moved(&o, 4).unwrap();
        assert_eq!((tagged.csum_start, tagged.hdr_len), (38, 58));
        assert_eq!(moved(&tagged, -4), Some(o));
        assert_eq!(moved(&o, -40), None);
    }
}

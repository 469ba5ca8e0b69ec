//! The check of a virtio-net header against its packet (virtio 1.3 §5.1.6.2; the kernel's `virtio_net_hdr_to_skb`).

use mbuf::{Checksum, GsoKind, Offload};

use crate::DropReason;
use crate::offload::OffloadSet;
use crate::offload::parse::{Headers, Network, Transport, parse};
use crate::offload::segment::MAX_SEGMENTS;
use crate::offload::virtio_net::{
    F_DATA_VALID, F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VirtioNetHdr,
};

/// The first byte that a transport checksum can cover: behind Ethernet and the smallest IP header.
const MIN_CSUM_START: u16 = 34;
/// What is left of the kernel's TCP_MIN_SND_MSS (48) with full TCP options (40): no TCP cuts smaller pieces.
const MIN_TCP_GSO_SIZE: u16 = 8;
/// The kernel's UDP_MAX_SEGMENTS.
const MAX_UDP_SEGMENTS: usize = 128;

const _: () = assert!(MAX_UDP_SEGMENTS <= MAX_SEGMENTS);

/// How a virtio-net header contradicts its packet, or what was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderLie {
    /// H11
    #[error("asks for an offload that was not negotiated")]
    NotNegotiated,
    /// H10
    #[error("gso_type {0:#x} is not one of TCPV4, TCPV6, UDP_L4 or one of the TCP types with ECN")]
    GsoType(u8),
    /// §5.1.6.2.1: a GSO packet MUST have NEEDS_CSUM.
    #[error("segmentation without NEEDS_CSUM")]
    GsoWithoutChecksum,
    /// H5 to H8
    #[error("the checksum at {start} + {offset} is outside of the packet that it could cover")]
    ChecksumBounds {
        /// `csum_start`
        start: u16,
        /// `csum_offset`
        offset: u16,
    },
    /// H8
    #[error("the checksum at {start} + {offset} is not where the packet's TCP or UDP header has it")]
    ChecksumPlace {
        /// `csum_start`
        start: u16,
        /// `csum_offset`
        offset: u16,
    },
    /// H9, H15
    #[error("gso_size {0} is smaller than any sender cuts")]
    GsoSize(u16),
    /// H10, H13, H14, H16
    #[error(
        "the packet's headers are not those of the gso_type, not whole within its first bytes, or a fragment's"
    )]
    GsoHeaders,
    /// H14
    #[error("the IP packet's length is not the frame's")]
    GsoLength,
    /// H15
    #[error("would be cut into more than {MAX_SEGMENTS} segments (UDP: 128)")]
    GsoSegments,
}

impl From<HeaderLie> for DropReason {
    fn from(_: HeaderLie) -> Self {
        Self::RxBadOffload
    }
}

/// Checks what `hdr` says of a frame of `frame_len` bytes against its first bytes, `head`, and makes our own terms of it.
/// `head` must be private memory: at least the first 128 bytes of the frame, or all of it. `allowed` is what the sender
/// negotiated. `hdr.hdr_len` is never used.
///
/// # Errors
/// The [`HeaderLie`]; the packet is to be dropped ([`DropReason::RxBadOffload`]).
#[inline]
pub fn from_virtio_net(
    hdr: &VirtioNetHdr,
    head: &[u8],
    frame_len: usize,
    allowed: OffloadSet,
) -> Result<Offload, HeaderLie> {
    if hdr.flags == 0 && hdr.gso_type == GSO_NONE {
        return Ok(Offload::NONE);
    }
    check(hdr, head, frame_len, allowed)
}

fn check(
    hdr: &VirtioNetHdr,
    head: &[u8],
    frame_len: usize,
    allowed: OffloadSet,
) -> Result<Offload, HeaderLie> {
    let mut offload = Offload::NONE;
    if hdr.flags & F_NEEDS_CSUM == 0 {
        if hdr.gso_type != GSO_NONE {
            return Err(HeaderLie::GsoWithoutChecksum);
        }
        if hdr.flags & F_DATA_VALID != 0 && allowed.contains(OffloadSet::DATA_VALID) {
            offload.checksum = Checksum::Valid;
        }
        return Ok(offload);
    }
    if !allowed.contains(OffloadSet::CSUM) {
        return Err(HeaderLie::NotNegotiated);
    }
    let headers = parse(head, frame_len);
    checksum(hdr, &headers, frame_len, &mut offload)?;
    if hdr.gso_type != GSO_NONE {
        gso(hdr, &headers, frame_len, allowed, &mut offload)?;
    }
    Ok(offload)
}

/// H5 to H8. If the packet has a transport header that we know, the header must mean it, or something inside a UDP tunnel.
fn checksum(
    hdr: &VirtioNetHdr,
    h: &Headers,
    frame_len: usize,
    offload: &mut Offload,
) -> Result<(), HeaderLie> {
    let (start, offset) = (hdr.csum_start, hdr.csum_offset);
    let field_end = usize::from(start) + usize::from(offset) + 2;
    if start < MIN_CSUM_START || field_end > frame_len {
        return Err(HeaderLie::ChecksumBounds { start, offset });
    }
    let at = usize::from(start);
    let agrees = at == h.l4 && h.transport.checksum_offset() == Some(offset);
    let tunnelled = h.transport == Transport::Udp && at >= h.payload;
    if h.transport != Transport::Unknown && !agrees && !tunnelled {
        return Err(HeaderLie::ChecksumPlace { start, offset });
    }
    offload.checksum = Checksum::Partial;
    offload.csum_start = start;
    offload.csum_offset = offset;
    offload.hdr_len = if agrees { h.payload as u16 } else { 0 };
    Ok(())
}

/// H9, H10, H13 to H16.
fn gso(
    hdr: &VirtioNetHdr,
    h: &Headers,
    frame_len: usize,
    allowed: OffloadSet,
    offload: &mut Offload,
) -> Result<(), HeaderLie> {
    let kind = match hdr.gso_type & !GSO_ECN {
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        GSO_UDP_L4 if hdr.gso_type == GSO_UDP_L4 => GsoKind::UdpL4,
        _ => return Err(HeaderLie::GsoType(hdr.gso_type)),
    };
    let mut asked = *offload;
    asked.gso = kind;
    asked.gso_ecn = hdr.gso_type & GSO_ECN != 0;
    asked.gso_size = hdr.gso_size;
    if !allowed.covers(&asked) {
        return Err(HeaderLie::NotNegotiated);
    }
    if offload.hdr_len == 0 || !is_headed_for(kind, h) {
        return Err(HeaderLie::GsoHeaders);
    }
    if h.l3_end != frame_len {
        return Err(HeaderLie::GsoLength);
    }
    check_pieces(kind, hdr.gso_size, frame_len - h.payload)?;
    // "Too small packets are not really GSO ones" (the kernel): nothing to cut.
    if frame_len - h.payload > usize::from(hdr.gso_size) {
        *offload = asked;
    }
    Ok(())
}

/// Whether the headers are those that `kind` cuts, their own lengths included.
pub(crate) fn is_headed_for(kind: GsoKind, h: &Headers) -> bool {
    match kind {
        GsoKind::None => false,
        GsoKind::TcpV4 => h.network == Network::V4 && h.transport == Transport::Tcp,
        GsoKind::TcpV6 => h.network == Network::V6 && h.transport == Transport::Tcp,
        GsoKind::UdpL4 => h.transport == Transport::Udp,
    }
}

fn check_pieces(kind: GsoKind, gso_size: u16, payload: usize) -> Result<(), HeaderLie> {
    let (smallest, most) = match kind {
        GsoKind::UdpL4 => (1, MAX_UDP_SEGMENTS),
        _ => (MIN_TCP_GSO_SIZE, MAX_SEGMENTS),
    };
    if gso_size < smallest {
        return Err(HeaderLie::GsoSize(gso_size));
    }
    if payload.div_ceil(usize::from(gso_size)) > most {
        return Err(HeaderLie::GsoSegments);
    }
    Ok(())
}

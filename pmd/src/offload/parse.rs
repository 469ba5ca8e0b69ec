//! Where a frame's headers lie: link to transport layer, bounded, and sure of what it says.

/// Most VLAN tags that are looked behind.
const MAX_TAGS: u8 = 2;
/// Most IPv6 extension headers that are walked.
const MAX_EXTENSIONS: usize = 6;

const ETHERNET: usize = 14;
const TAG: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// The network layer of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// None that we know, or one that contradicts the frame.
    #[default]
    Unknown,
    /// A sound IPv4 header.
    V4,
    /// A sound IPv6 header.
    V6,
}

/// The transport layer of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// None that we know, a fragment of one, or one that contradicts the packet.
    #[default]
    Unknown,
    /// A whole TCP header with its options.
    Tcp,
    /// A whole UDP header.
    Udp,
}

impl Transport {
    /// Where its checksum stands, from its header's start.
    #[must_use]
    pub fn checksum_offset(self) -> Option<u16> {
        match self {
            Self::Unknown => None,
            Self::Tcp => Some(16),
            Self::Udp => Some(6),
        }
    }
}

/// What [`parse`] found. Offsets count from the start of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags (802.1Q, 802.1ad) in front of the network layer: 0 to 2.
    pub tags: u8,
    /// The EtherType behind them; 0 if the frame ends before it.
    pub ethertype: u16,
    /// Where the network layer starts.
    pub l3: usize,
    /// Which one it is.
    pub network: Network,
    /// Where the IP packet ends by its own word, at most the frame's length; 0 if `network` is unknown.
    pub l3_end: usize,
    /// Whether it is a fragment. Then `transport` is unknown.
    pub fragment: bool,
    /// Where the transport layer starts; 0 if it was not reached.
    pub l4: usize,
    /// Which one it is.
    pub transport: Transport,
    /// Where the transport layer's payload starts: all headers lie whole in front of it. 0 if `transport` is unknown.
    pub payload: usize,
}

/// Finds the headers of a frame of `frame_len` bytes of which `head` is the start. Never looks behind `head`, and calls
/// nothing known that is not whole within it. A guest cannot make it slow: at most 2 tags and 6 IPv6 extension headers.
#[inline]
#[must_use]
pub fn parse(head: &[u8], frame_len: usize) -> Headers {
    let head = &head[..head.len().min(frame_len)];
    let mut h = Headers::default();
    if link(head, &mut h).is_none() {
        return h;
    }
    // A layer that is not sound returns None half way; what was found in front of it stays.
    let _ = match h.ethertype {
        ETHERTYPE_IPV4 => ipv4(head, frame_len, &mut h),
        ETHERTYPE_IPV6 => ipv6(head, frame_len, &mut h),
        _ => None,
    };
    h
}

#[inline(always)]
fn word(head: &[u8], at: usize) -> Option<u16> {
    head.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

#[inline(always)]
fn link(head: &[u8], h: &mut Headers) -> Option<()> {
    h.ethertype = word(head, ETHERNET - 2)?;
    h.l3 = ETHERNET;
    while matches!(h.ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ) && h.tags < MAX_TAGS {
        h.ethertype = word(head, h.l3 + TAG - 2)?;
        h.l3 += TAG;
        h.tags += 1;
    }
    Some(())
}

#[inline(always)]
fn ipv4(head: &[u8], frame_len: usize, h: &mut Headers) -> Option<()> {
    let ip = head.get(h.l3..)?.first_chunk::<20>()?;
    let header = usize::from(ip[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let end = h.l3 + total;
    if ip[0] >> 4 != 4 || header < 20 || total < header || end > frame_len || h.l3 + header > head.len() {
        return None;
    }
    h.network = Network::V4;
    h.l3_end = end;
    h.l4 = h.l3 + header;
    // More fragments, or an offset: all but the don't-fragment and the reserved bit.
    h.fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if h.fragment { None } else { transport(head, ip[9], h) }
}

#[inline(always)]
fn ipv6(head: &[u8], frame_len: usize, h: &mut Headers) -> Option<()> {
    let ip = head.get(h.l3..)?.first_chunk::<40>()?;
    let end = h.l3 + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || end > frame_len {
        return None;
    }
    h.network = Network::V6;
    h.l3_end = end;
    h.l4 = h.l3 + 40;
    match ip[6] {
        proto @ (PROTO_TCP | PROTO_UDP) => transport(head, proto, h),
        first => extensions(head, first, h),
    }
}

/// Walks IPv6 extension headers (RFC 8200 §4) to the transport layer.
#[cold]
fn extensions(head: &[u8], first: u8, h: &mut Headers) -> Option<()> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;

    let mut next = first;
    for _ in 0..MAX_EXTENSIONS {
        let len = match next {
            HOP_BY_HOP | DESTINATION => extension_len(head, h)?,
            // With segments left, the checksum's pseudo-header has another destination than the IP header: not for us.
            ROUTING if *head.get(h.l4 + 3)? == 0 => extension_len(head, h)?,
            FRAGMENT => {
                h.fragment = true;
                return None;
            }
            PROTO_TCP | PROTO_UDP => return transport(head, next, h),
            _ => return None,
        };
        next = *head.get(h.l4)?;
        h.l4 += len;
    }
    if matches!(next, PROTO_TCP | PROTO_UDP) { transport(head, next, h) } else { None }
}

fn extension_len(head: &[u8], h: &Headers) -> Option<usize> {
    let len = (usize::from(*head.get(h.l4 + 1)?) + 1) * 8;
    (h.l4 + len <= h.l3_end.min(head.len())).then_some(len)
}

#[inline(always)]
fn transport(head: &[u8], proto: u8, h: &mut Headers) -> Option<()> {
    let (found, len) = match proto {
        PROTO_TCP => (Transport::Tcp, usize::from(*head.get(h.l4 + 12)? >> 4) * 4),
        PROTO_UDP => (Transport::Udp, 8),
        _ => return None,
    };
    let payload = h.l4 + len;
    if payload > h.l3_end.min(head.len()) {
        return None;
    }
    let sound = match found {
        Transport::Tcp => len >= 20,
        _ => (8..=h.l3_end - h.l4).contains(&usize::from(word(head, h.l4 + 4)?)),
    };
    if sound {
        h.transport = found;
        h.payload = payload;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp4() -> Vec<u8> {
        let mut f = vec![0u8; 14 + 20 + 20 + 6];
        f[12..14].copy_from_slice(&[8, 0]);
        f[14] = 0x45;
        f[16..18].copy_from_slice(&46u16.to_be_bytes());
        f[23] = 6;
        f[46] = 0x50;
        f
    }

    #[test]
    fn finds_tcp_behind_ipv4() {
        let f = tcp4();
        let h = parse(&f, f.len());
        assert_eq!((h.l3, h.l4, h.payload, h.l3_end), (14, 34, 54, 60));
        assert_eq!((h.network, h.transport, h.tags), (Network::V4, Transport::Tcp, 0));
    }

    #[test]
    fn looks_behind_two_tags_and_no_more() {
        let mut f = tcp4();
        f.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
        let h = parse(&f, f.len());
        assert_eq!((h.tags, h.l3, h.transport), (2, 22, Transport::Tcp));
        f.splice(12..12, [0x81, 0, 0, 7]);
        let h = parse(&f, f.len());
        assert_eq!((h.tags, h.network), (2, Network::Unknown));
    }

    #[test]
    fn h14_headers_that_lie_are_unknown() {
        let unknown = |at: usize, byte: u8| {
            let mut f = tcp4();
            f[at] = byte;
            parse(&f, f.len()).transport == Transport::Unknown
        };
        assert!(unknown(14, 0x44), "ihl 4");
        assert!(unknown(14, 0x65), "version 6 in an IPv4 frame");
        assert!(unknown(14, 0x4f), "ihl beyond the packet");
        assert!(unknown(17, 47), "total length beyond the frame");
        assert!(unknown(17, 19), "total length below the header");
        assert!(unknown(17, 39), "TCP header beyond the packet");
        assert!(unknown(46, 0x40), "doff 4");
        assert!(unknown(46, 0xf0), "doff beyond the packet");
        assert!(unknown(20, 0x20), "more fragments");
        assert!(unknown(21, 1), "a later fragment");
    }

    fn with_extensions(count: usize) -> Vec<u8> {
        let mut f = vec![0u8; 54];
        f[12..14].copy_from_slice(&[0x86, 0xdd]);
        f[14] = 0x60;
        f[18..20].copy_from_slice(&(count as u16 * 8 + 20).to_be_bytes());
        f[20] = if count == 0 { 6 } else { 60 };
        for i in 0..count {
            f.extend_from_slice(&[if i + 1 == count { 6 } else { 60 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        f.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        f
    }

    #[test]
    fn h14_w06_eight_extension_headers_are_too_many() {
        for count in 0..10 {
            let f = with_extensions(count);
            let h = parse(&f, f.len());
            assert_eq!(h.transport == Transport::Tcp, count <= MAX_EXTENSIONS, "{count}");
        }
    }

    #[test]
    fn routing_with_segments_left_and_fragments_have_no_transport() {
        let mut f = with_extensions(1);
        f[20] = 43;
        assert_eq!(parse(&f, f.len()).transport, Transport::Tcp);
        f[57] = 1;
        assert_eq!(parse(&f, f.len()).transport, Transport::Unknown);
        f[20] = 44;
        let h = parse(&f, f.len());
        assert!(h.fragment && h.transport == Transport::Unknown);
    }

    #[test]
    fn every_truncation_is_survived() {
        for f in [tcp4(), with_extensions(3)] {
            for n in 0..f.len() {
                assert_eq!(
                    parse(&f[..n], n).network,
                    Network::Unknown,
                    "{n} bytes: the length contradicts the frame"
                );
                let _ = parse(&f[..n], f.len());
            }
        }
    }
}

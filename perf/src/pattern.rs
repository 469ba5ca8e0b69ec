//! What frames look like.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use mbuf::{Burst, Mempool, MempoolConfig};
use pmd::{Port, PortError, QueueEnv};
use vhost::driver::NetHdr;
use vhost::wire::net::{GSO_TCPV4, HDR_F_NEEDS_CSUM};

use crate::Span;
use crate::probe::Layout;

/// The shortest frame, without FCS.
pub const MIN_FRAME: usize = 60;
/// The longest.
pub const MAX_FRAME: usize = 9014;
/// Most different frames of a pattern.
pub const MAX_FRAMES: usize = 1 << 16;
/// First bytes of all addresses that pktgen makes up: locally administered.
pub const MAC_PREFIX: [u8; 3] = [0x02, 0x70, 0x67];
/// Simple IMIX: 7 of 64 bytes, 4 of 594, 1 of 1518 (with FCS), shuffled a little.
const IMIX: [usize; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590];

/// Bytes of the headers of what is to be segmented; TCP's with time stamps, as kernels send it.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 32;
/// Payload bytes of a segment: what these headers leave of an MTU of 1500.
const SEGMENT: u16 = 1448;
/// Whole segments that 65,535 bytes hold.
const SEGMENTS: usize = 45;
/// IPv4's numbers.
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Frames after which sizes between two bounds come again.
const VARIED: usize = 64;

/// The frames' sizes in bytes, without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All alike.
    Fixed(usize),
    /// Simple IMIX: 60, 590 and 1514 bytes, 7 : 4 : 1.
    Imix,
    /// From the first to the second, each as often as any other, in no order.
    Between(usize, usize),
    /// TCP of 64 KiB, as a guest's kernel hands it over to be segmented: 45 segments of 1448 bytes behind one header.
    Large,
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => return Ok(Self::Imix),
            "64k" => return Ok(Self::Large),
            _ => {}
        }
        let bytes = |text: &str| text.parse().ok().filter(|size| (MIN_FRAME..=MAX_FRAME).contains(size));
        let sizes = match text.split_once('-') {
            None => bytes(text).map(Self::Fixed),
            Some((least, most)) => bytes(least)
                .zip(bytes(most))
                .filter(|(least, most)| least < most)
                .map(|(least, most)| Self::Between(least, most)),
        };
        sizes.ok_or_else(|| {
            format!("give bytes without FCS, {MIN_FRAME} to {MAX_FRAME}, or LEAST-MOST, imix or 64k")
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Between(least, most) => write!(f, "{least}-{most}"),
            Self::Imix => f.write_str("imix"),
            Self::Large => f.write_str("64k"),
        }
    }
}

impl Sizes {
    /// Frame `i`'s.
    #[must_use]
    pub fn of(self, i: usize) -> usize {
        match self {
            Self::Fixed(size) => size,
            // The golden ratio's steps visit each part of the range equally often.
            Self::Between(least, most) => {
                least + (i % VARIED).wrapping_mul(0x9e37_79b9) % (1 << 32) * (most - least + 1) / (1 << 32)
            }
            Self::Imix => IMIX[i % IMIX.len()],
            Self::Large => ETHERNET + IPV4 + TCP + SEGMENTS * usize::from(SEGMENT),
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Imix => IMIX.len(),
            Self::Between(..) => VARIED,
            Self::Fixed(_) | Self::Large => 1,
        }
    }

    /// The mean.
    #[must_use]
    pub fn mean(self) -> f64 {
        (0..self.count()).map(|i| self.of(i) as f64).sum::<f64>() / self.count() as f64
    }
}

/// UDP over IPv4 over Ethernet (TCP, if it is to be segmented), with ranges over fields. Frame i takes the i-th value of each
/// range.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Sizes.
    pub sizes: Sizes,
    /// Stations on each side: 1 to 65,536 MAC addresses.
    pub macs: u32,
    /// VLAN identifiers; without, no tag.
    pub vlan: Option<Span>,
    /// IPv4 sources.
    pub src_ip: Span,
    /// IPv4 destinations.
    pub dst_ip: Span,
    /// UDP source ports.
    pub src_port: Span,
    /// UDP destination ports.
    pub dst_port: Span,
}

impl Default for Pattern {
    /// RFC 2544's test addresses (198.18.0.0/15) and the discard port.
    fn default() -> Self {
        Self {
            sizes: Sizes::Fixed(MIN_FRAME),
            macs: 1,
            vlan: None,
            src_ip: Span::one(0xc612_0001),
            dst_ip: Span::one(0xc613_0001),
            src_port: Span::one(1024),
            dst_port: Span::one(9),
        }
    }
}

/// Station `station` of endpoint `endpoint`.
#[must_use]
pub fn mac(endpoint: u8, station: u16) -> [u8; 6] {
    let ([a, b, c], [high, low]) = (MAC_PREFIX, station.to_be_bytes());
    [a, b, c, endpoint, high, low]
}

impl Pattern {
    /// Where the probe lies in each frame.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let transport = if self.sizes == Sizes::Large { TCP } else { 8 };
        Layout { at: self.network() + IPV4 + transport }
    }

    /// Where the network header starts.
    fn network(&self) -> usize {
        if self.vlan.is_some() { ETHERNET + 4 } else { ETHERNET }
    }

    /// What a guest says of each frame: nothing, unless it is to be segmented (virtio 1.3 §5.1.6.2).
    #[must_use]
    pub fn header(&self) -> NetHdr {
        if self.sizes != Sizes::Large {
            return NetHdr::default();
        }
        let transport = self.network() + IPV4;
        NetHdr {
            flags: HDR_F_NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: (transport + TCP) as u16,
            gso_size: SEGMENT,
            csum_start: transport as u16,
            csum_offset: 16,
            num_buffers: 0,
        }
    }

    /// How many different frames there are: as many as the longest range has values, [`MAX_FRAMES`] at most.
    #[must_use]
    pub fn count(&self) -> usize {
        let spans = [self.src_ip, self.dst_ip, self.src_port, self.dst_port];
        let spans = spans.iter().chain(self.vlan.as_ref()).map(Span::count);
        let longest = spans.chain([self.macs as usize, self.sizes.count()]).max().unwrap_or(1);
        longest.min(MAX_FRAMES)
    }

    /// All frames from endpoint `from` to endpoint `to`.
    #[must_use]
    pub fn frames(&self, from: u8, to: u8) -> Vec<Vec<u8>> {
        (0..self.count()).map(|i| self.frame(i, from, to)).collect()
    }

    /// Frame `i` from endpoint `from` to endpoint `to`.
    #[must_use]
    pub fn frame(&self, i: usize, from: u8, to: u8) -> Vec<u8> {
        let (size, station) = (self.sizes.of(i), (i % self.macs as usize) as u16);
        let mut frame = Vec::with_capacity(size);
        frame.extend(mac(to, station));
        frame.extend(mac(from, station));
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend((vlan.value(i) as u16).to_be_bytes());
        }
        frame.extend([0x08, 0x00]);
        let network = frame.len();
        self.push_ipv4(&mut frame, i, (size - network) as u16);
        if self.sizes == Sizes::Large {
            self.push_tcp(&mut frame, i, (size - network - IPV4) as u16);
        } else {
            self.push_udp(&mut frame, i, (size - network - IPV4) as u16);
        }
        let filler = frame.len()..size;
        frame.extend(filler.map(|at| (at as u8).wrapping_mul(31).wrapping_add(from)));
        frame
    }

    fn protocol(&self) -> u8 {
        if self.sizes == Sizes::Large { PROTOCOL_TCP } else { PROTOCOL_UDP }
    }

    fn push_ipv4(&self, frame: &mut Vec<u8>, i: usize, length: u16) {
        let start = frame.len();
        let [high, low] = length.to_be_bytes();
        // Version 4, five words; don't fragment; 64 hops.
        frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, self.protocol(), 0, 0]);
        frame.extend(self.src_ip.value(i).to_be_bytes());
        frame.extend(self.dst_ip.value(i).to_be_bytes());
        let checksum = !sum(&frame[start..]);
        frame[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn push_udp(&self, frame: &mut Vec<u8>, i: usize, length: u16) {
        for word in [self.src_port.value(i) as u16, self.dst_port.value(i) as u16, length, 0] {
            // A checksum of 0: none (RFC 768), since the probe changes with each frame.
            frame.extend(word.to_be_bytes());
        }
    }

    /// An ACK in the middle of a stream, with time stamps; its checksum is that of the pseudo-header alone, for whoever
    /// segments it to complete.
    fn push_tcp(&self, frame: &mut Vec<u8>, i: usize, length: u16) {
        let (src, dst) = (self.src_ip.value(i).to_be_bytes(), self.dst_ip.value(i).to_be_bytes());
        let [high, low] = length.to_be_bytes();
        let checksum = sum(&[&src[..], &dst, &[0, PROTOCOL_TCP, high, low]].concat());
        for port in [self.src_port, self.dst_port] {
            frame.extend((port.value(i) as u16).to_be_bytes());
        }
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        // Eight words, ACK, a window; checksum, no urgent data; two fillers and the time stamps' kind and length.
        frame.extend([0x80, 0x10, 0xff, 0xff]);
        frame.extend(checksum.to_be_bytes());
        frame.extend([0, 0, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    }
}

/// The sum of big-endian words of 16 bits in one's complement (RFC 1071); an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// The Ethernet frames of a capture, to be replayed as they are.
///
/// # Errors
/// [`PortError`] if the file cannot be read or holds none.
pub fn replay(file: &Path) -> Result<Vec<Vec<u8>>, PortError> {
    let mut port = pmd::vdev::pcap::PcapPort::new(&format!("rx={}", file.display()).parse()?)?;
    let pool = Mempool::new(&MempoolConfig { mbufs: 256, data_room: 9216, cache: 0, ..Default::default() })
        .map_err(|e| PortError::Spec(e.to_string()))?;
    let mut queues = port.open(QueueEnv { pool, port: 0 })?;
    let mut frames = Vec::new();
    loop {
        let mut burst = Burst::new();
        let came = queues.rx[0].rx_burst(&mut burst);
        frames.extend(burst.iter().map(|mbuf| {
            let mut bytes = vec![0; mbuf.len()];
            mbuf.copy_to(0, &mut bytes);
            bytes
        }));
        if came == 0 || frames.len() >= MAX_FRAMES {
            break;
        }
    }
    if frames.is_empty() {
        return Err(PortError::Spec(format!("{}: no Ethernet frame in it", file.display())));
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn frames_are_what_another_parser_reads() {
        let pattern = Pattern {
            sizes: Sizes::Imix,
            macs: 3,
            vlan: Some(Span::new(10, 12).unwrap()),
            src_ip: Span::addresses("10.1.0.255-10.1.1.3").unwrap(),
            dst_port: Span::ports("7-9").unwrap(),
            ..Pattern::default()
        };
        let frames = pattern.frames(4, 5);
        assert_eq!(frames.len(), 12);
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.len(), IMIX[i]);
            let parsed = SlicedPacket::from_ethernet(frame).unwrap();
            assert_eq!(frame[..6], mac(5, (i % 3) as u16));
            assert_eq!(frame[6..12], mac(4, (i % 3) as u16));
            assert_eq!(parsed.vlan_ids()[0].value(), 10 + (i % 3) as u16);
            let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("IPv4") };
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            assert_eq!(u32::from(ip.header().source_addr()), 0x0a01_00ff + (i % 5) as u32);
            let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!("UDP") };
            assert_eq!((udp.source_port(), udp.destination_port()), (1024, 7 + (i % 3) as u16));
            assert_eq!(usize::from(udp.length()), frame.len() - 38);
        }
    }

    #[test]
    fn imix_has_its_mean() {
        assert!((Sizes::Imix.mean() - (7.0 * 60.0 + 4.0 * 590.0 + 1514.0) / 12.0).abs() < 1e-9);
        assert_eq!("imix".parse(), Ok(Sizes::Imix));
        assert!(
            "64K".parse::<Sizes>().is_err()
                && "59".parse::<Sizes>().is_err()
                && "9015".parse::<Sizes>().is_err()
        );
    }

    #[test]
    fn what_is_to_be_segmented_is_whole_segments_of_tcp_and_says_so() {
        for vlan in [None, Some(Span::one(7))] {
            let pattern = Pattern { sizes: "64k".parse().unwrap(), vlan, ..Pattern::default() };
            let (frame, header) = (pattern.frame(0, 0, 1), pattern.header());
            assert_eq!(frame.len(), 65_226);
            let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("TCP") };
            let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("IPv4") };
            let start = usize::from(header.csum_start);
            assert_eq!(usize::from(header.hdr_len), frame.len() - tcp.payload().len());
            assert_eq!(pattern.layout().at, usize::from(header.hdr_len));
            assert_eq!(
                tcp.payload().len(),
                45 * usize::from(header.gso_size) - if vlan.is_some() { 4 } else { 0 }
            );
            // Completed as a device would: the sum over header and payload, into its place.
            let mut whole = frame.clone();
            let checksum = !sum(&frame[start..]);
            whole[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
            let right = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap();
            assert_eq!((checksum, header.csum_offset, header.flags), (right, 16, 1));
        }
        assert_eq!(Pattern::default().header(), NetHdr::default());
    }
}

//! Frames of every shape, made by etherparse.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, TcpHeader, VlanHeader, VlanId,
};
use mbuf::{Mbuf, Mempool, MempoolConfig};
use proptest::prelude::*;

/// What a frame is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) tags: u8,
    /// TCP options, in words of 4 bytes.
    pub(crate) options: usize,
    pub(crate) payload: usize,
    pub(crate) seq: u32,
    pub(crate) id: u16,
}

impl Shape {
    pub(crate) const TCP4: Self =
        Self { v6: false, udp: false, tags: 0, options: 0, payload: 100, seq: 1, id: 1 };

    pub(crate) fn l3(&self) -> usize {
        14 + 4 * usize::from(self.tags)
    }

    pub(crate) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn headers(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 + 4 * self.options }
    }

    /// Where the checksum stands, from the transport header's start.
    pub(crate) fn checksum_offset(&self) -> u16 {
        if self.udp { 6 } else { 16 }
    }

    /// The frame, with all checksums right. Its payload counts up.
    pub(crate) fn build(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.payload).map(|i| (i * 7 + i / 251) as u8).collect();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let tagged = match self.tags {
            0 => builder.ip(self.ip()),
            1 => builder.vlan(VlanHeader::Single(single(5))).ip(self.ip()),
            _ => builder.double_vlan(VlanId::try_new(5).unwrap(), VlanId::try_new(6).unwrap()).ip(self.ip()),
        };
        let mut frame = Vec::new();
        if self.udp {
            tagged.udp(1000, 2000).write(&mut frame, &payload).unwrap();
        } else {
            tagged.tcp_header(self.tcp()).write(&mut frame, &payload).unwrap();
        }
        frame
    }

    fn ip(&self) -> IpHeaders {
        if self.v6 {
            let header = Ipv6Header {
                hop_limit: 64,
                source: [0x20; 16],
                destination: [0x21; 16],
                ..Default::default()
            };
            return IpHeaders::Ipv6(header, Default::default());
        }
        let header = Ipv4Header {
            identification: self.id,
            time_to_live: 64,
            fragment_offset: IpFragOffset::ZERO,
            protocol: IpNumber::TCP,
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            ..Default::default()
        };
        IpHeaders::Ipv4(header, Default::default())
    }

    fn tcp(&self) -> TcpHeader {
        let mut tcp = TcpHeader::new(1000, 2000, self.seq, 512);
        (tcp.ack, tcp.psh, tcp.fin, tcp.cwr) = (true, true, true, true);
        tcp.set_options_raw(&vec![1; self.options * 4]).unwrap();
        tcp
    }

    /// The frame as a sender leaves it that has its checksum done by the device: the pseudo-header's sum in its place.
    pub(crate) fn build_partial(&self) -> Vec<u8> {
        let mut frame = self.build();
        let at = self.l4() + usize::from(self.checksum_offset());
        let addresses = if self.v6 { self.l3() + 8..self.l4() } else { self.l3() + 12..self.l4() };
        let length = frame.len() - self.l4();
        let mut sum: u64 = if self.udp { 17 } else { 6 } + length as u64;
        sum += frame[addresses].chunks(2).map(|p| u64::from(u16::from_be_bytes([p[0], p[1]]))).sum::<u64>();
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        frame[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        frame
    }
}

fn single(id: u16) -> etherparse::SingleVlanHeader {
    etherparse::SingleVlanHeader { vlan_id: VlanId::try_new(id).unwrap(), ..Default::default() }
}

/// Any shape with a payload of up to `most` bytes.
pub(crate) fn shapes(most: usize) -> impl Strategy<Value = Shape> {
    (any::<bool>(), any::<bool>(), 0..3u8, 0..11usize, 0..=most, any::<u32>(), any::<u16>()).prop_map(
        |(v6, udp, tags, options, payload, seq, id)| Shape { v6, udp, tags, options, payload, seq, id },
    )
}

/// A pool whose mbufs hold `data_room` bytes.
pub(crate) fn pool(mbufs: usize, data_room: usize) -> &'static Mempool {
    Mempool::new(&MempoolConfig { mbufs, data_room, cache: 0, ..MempoolConfig::default() }).unwrap()
}

/// A packet of `bytes`, in as many pieces as the sizes in `pieces` and the pool's mbufs make it.
pub(crate) fn packet(pool: &'static Mempool, bytes: &[u8], pieces: &[usize]) -> Mbuf<'static> {
    let mut sizes = pieces.iter().copied();
    let mut packet: Option<Mbuf<'static>> = None;
    let mut left = bytes;
    while !left.is_empty() {
        let mut piece = pool.alloc(3).unwrap();
        let want = sizes.next().unwrap_or(usize::MAX).clamp(1, piece.tailroom());
        let (now, later) = left.split_at(left.len().min(want));
        piece.append(now.len()).unwrap().copy_from_slice(now);
        left = later;
        match &mut packet {
            None => packet = Some(piece),
            Some(p) => p.chain(piece).unwrap(),
        }
    }
    packet.unwrap()
}

/// All its bytes.
pub(crate) fn bytes(packet: &Mbuf<'_>) -> Vec<u8> {
    let mut all = vec![0; packet.len()];
    assert_eq!(packet.copy_to(0, &mut all), all.len());
    all
}

//! What forwarding a packet costs, in bytes: cheap to tell before it is done, and the same each time.

use mbuf::{Burst, GsoKind, Mbuf};

/// What a packet or a segment costs beside its bytes: as much as to copy so many.
const PACKET: usize = 256;
/// What is forwarded in one go: others are looked at in between. The longest packet, or 32 of 1,792 bytes.
const PIECE: usize = 64 << 10;
/// A burst without a packet of this length, and without one that may have to be cut, is one piece.
const LONG: usize = 2048;
const _: () = assert!(LONG.is_power_of_two() && mbuf::MAX_BURST * LONG <= PIECE);

/// Of one packet that is sent to one port.
pub(crate) fn weight(mbuf: &Mbuf<'_>) -> usize {
    let offload = mbuf.offload();
    let segments = match offload.gso {
        GsoKind::None => 0,
        _ => mbuf.len() / usize::from(offload.gso_size).max(1),
    };
    mbuf.len() + (1 + segments) * PACKET
}

/// Of all packets of a burst.
pub(crate) fn weight_of(burst: &Burst<'_>) -> u64 {
    burst.iter().map(|mbuf| weight(mbuf) as u64).sum()
}

/// Sums up what tells light bursts from heavy ones, in two instructions a packet.
#[derive(Default)]
pub(crate) struct Scale {
    /// All lengths, and all kinds of segmentation, each or-ed.
    lens: u32,
    gso: u8,
}

impl Scale {
    #[inline(always)]
    pub(crate) fn add(&mut self, mbuf: &Mbuf<'_>) {
        self.lens |= mbuf.len() as u32;
        self.gso |= mbuf.offload().gso as u8;
    }

    /// With one packet more.
    pub(crate) fn with(mut self, mbuf: &Mbuf<'_>) -> Self {
        self.add(mbuf);
        self
    }

    /// Whether it may weigh more than one piece.
    #[inline(always)]
    pub(crate) fn is_heavy(&self) -> bool {
        self.lens >= LONG as u32 || self.gso != GsoKind::None as u8
    }
}

/// Collects packets up to one piece.
#[derive(Default)]
pub(crate) struct Piece<'t> {
    pub(crate) burst: Burst<'t>,
    pub(crate) weight: usize,
}

impl<'t> Piece<'t> {
    /// Whether a packet is one too many for it.
    pub(crate) fn is_full_for(&self, mbuf: &Mbuf<'t>) -> bool {
        !self.burst.is_empty() && self.weight + weight(mbuf) > PIECE
    }

    pub(crate) fn push(&mut self, mbuf: Mbuf<'t>) {
        self.weight += weight(&mbuf);
        let pushed = self.burst.push(mbuf);
        debug_assert!(pushed.is_ok(), "a piece has at most the packets of its burst");
    }
}

#[cfg(test)]
mod tests {
    use mbuf::{Mempool, MempoolConfig, PageSize, ZoneConfig};

    use super::*;

    fn packet(len: usize, gso_size: u16) -> Mbuf<'static> {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 1, data_room: 9000, cache: 0, zone };
        let mut packet = Mempool::new(&config).unwrap().alloc(0).unwrap();
        packet.append(len).unwrap();
        let mut offload = *packet.offload();
        if gso_size != 0 {
            (offload.gso, offload.gso_size) = (GsoKind::UdpL4, gso_size);
        }
        packet.set_offload(offload);
        packet
    }

    #[test]
    fn segments_weigh_as_packets_do() {
        assert_eq!(weight(&packet(60, 0)), 60 + 256);
        assert_eq!(weight(&packet(1000, 10)), 1000 + 101 * 256);
    }

    #[test]
    fn long_packets_and_those_to_be_cut_are_heavy() {
        let is_heavy = |mbuf: &Mbuf<'_>| {
            let mut scale = Scale::default();
            scale.add(mbuf);
            scale.is_heavy()
        };
        assert!(!is_heavy(&packet(2047, 0)) && is_heavy(&packet(2048, 0)));
        assert!(is_heavy(&packet(100, 1)));
    }
}

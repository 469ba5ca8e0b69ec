//! What a peer may ask for, or can take.

use core::fmt;
use core::ops::BitOr;

use mbuf::{Checksum, GsoKind, Offload};

/// Offloads that a peer negotiated: as a sender, what it may ask for; as a receiver, what may be passed on to it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct OffloadSet(u8);

impl OffloadSet {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// Checksums left partial (VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM). All the others need it.
    pub const CSUM: Self = Self(1);
    /// TCP segmentation over IPv4.
    pub const TSO4: Self = Self(1 << 1);
    /// TCP segmentation over IPv6.
    pub const TSO6: Self = Self(1 << 2);
    /// UDP segmentation, over IPv4 and IPv6.
    pub const USO: Self = Self(1 << 3);
    /// TCP segmentation of packets with ECN's CWR flag.
    pub const ECN: Self = Self(1 << 4);
    /// A sender whose word on a checksum counts: the kernel's, never a guest's (virtio 1.3 §5.1.6.2 forbids drivers to
    /// set DATA_VALID). Nothing to a receiver.
    pub const DATA_VALID: Self = Self(1 << 5);
    /// All that a packet can ask for.
    pub const ALL: Self = Self(0x1f);

    /// Both sets' members.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a packet asks for.
    #[inline]
    #[must_use]
    pub fn needed_by(offload: &Offload) -> Self {
        let csum = if offload.checksum == Checksum::Partial { Self::CSUM } else { Self::NONE };
        let gso = match offload.gso {
            GsoKind::None => return csum,
            GsoKind::TcpV4 => Self::TSO4,
            GsoKind::TcpV6 => Self::TSO6,
            GsoKind::UdpL4 => Self::USO,
        };
        let ecn = if offload.gso_ecn { Self::ECN } else { Self::NONE };
        csum.union(gso).union(ecn)
    }

    /// Whether a receiver that accepts this set can take the packet as it is.
    #[inline]
    #[must_use]
    pub fn covers(self, offload: &Offload) -> bool {
        offload.is_blank() || offload.is_none() || self.contains(Self::needed_by(offload))
    }
}

/// Their names: `csum tso4 tso6`, or `none`.
impl fmt::Display for OffloadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(OffloadSet, &str); 6] = [
            (OffloadSet::CSUM, "csum"),
            (OffloadSet::TSO4, "tso4"),
            (OffloadSet::TSO6, "tso6"),
            (OffloadSet::USO, "uso"),
            (OffloadSet::ECN, "ecn"),
            (OffloadSet::DATA_VALID, "data_valid"),
        ];
        let names: Vec<_> =
            NAMES.iter().filter(|(set, _)| self.contains(*set)).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for OffloadSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OffloadSet({self})")
    }
}

impl BitOr for OffloadSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_asks_for_each_member() {
        let mut o = Offload::NONE;
        assert!(OffloadSet::NONE.covers(&o));
        o.checksum = Checksum::Valid;
        assert!(OffloadSet::NONE.covers(&o), "a valid checksum asks for nothing");
        o.checksum = Checksum::Partial;
        assert!(!OffloadSet::NONE.covers(&o) && OffloadSet::CSUM.covers(&o));
        o.gso = GsoKind::TcpV6;
        assert!(!(OffloadSet::CSUM | OffloadSet::TSO4).covers(&o));
        assert!((OffloadSet::CSUM | OffloadSet::TSO6).covers(&o));
        o.gso_ecn = true;
        assert!(!(OffloadSet::CSUM | OffloadSet::TSO6).covers(&o));
        assert!(OffloadSet::ALL.covers(&o));
    }

    #[test]
    fn names_what_is_in_it() {
        assert_eq!(OffloadSet::NONE.to_string(), "none");
        assert_eq!((OffloadSet::CSUM | OffloadSet::TSO6).to_string(), "csum tso6");
        assert_eq!(OffloadSet::ALL.to_string(), "csum tso4 tso6 uso ecn");
    }
}

//! Feature bits (virtio 1.3 §6, §5.1.3), and which of them we take.

use core::fmt;

use crate::offload::OffloadSet;

/// A set of feature bits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features(pub(super) u64);

macro_rules! features {
    ($($name:ident = $bit:literal, $word:literal;)*) => {
        impl Features {
            $(pub(super) const $name: Self = Self(1 << $bit);)*
            /// All that we know, with the names that people read.
            const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, $word),)*];
        }
    };
}

features! {
    CSUM = 0, "csum";
    GUEST_CSUM = 1, "guest_csum";
    MTU = 3, "mtu";
    MAC = 5, "mac";
    GUEST_TSO4 = 7, "guest_tso4";
    GUEST_TSO6 = 8, "guest_tso6";
    GUEST_ECN = 9, "guest_ecn";
    HOST_TSO4 = 11, "host_tso4";
    HOST_TSO6 = 12, "host_tso6";
    HOST_ECN = 13, "host_ecn";
    MRG_RXBUF = 15, "mrg_rxbuf";
    STATUS = 16, "status";
    CTRL_VQ = 17, "ctrl_vq";
    CTRL_RX = 18, "ctrl_rx";
    MQ = 22, "mq";
    EVENT_IDX = 29, "event_idx";
    VERSION_1 = 32, "version_1";
    ACCESS_PLATFORM = 33, "access_platform";
    RING_PACKED = 34, "ring_packed";
    IN_ORDER = 35, "in_order";
    ORDER_PLATFORM = 36, "order_platform";
    GUEST_USO4 = 54, "guest_uso4";
    GUEST_USO6 = 55, "guest_uso6";
    HOST_USO = 56, "host_uso";
}

/// What a feature is nothing without: the standard's dependencies (§5.1.3.1), and ours: a segment that may reach 64 KiB is
/// only received into several buffers. In an order in which one pass does.
const NEEDS: [(Features, Features); 12] = [
    (Features::GUEST_TSO4, Features::GUEST_CSUM.and(Features::MRG_RXBUF)),
    (Features::GUEST_TSO6, Features::GUEST_CSUM.and(Features::MRG_RXBUF)),
    (Features::GUEST_USO4, Features::GUEST_CSUM.and(Features::MRG_RXBUF).and(Features::GUEST_USO6)),
    (Features::GUEST_USO6, Features::GUEST_USO4),
    (Features::HOST_TSO4, Features::CSUM),
    (Features::HOST_TSO6, Features::CSUM),
    (Features::HOST_USO, Features::CSUM),
    // Of two TSOs one would do; we know ECN of both or of none.
    (Features::GUEST_ECN, Features::GUEST_TSO4.and(Features::GUEST_TSO6)),
    (Features::HOST_ECN, Features::HOST_TSO4.and(Features::HOST_TSO6)),
    (Features::CTRL_RX, Features::CTRL_VQ),
    (Features::MQ, Features::CTRL_VQ),
    (Features::RING_PACKED, Features::VERSION_1),
];

impl Features {
    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without `other`.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What we take of what a device offers. Not taken: CTRL_VLAN, which makes a device filter tags, and all that we do not
    /// know.
    pub(super) fn chosen_from(offered: Self) -> Self {
        let known = Self::NAMED.iter().fold(0, |bits, (feature, _)| bits | feature.0);
        let mut chosen = Self(offered.0 & known);
        for (feature, needed) in NEEDS {
            if chosen.has(feature) && !chosen.has(needed) {
                chosen = chosen.without(feature);
            }
        }
        chosen
    }

    /// What packets from the device may ask for. Its word on a checksum counts.
    pub(super) fn received(self) -> OffloadSet {
        let tsos = (self.has(Self::GUEST_TSO4), self.has(Self::GUEST_TSO6));
        let set = self.set(Self::GUEST_CSUM, tsos, Self::GUEST_USO4, Self::GUEST_ECN);
        if self.has(Self::GUEST_CSUM) { set | OffloadSet::DATA_VALID } else { set }
    }

    /// What packets to the device may ask for.
    pub(super) fn sent(self) -> OffloadSet {
        let tsos = (self.has(Self::HOST_TSO4), self.has(Self::HOST_TSO6));
        self.set(Self::CSUM, tsos, Self::HOST_USO, Self::HOST_ECN)
    }

    fn set(self, csum: Self, (tso4, tso6): (bool, bool), uso: Self, ecn: Self) -> OffloadSet {
        [
            (self.has(csum), OffloadSet::CSUM),
            (tso4, OffloadSet::TSO4),
            (tso6, OffloadSet::TSO6),
            (self.has(uso), OffloadSet::USO),
            (self.has(ecn), OffloadSet::ECN),
        ]
        .into_iter()
        .filter(|(is_in, _)| *is_in)
        .fold(OffloadSet::NONE, |set, (_, one)| set | one)
    }
}

/// The names of the features in it.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Self::NAMED.iter().filter(|(one, _)| self.has(*one)).map(|(_, n)| *n).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x}: {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_it_knows_and_no_feature_without_what_it_needs() {
        let all = Features::chosen_from(Features(u64::MAX));
        assert_eq!(all.received(), OffloadSet::ALL | OffloadSet::DATA_VALID);
        assert_eq!(all.sent(), OffloadSet::ALL);
        assert!(!all.has(Features(1 << 19)), "CTRL_VLAN filters");
        assert!(!all.has(Features(1 << 38)), "NOTIFICATION_DATA changes doorbells");

        let without = |gone: Features| Features::chosen_from(Features(u64::MAX).without(gone));
        assert_eq!(without(Features::CSUM).sent(), OffloadSet::NONE);
        assert_eq!(without(Features::MRG_RXBUF).received(), OffloadSet::CSUM | OffloadSet::DATA_VALID);
        assert_eq!(without(Features::GUEST_CSUM).received(), OffloadSet::NONE);
        assert!(
            !without(Features::CTRL_VQ).has(Features::MQ)
                && !without(Features::CTRL_VQ).has(Features::CTRL_RX)
        );
        for half in [Features::GUEST_USO4, Features::GUEST_USO6] {
            assert!(!without(half).received().contains(OffloadSet::USO), "one of two");
        }
        assert!(!without(Features::HOST_TSO6).sent().contains(OffloadSet::ECN));
    }

    #[test]
    fn says_what_is_in_it() {
        assert_eq!((Features::CSUM.and(Features::RING_PACKED)).to_string(), "csum ring_packed");
    }
}

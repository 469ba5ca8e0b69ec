//! Settings of a guest's card.

use crate::guest::Guest;

/// Checksum and segmentation offloads, as ethtool sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offloads {
    On,
    Off,
}

impl Offloads {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

pub(crate) fn set_mtu((a, b): (&mut Guest, &mut Guest), mtu: u16) {
    for guest in [a, b] {
        guest.sh(&format!("ip link set eth0 mtu {mtu}"));
    }
}

pub(crate) fn use_queue_pairs(guest: &mut Guest, pairs: u16) {
    guest.sh(&format!("ethtool -L eth0 combined {pairs}"));
    let shown = guest.sh("ethtool -l eth0 | tail -n 2");
    assert!(shown.contains(&format!("Combined:\t{pairs}")), "queue pairs in use: {shown}");
}

pub(crate) fn set_offloads(guest: &mut Guest, offloads: Offloads) {
    let word = offloads.word();
    guest.sh(&format!("ethtool -K eth0 tx {word} sg {word} tso {word} gso {word} gro {word}"));
    assert_offloads(guest, "eth0", offloads);
}

/// What the card's driver does and leaves to the card.
pub(crate) fn assert_offloads(guest: &mut Guest, card: &str, offloads: Offloads) {
    let word = offloads.word();
    let shown = guest.sh(&format!("ethtool -k {card}"));
    for feature in ["tx-checksumming", "tcp-segmentation-offload"] {
        assert!(shown.contains(&format!("{feature}: {word}")), "{feature} is not {word}: {shown}");
    }
}

//! Which card is what: a short table of those that this field uses, then the system's list of all.

use pmd::bus::PciIds;

use super::Machine;

/// A driver of Polder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// Virtual functions of Intel's 82576 and I350.
    Igbvf,
    /// virtio-net with the modern interface.
    VirtioPci,
}

impl Driver {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Igbvf => "igbvf",
            Self::VirtioPci => "virtio_pci",
        }
    }
}

/// virtio-net as it was before virtio 1.0, with or without the modern interface beside (virtio 1.3 §4.1.2.3).
pub(crate) const TRANSITIONAL: (u16, u16) = (0x1af4, 0x1000);

/// Vendor, device, name.
type Known = (u16, u16, &'static str);

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    (0x8086, 0x10c9, "Intel 82576"),
    (0x8086, 0x10ca, "Intel 82576 VF"),
    (0x8086, 0x10d3, "Intel 82574L"),
    (0x8086, 0x1520, "Intel I350 VF"),
    (0x8086, 0x1521, "Intel I350"),
    (0x8086, 0x1522, "Intel I350 fiber"),
    (0x8086, 0x1523, "Intel I350 backplane"),
    (0x8086, 0x10ed, "Intel 82599 VF"),
    (0x8086, 0x10fb, "Intel 82599 SFP+"),
    (0x8086, 0x1515, "Intel X540 VF"),
    (0x8086, 0x1533, "Intel I210"),
    (0x8086, 0x154c, "Intel X710 VF"),
    (0x8086, 0x1572, "Intel X710 SFP+"),
    (0x8086, 0x1592, "Intel E810-C"),
    (0x8086, 0x1593, "Intel E810-XXV"),
    (0x8086, 0x1889, "Intel adaptive VF"),
    (0x8086, 0x100e, "Intel 82540EM"),
    (0x15b3, 0x1015, "Mellanox ConnectX-4 Lx"),
    (0x15b3, 0x1016, "Mellanox ConnectX-4 Lx VF"),
    (0x15b3, 0x1017, "Mellanox ConnectX-5"),
    (0x15b3, 0x1018, "Mellanox ConnectX-5 VF"),
    (0x15b3, 0x101e, "Mellanox ConnectX VF"),
    (0x15ad, 0x07b0, "VMware vmxnet3"),
    (0x1af4, 0x1000, "virtio-net, transitional"),
    (0x1af4, 0x1041, "virtio-net"),
    (0x1d0f, 0xec20, "Amazon ENA"),
];

fn known(vendor: u16, device: u16) -> Option<&'static Known> {
    KNOWN.iter().find(|k| (k.0, k.1) == (vendor, device))
}

/// The driver of Polder's that would take a card with these IDs.
pub(crate) fn driver_for(ids: &PciIds) -> Option<Driver> {
    let (igbvf, virtio) = (pmd::igbvf::matches(ids), pmd::virtio_pci::matches(ids));
    igbvf.then_some(Driver::Igbvf).or(virtio.then_some(Driver::VirtioPci))
}

/// The names of cards.
pub(crate) struct Names {
    /// The system's list (<https://pci-ids.ucw.cz>), if it has one.
    list: Option<String>,
}

impl Names {
    pub(crate) fn of(machine: &Machine) -> Self {
        let places = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];
        Self { list: places.iter().find_map(|place| machine.text(place)) }
    }

    /// What a card is called; its IDs if nobody knows.
    pub(crate) fn name(&self, ids: &PciIds) -> String {
        if let Some(known) = known(ids.vendor, ids.device) {
            return known.2.to_owned();
        }
        let listed = self.list.as_deref().and_then(|list| listed(list, ids.vendor, ids.device));
        listed.map_or_else(|| format!("{:04x}:{:04x}", ids.vendor, ids.device), str::to_owned)
    }
}

/// A device's name in the list: a vendor's line begins with its ID, its devices' lines below with a tab and theirs, and
/// subsystems' lines with two tabs.
fn listed(list: &str, vendor: u16, device: u16) -> Option<&str> {
    let (vendor, device) = (format!("{vendor:04x}  "), format!("\t{device:04x}  "));
    let below = list.lines().skip_while(|line| !line.starts_with(&vendor)).skip(1);
    let mut devices = below.take_while(|line| line.starts_with(['\t', '#']) || line.is_empty());
    devices.find_map(|line| line.strip_prefix(&device)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n\
        8085  Other\n\t10ca  Wrong\n\
        8086  Intel Corporation\n\t1000  First\n\t\t8086 10cb  A subsystem\n\t10cb  The one \n\
        8087  Next\n\t10cc  Not this\n";

    #[test]
    fn a_device_is_found_below_its_vendor() {
        assert_eq!(listed(LIST, 0x8086, 0x10cb), Some("The one"));
        assert_eq!(listed(LIST, 0x8086, 0x10cc), None);
        assert_eq!(listed(LIST, 0x1234, 0x10cb), None);
    }

    #[test]
    fn the_table_goes_first_and_ids_last() {
        let names = Names { list: Some(LIST.to_owned()) };
        let name = |vendor, device| names.name(&PciIds { vendor, device, ..PciIds::default() });
        assert_eq!(name(0x8086, 0x10ca), "Intel 82576 VF");
        assert_eq!(name(0x8086, 0x1000), "First");
        assert_eq!(name(0x8086, 0xbeef), "8086:beef");
    }

    #[test]
    fn cards_that_are_driven_have_names() {
        let names = Names { list: None };
        for (vendor, device, driver) in [
            (0x8086, 0x10ca, Driver::Igbvf),
            (0x8086, 0x1520, Driver::Igbvf),
            (0x1af4, 0x1041, Driver::VirtioPci),
            (0x1af4, 0x1000, Driver::VirtioPci),
        ] {
            let ids = PciIds { vendor, device, ..PciIds::default() };
            assert_eq!(driver_for(&ids), Some(driver));
            assert!(!names.name(&ids).contains(&format!("{device:04x}")), "{vendor:04x}:{device:04x}");
        }
        assert_eq!(driver_for(&PciIds { vendor: 0x8086, device: 0x10c9, ..PciIds::default() }), None);
    }

    #[test]
    fn no_card_is_in_the_table_twice() {
        for (n, a) in KNOWN.iter().enumerate() {
            assert!(KNOWN[n + 1..].iter().all(|b| (a.0, a.1) != (b.0, b.1)), "{a:?}");
        }
    }
}

//! What the library reads off a tree.

use pmd::bus::PciIds;
use pmd::bus::pci::{Bdf, PciError, Resource, Sriov, Sysfs};

use crate::tree::{Tree, put};

fn bdf(text: &str) -> Bdf {
    text.parse().expect("an address")
}

/// An 82576 with two VFs, the first with vfio-pci, alone in its group.
fn machine() -> Tree {
    let tree = Tree::new().drivers(&["igb", "igbvf", "vfio-pci"]);
    let pf = tree.card("0000:01:00.0", "8086:10c9");
    pf.driven_by("igb").group(4).interface("enp1s0", true).sriov(7, "10ca").file("numa_node", "1");
    let first = pf.add_vf(0, "0000:01:10.0", "8086:10ca");
    first.group(5).driven_by("igbvf").drive(Some("vfio-pci")).file("driver_override", "vfio-pci");
    pf.add_vf(1, "0000:01:10.2", "8086:10ca").group(6).driven_by("igbvf").interface("enp1s0v1", false);
    tree
}

#[test]
fn functions_come_in_the_order_of_the_bus() {
    let tree = machine();
    tree.card("10000:00:00.0", "8086:0000");
    let found = Sysfs::at(tree.sys()).functions().expect("the list");
    let names: Vec<_> = found.iter().map(|f| f.bdf().to_string()).collect();
    assert_eq!(names, ["0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "10000:00:00.0"]);
}

#[test]
fn a_machine_without_pci_has_none() {
    let empty = tempfile::tempdir().expect("a folder");
    let sysfs = Sysfs::at(empty.path());
    assert_eq!(sysfs.functions().expect("an empty list"), []);
    assert!(!sysfs.has_iommu() && !sysfs.has_driver("vfio-pci") && !sysfs.has_module("vfio"));
    assert!(matches!(sysfs.function(bdf("01:00.0")), Err(PciError::NoSuchFunction(_))));
}

#[test]
fn a_pf_tells_of_itself_and_its_vfs() {
    let tree = machine();
    let pf = Sysfs::at(tree.sys()).function(bdf("01:00.0")).expect("the PF");
    let ids =
        PciIds { vendor: 0x8086, device: 0x10c9, subsystem_vendor: 0x1af4, subsystem: 0x1100, revision: 1 };
    assert_eq!(pf.ids().expect("IDs"), ids);
    let class = pf.class().expect("a class");
    assert!(class.is_network() && !class.is_bridge() && class.code() == 0x02_0000);
    assert_eq!((pf.driver().as_deref(), pf.numa_node(), pf.driver_override()), (Some("igb"), Some(1), None));
    assert_eq!(pf.sriov(), Some(Sriov { most: 7, now: 2, vf_device: Some(0x10ca) }));
    assert_eq!(pf.virtfns().expect("VFs"), [bdf("01:10.0"), bdf("01:10.2")]);
    assert_eq!((pf.physfn(), pf.vf_number()), (None, None));
    let interfaces = pf.interfaces().expect("interfaces");
    let [one] = interfaces.as_slice() else { panic!("{interfaces:?}") };
    assert_eq!(
        (one.name.as_str(), one.up, one.carrier, one.speed_mbps),
        ("enp1s0", true, Some(true), Some(1000))
    );
    assert_eq!(one.mac.as_deref(), Some("52:54:00:00:00:01"));
}

#[test]
fn a_vf_tells_of_its_pf() {
    let tree = machine();
    let sysfs = Sysfs::at(tree.sys());
    let vf = sysfs.function(bdf("01:10.2")).expect("the VF");
    assert_eq!((vf.physfn(), vf.vf_number()), (Some(bdf("01:00.0")), Some(1)));
    assert_eq!((vf.numa_node(), vf.sriov()), (None, None));
    let interface = vf.interfaces().expect("interfaces").remove(0);
    assert_eq!((interface.up, interface.carrier, interface.speed_mbps), (false, None, None));
    let first = sysfs.function(bdf("01:10.0")).expect("the VF");
    assert_eq!(first.driver_override().as_deref(), Some("vfio-pci"));
}

#[test]
fn a_virtio_interface_hangs_a_level_deeper() {
    let tree = Tree::new();
    tree.card("0000:00:03.0", "1af4:1041").interface_at("virtio2/net/eth0", true);
    let nic = Sysfs::at(tree.sys()).function(bdf("00:03.0")).expect("the NIC");
    assert_eq!(nic.interfaces().expect("interfaces")[0].name, "eth0");
}

#[test]
fn a_group_names_who_is_in_the_way() {
    let tree = machine();
    tree.card("0000:02:00.0", "8086:10ca").group(9).drive(Some("vfio-pci"));
    tree.card("0000:02:00.1", "8086:10d3").group(9).driven_by("e1000e");
    tree.card("0000:02:00.2", "8086:3420").group(9).driven_by("pcieport");
    tree.card("0000:02:00.3", "8086:10ca").group(9);
    let sysfs = Sysfs::at(tree.sys());
    let group = sysfs.function(bdf("02:00.0")).unwrap().iommu_group().unwrap().expect("a group");
    assert_eq!((group.number, group.members.len()), (9, 4));
    assert_eq!(group.others(bdf("02:00.0")).count(), 3);
    let blamed: Vec<_> = group.in_the_way(bdf("02:00.0")).map(|m| (m.bdf, m.driver.clone())).collect();
    assert_eq!(blamed, [(bdf("02:00.1"), Some("e1000e".to_owned()))]);
    assert!(sysfs.has_iommu());
    tree.card("0000:03:00.0", "8086:10ca");
    assert_eq!(sysfs.function(bdf("03:00.0")).unwrap().iommu_group().expect("no error"), None);
}

#[test]
fn bars_have_sizes() {
    let tree = machine();
    let table = "0x00000000fe800000 0x00000000fe803fff 0x0000000000140204\n\
                 0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                 0x000000000000e000 0x000000000000e01f 0x0000000000040101\n";
    tree.card("0000:04:00.0", "8086:10ca").file("resource", table);
    let nic = Sysfs::at(tree.sys()).function(bdf("04:00.0")).expect("the NIC");
    let wanted = [
        Resource { bar: 0, start: 0xfe80_0000, bytes: 0x4000, memory: true },
        Resource { bar: 2, start: 0xe000, bytes: 32, memory: false },
    ];
    assert_eq!(nic.resources().expect("BARs"), wanted);
    put(&nic.path(""), "resource", "what is this\n");
    assert!(matches!(nic.resources(), Err(PciError::Contents { .. })));
}

#[test]
fn nonsense_in_a_file_is_named() {
    let tree = machine();
    let card = tree.card("0000:04:00.0", "8086:10ca");
    card.file("class", "many").file("numa_node", "x").file("sriov_totalvfs", "-1");
    let nic = Sysfs::at(tree.sys()).function(bdf("04:00.0")).expect("the NIC");
    let error = nic.class().unwrap_err().to_string();
    assert!(error.contains("many") && error.contains("class"), "{error}");
    assert_eq!((nic.numa_node(), nic.sriov()), (None, None));
    assert!(matches!(nic.config(), Err(PciError::Read { .. })));
}

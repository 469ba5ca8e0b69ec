//! Functions changing hands in a tree with somebody who plays the kernel.

use std::fs;

use pmd::bus::pci::{Bdf, Function, PciError, Sysfs};

use crate::kernel::Kernel;
use crate::tree::Tree;

fn bdf(text: &str) -> Bdf {
    text.parse().expect("an address")
}

/// An 82576 without VFs, and another function that igbvf drives.
fn machine() -> Tree {
    let tree = Tree::new().drivers(&["igb", "igbvf", "vfio-pci"]);
    tree.card("0000:01:00.0", "8086:10c9").driven_by("igb").group(4).sriov(7, "10ca");
    tree.card("0000:02:10.0", "8086:10ca").driven_by("igbvf").group(5).interface("enp2s0v0", false);
    tree
}

fn vf(tree: &Tree) -> Function {
    Sysfs::at(tree.sys()).function(bdf("02:10.0")).expect("the VF")
}

/// Driver, and what is laid down.
fn state(function: &Function) -> (Option<String>, Option<String>) {
    (function.driver(), function.driver_override())
}

fn igbvf() -> (Option<String>, Option<String>) {
    (Some("igbvf".to_owned()), None)
}

#[test]
fn to_vfio_and_back() {
    let tree = machine();
    let (_kernel, vf, sysfs) = (Kernel::start(&tree, &[]), vf(&tree), Sysfs::at(tree.sys()));
    for _ in 0..2 {
        let group = sysfs.bind_vfio(vf.bdf(), false).expect("bound");
        assert_eq!((group.number, group.in_the_way(vf.bdf()).count()), (5, 0));
        assert_eq!(state(&vf), (Some("vfio-pci".to_owned()), Some("vfio-pci".to_owned())));
    }
    for _ in 0..2 {
        assert_eq!(sysfs.unbind_vfio(vf.bdf()).expect("unbound").as_deref(), Some("igbvf"));
        assert_eq!(state(&vf), igbvf());
    }
}

#[test]
fn what_failed_halfway_is_undone() {
    let tree = machine();
    let (_kernel, vf) = (Kernel::start(&tree, &["vfio-pci"]), vf(&tree));
    let error = Sysfs::at(tree.sys()).bind_vfio(vf.bdf(), false).unwrap_err();
    assert!(matches!(&error, PciError::WrongDriver { wanted: Some(w), .. } if w == "vfio-pci"), "{error}");
    assert_eq!(state(&vf), igbvf());
}

#[test]
fn a_way_back_that_fails_is_told_of() {
    let tree = machine();
    let (_kernel, vf) = (Kernel::start(&tree, &["vfio-pci", "igbvf"]), vf(&tree));
    let error = Sysfs::at(tree.sys()).bind_vfio(vf.bdf(), false).unwrap_err();
    assert!(matches!(error, PciError::Halfway { .. }), "{error}");
    assert!(error.to_string().contains("not with igbvf"), "{error}");
}

#[test]
fn what_must_stay_is_refused_before_anything_is_touched() {
    let tree = machine();
    let sysfs = Sysfs::at(tree.sys());
    tree.card("0000:00:01.0", "8086:3420").file("class", "0x060400").driven_by("pcieport").group(1);
    tree.card("0000:03:00.0", "8086:10ca").driven_by("igbvf");
    tree.card("0000:04:00.0", "8086:10ca").driven_by("igbvf").group(7).interface("eth7", true);
    let with_vfs = tree.card("0000:05:00.0", "8086:10c9");
    with_vfs.driven_by("igb").group(8).sriov(7, "10ca").add_vf(0, "0000:05:10.0", "8086:10ca");
    tree.card("0000:00:02.0", "1af4:1042").file("class", "0x010000").driven_by("virtio-pci").group(2);
    for (at, word) in [
        ("00:01.0", "bridge"),
        ("00:02.0", "--force"),
        ("03:00.0", "polder doctor"),
        ("04:00.0", "ip link set eth7 down"),
        ("05:00.0", "polder nic vfs 0000:05:00.0 0"),
        ("06:00.0", "polder nic list"),
    ] {
        let before = sysfs.function(bdf(at)).ok().map(|f| state(&f));
        let error = sysfs.bind_vfio(bdf(at), false).unwrap_err().to_string();
        assert!(error.contains(word), "{at}: {error}");
        assert_eq!(sysfs.function(bdf(at)).ok().map(|f| state(&f)), before);
    }
    let _kernel = Kernel::start(&tree, &[]);
    assert_eq!(sysfs.bind_vfio(bdf("04:00.0"), true).expect("as insisted on").number, 7);
}

#[test]
fn without_the_driver_the_command_is_named() {
    let tree = Tree::new();
    tree.card("0000:02:10.0", "8086:10ca").driven_by("igbvf").group(5);
    let error = Sysfs::at(tree.sys()).bind_vfio(bdf("02:10.0"), false).unwrap_err();
    assert!(error.to_string().contains("sudo modprobe vfio-pci"), "{error}");
}

#[test]
fn a_write_that_the_kernel_refuses_changes_nothing() {
    let tree = machine();
    let vf = vf(&tree);
    fs::remove_file(vf.path("driver/unbind")).expect("remove a file");
    let error = Sysfs::at(tree.sys()).bind_vfio(vf.bdf(), false).unwrap_err();
    assert!(matches!(&error, PciError::Write { path, .. } if path.ends_with("driver/unbind")), "{error}");
    assert_eq!(state(&vf), igbvf());
}

#[test]
fn back_without_a_driver_that_knows_it() {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    tree.card("0000:02:10.0", "8086:10ca").group(5).drive(Some("vfio-pci"));
    let _kernel = Kernel::start(&tree, &[]);
    assert_eq!(Sysfs::at(tree.sys()).unbind_vfio(bdf("02:10.0")).expect("unbound"), None);
}

#[test]
fn vfs_come_and_go() {
    let tree = machine();
    let (_kernel, sysfs, pf) = (Kernel::start(&tree, &[]), Sysfs::at(tree.sys()), bdf("01:00.0"));
    assert_eq!(sysfs.set_vfs(pf, 2).expect("two"), [bdf("01:10.0"), bdf("01:10.2")]);
    assert_eq!(sysfs.set_vfs(pf, 2).expect("two still").len(), 2);
    assert_eq!(sysfs.set_vfs(pf, 5).expect("five, by way of none").len(), 5);
    assert_eq!(sysfs.set_vfs(pf, 0).expect("none"), []);
}

#[test]
fn vfs_that_cannot_be_are_refused() {
    let tree = machine();
    let sysfs = Sysfs::at(tree.sys());
    let refusal = |at: &str, count| sysfs.set_vfs(bdf(at), count).unwrap_err().to_string();
    assert!(refusal("01:00.0", 8).contains("at most 7"));
    assert!(refusal("02:10.0", 1).contains("SR-IOV"));
    assert!(refusal("07:00.0", 1).contains("polder nic list"));
}

#[test]
fn vfs_that_do_not_come_are_told_of_and_the_number_set_back() {
    let tree = machine();
    let (_kernel, sysfs) = (Kernel::start(&tree, &["sriov"]), Sysfs::at(tree.sys()));
    let error = sysfs.set_vfs(bdf("01:00.0"), 3).unwrap_err();
    assert!(matches!(error, PciError::VfsMissing { asked: 3, found: 0, .. }), "{error}");
    assert_eq!(sysfs.function(bdf("01:00.0")).expect("the PF").sriov().expect("SR-IOV").now, 0);
}

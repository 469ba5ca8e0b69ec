//! `polder nic`, on this machine and on made-up ones.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::daemon::{assert_refused, polder, run};
use crate::kernel::Kernel;
use crate::tree::{Tree, put};

fn on(tree: &Tree, args: &[&str]) -> Output {
    polder().arg("nic").args(args).arg("--root").arg(tree.root()).output().expect("start polder")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// What `nic list --json` says of one card.
fn nic(tree: &Tree, bdf: &str) -> Value {
    let list: Value = serde_json::from_str(&stdout(&on(tree, &["list", "--json"]))).expect("JSON");
    let nics = list["nics"].as_array().expect("cards");
    nics.iter().find(|nic| nic["bdf"] == bdf).unwrap_or_else(|| panic!("no {bdf} in {list}")).clone()
}

/// An 82576 with two VFs: the first with vfio-pci and all that it needs, the second with the kernel.
fn machine() -> Tree {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    let pf = tree.card("0000:01:00.0", "8086:10c9");
    pf.driven_by("igb").group(4).interface("enp1s0", true).sriov(7, "10ca").file("numa_node", "1");
    let first = pf.add_vf(0, "0000:01:10.0", "8086:10ca");
    first.group(5).driven_by("igbvf").drive(Some("vfio-pci")).file("driver_override", "vfio-pci");
    pf.add_vf(1, "0000:01:10.2", "8086:10ca").group(6).driven_by("igbvf");
    put(tree.root(), "dev/vfio/5", "");
    tree
}

#[test]
fn this_machines_cards_are_listed() {
    let out = run(&["nic", "list"]);
    assert!(out.status.success() && out.stderr.is_empty() && !out.stdout.is_empty());
    let list: Value = serde_json::from_slice(&run(&["nic", "list", "--json"]).stdout).expect("JSON");
    for nic in list["nics"].as_array().expect("cards") {
        assert!(nic["bdf"].is_string() && nic["name"].is_string() && nic["usable"].is_boolean(), "{nic}");
        assert_eq!(nic["usable"] == true, nic["why_not"].is_null(), "{nic}");
    }
}

#[test]
fn a_machine_without_cards_says_so() {
    let tree = Tree::new();
    assert_eq!(stdout(&on(&tree, &["list"])), "no network card on a PCI bus here\n");
    assert_eq!(stdout(&on(&tree, &["list", "--json"])), "{\"nics\":[]}\n");
}

#[test]
fn the_table_has_a_line_a_card() {
    let tree = machine();
    let table = stdout(&on(&tree, &["list"]));
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["BDF", "NAME", "DRIVER", "NODE", "GROUP", "VFS", "LINK", "USABLE"]);
    let pf = "0000:01:00.0 Intel 82576 igb 1 4 2/7 enp1s0 up 1000 Mb/s no: a PF; Polder drives its VFs";
    assert_eq!(words[1].join(" "), pf);
    let first = "0000:01:10.0 Intel 82576 VF vfio-pci - 5 0 of 0000:01:00.0 - yes, by igbvf";
    assert_eq!(words[2].join(" "), first);
    assert!(words[3].join(" ").ends_with("the kernel's igbvf; sudo polder nic bind 0000:01:10.2"), "{table}");
}

#[test]
fn a_card_in_json() {
    let vf = nic(&machine(), "0000:01:10.0");
    let wanted = json!({
        "bdf": "0000:01:10.0", "name": "Intel 82576 VF", "vendor": "8086", "device": "10ca", "driver": "vfio-pci",
        "numa_node": null, "iommu_group": { "number": 5, "no_iommu": false, "others": [] }, "pf": "0000:01:00.0", "vf_number": 0,
        "vfs": null, "interfaces": [], "usable": true, "polder_driver": "igbvf", "why_not": null, "mend": null,
    });
    assert_eq!(vf, wanted);
}

#[test]
fn what_keeps_a_card_from_use_is_said_with_the_command() {
    let tree = machine();
    let in_group = |bdf: &str, ids: &str, group| {
        let card = tree.card(bdf, ids);
        card.group(group).drive(Some("vfio-pci"));
        card
    };
    in_group("0000:02:00.0", "8086:1520", 9);
    tree.card("0000:02:00.1", "8086:10d3").group(9).driven_by("e1000e");
    tree.card("0000:03:00.0", "8086:10ca").driven_by("igbvf");
    in_group("0000:04:00.0", "1af4:1041", 10);
    tree.card("0000:05:00.0", "1af4:1041")
        .group(11)
        .driven_by("virtio-pci")
        .interface_at("virtio0/net/eth0", true);
    in_group("0000:06:00.0", "1af4:1000", 12).file("config", &"\0".repeat(256));
    in_group("0000:07:00.0", "1af4:1000", 13).file("config", &"\0".repeat(64));
    tree.card("0000:08:00.0", "8086:10c9").group(14).driven_by("igb").sriov(7, "10ca");
    let pf = in_group("0000:09:00.0", "8086:1521", 15);
    pf.add_vf(0, "0000:09:10.0", "8086:1520").group(16).drive(Some("vfio-pci"));
    for (bdf, why, mend) in [
        ("0000:02:00.0", "group 9 is not viable: 0000:02:00.1 (e1000e)", "sudo polder nic bind 0000:02:00.1"),
        ("0000:02:00.1", "no driver for it", ""),
        ("0000:03:00.0", "IOMMU is off", "polder doctor"),
        ("0000:04:00.0", "/dev/vfio/10", "sudo modprobe"),
        ("0000:05:00.0", "eth0 is up", "ip link set eth0 down"),
        ("0000:06:00.0", "legacy", "disable-legacy=on"),
        ("0000:07:00.0", "only root", "sudo polder nic list"),
        ("0000:08:00.0", "a PF", "sudo polder nic vfs 0000:08:00.0 2"),
        ("0000:09:10.0", "its PF 0000:09:00.0 is with vfio-pci", "sudo polder nic unbind 0000:09:00.0"),
    ] {
        let nic = nic(&tree, bdf);
        assert_eq!(nic["usable"], false, "{nic}");
        assert!(nic["why_not"].as_str().expect("a reason").contains(why), "{nic}");
        assert!(nic["mend"].as_str().unwrap_or_default().contains(mend), "{nic}");
    }
    fs::remove_dir_all(tree.sys().join("bus/pci/drivers/vfio-pci")).expect("unload a driver");
    assert_eq!(nic(&tree, "0000:01:10.2")["mend"], "sudo modprobe vfio-pci");
}

#[test]
fn without_an_iommu_only_as_the_kernel_was_told() {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    tree.card("0000:03:00.0", "8086:10ca").driven_by("igbvf");
    assert!(assert_refused(&on(&tree, &["bind", "03:00.0"]), 1).contains("polder doctor"));
    put(&tree.sys(), "module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert_eq!(nic(&tree, "0000:03:00.0")["mend"], "sudo polder nic bind 0000:03:00.0");
    tree.card("0000:04:00.0", "8086:10ca").group(0).drive(Some("vfio-pci"));
    put(&tree.sys(), "kernel/iommu_groups/0/name", "vfio-noiommu\n");
    put(tree.root(), "dev/vfio/noiommu-0", "");
    let table = stdout(&on(&tree, &["list"]));
    assert!(table.contains("yes, by igbvf, without an IOMMU: vfio:0000:04:00.0,noiommu"), "{table}");
    let told = stdout(&on(&tree, &["bind", "04:00.0"]));
    assert!(told.contains("vfio:0000:04:00.0,noiommu"), "{told}");
}

#[test]
fn names_are_the_systems_where_ours_end() {
    let tree = Tree::new();
    tree.card("0000:04:00.0", "1234:5678");
    assert_eq!(nic(&tree, "0000:04:00.0")["name"], "1234:5678");
    put(tree.root(), "usr/share/misc/pci.ids", "1234  Somebody\n\t5678  Card of somebody\n");
    assert_eq!(nic(&tree, "0000:04:00.0")["name"], "Card of somebody");
}

#[test]
fn bound_and_given_back() {
    let tree = machine();
    let _kernel = Kernel::start(&tree, &[]);
    put(tree.root(), "dev/vfio/6", "");
    let told = stdout(&on(&tree, &["bind", "01:10.2"]));
    assert!(told.contains("--port NAME=vfio:0000:01:10.2") && told.lines().count() == 1, "{told}");
    assert_eq!(nic(&tree, "0000:01:10.2")["usable"], true);
    assert_eq!(stdout(&on(&tree, &["unbind", "01:10.2"])), "0000:01:10.2 is with the kernel's igbvf\n");
    assert_eq!(nic(&tree, "0000:01:10.2")["driver"], "igbvf");
}

#[test]
fn who_else_must_be_bound_is_told() {
    let tree = machine();
    let _kernel = Kernel::start(&tree, &[]);
    tree.card("0000:02:00.0", "8086:1520").group(9).driven_by("igbvf");
    tree.card("0000:02:00.1", "8086:10d3").group(9).driven_by("e1000e");
    tree.card("0000:02:00.2", "8086:2922").group(9).driven_by("ahci").file("class", "0x010601");
    let told = stdout(&on(&tree, &["bind", "02:00.0"]));
    let e1000e = "0000:02:00.1 (e1000e) is in the same group; sudo polder nic bind 0000:02:00.1\n";
    let disk = "0000:02:00.2 (ahci) is in the same group; \
                if the system can do without: sudo polder nic bind 0000:02:00.2 --force\n";
    assert!(told.ends_with(&format!("{e1000e}{disk}")), "{told}");
}

#[test]
fn vfs_are_made_and_printed() {
    let tree = Tree::new().drivers(&["vfio-pci", "igbvf"]);
    tree.card("0000:01:00.0", "8086:10c9")
        .driven_by("igb")
        .group(4)
        .interface("enp1s0", true)
        .sriov(7, "10ca");
    let _kernel = Kernel::start(&tree, &[]);
    assert_eq!(stdout(&on(&tree, &["vfs", "01:00.0", "2"])), "0000:01:10.0\n0000:01:10.2\n");
    assert_eq!(nic(&tree, "0000:01:00.0")["vfs"], json!({ "now": 2, "most": 7 }));
    assert_eq!(nic(&tree, "0000:01:10.2")["vf_number"], 1);
    assert_eq!(stdout(&on(&tree, &["vfs", "01:00.0", "0"])), "");
}

#[test]
fn orders_that_cannot_be_are_refused_in_one_line() {
    let tree = machine();
    for (args, word) in [
        (&["bind", "0a:00.0"] as &[&str], "polder nic list"),
        (&["bind", "01:00.0"], "sudo polder nic vfs 0000:01:00.0 0"),
        (&["unbind", "0a:00.0"], "polder nic list"),
        (&["vfs", "01:10.0", "1"], "SR-IOV"),
        (&["vfs", "01:00.0", "8"], "at most 7"),
    ] {
        let line = assert_refused(&on(&tree, args), 1);
        assert!(line.contains(word), "{args:?}: {line}");
    }
}

#[test]
fn an_interface_that_is_up_is_not_pulled_away() {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    let pf = tree.card("0000:01:00.0", "8086:10c9");
    pf.driven_by("igb").group(4).sriov(7, "10ca");
    pf.add_vf(0, "0000:01:10.0", "8086:10ca").group(5).driven_by("igbvf").interface("enp1s0v0", true);
    let _kernel = Kernel::start(&tree, &[]);
    for args in [&["bind", "01:10.0"] as &[&str], &["vfs", "01:00.0", "3"]] {
        let line = assert_refused(&on(&tree, args), 1);
        assert!(line.contains("ip link set enp1s0v0 down") && line.contains("--force"), "{line}");
    }
    stdout(&on(&tree, &["bind", "01:10.0", "--force"]));
    assert_eq!(stdout(&on(&tree, &["vfs", "01:00.0", "3", "--force"])).lines().count(), 3);
}

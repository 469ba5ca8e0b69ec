//! `polder doctor`, on this machine and on made-up ones.

use serde_json::Value;

use crate::daemon::{polder, run};
use crate::tree::{Tree, put};

const NOBODY: [&str; 2] = ["--control", "/no/such/dir/control"];

/// Checks of a made-up machine, and whether it may run Polder.
fn told(tree: &Tree) -> Vec<Value> {
    let mut doctor = polder();
    doctor.args(["doctor", "--json"]).args(NOBODY).arg("--root").arg(tree.root());
    let out = doctor.output().expect("start polder");
    let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    value["checks"].as_array().expect("checks").clone()
}

/// What is found and what mends it, of checks of this name.
fn of(checks: &[Value], name: &str) -> Vec<(String, String)> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let named = checks.iter().filter(|check| check["name"] == name);
    named.map(|check| (text(check, "found"), text(check, "mend"))).collect()
}

fn assert_mend(checks: &[Value], name: &str, found: &str, mend: &str) {
    let all = of(checks, name);
    assert!(all.iter().any(|(f, m)| f.contains(found) && m.contains(mend)), "{name}: {all:?}");
}

/// An 82576 whose first VF is with vfio-pci.
fn with_vf() -> Tree {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    let pf = tree.card("0000:01:00.0", "8086:10c9");
    pf.driven_by("igb").group(4).interface("enp1s0", true).sriov(7, "10ca");
    pf.add_vf(0, "0000:01:10.0", "8086:10ca").group(5).drive(Some("vfio-pci"));
    put(&tree.sys(), "module/vfio_iommu_type1/refcnt", "1\n");
    put(tree.root(), "dev/vfio/vfio", "");
    put(tree.root(), "dev/vfio/5", "");
    tree
}

#[test]
fn states_and_mends() {
    let out = run(&["doctor", "--json", NOBODY[0], NOBODY[1]]);
    let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let checks = value["checks"].as_array().expect("checks");
    assert!(checks.len() >= 8);
    for check in checks {
        let state = check["state"].as_str().expect("a state");
        assert!(["ok", "warn", "bad"].contains(&state), "{check}");
        assert_eq!(state == "ok", check["mend"].is_null(), "{check}");
    }
    let bad = checks.iter().any(|c| c["state"] == "bad");
    assert_eq!(out.status.code(), Some(i32::from(bad)));
}

#[test]
fn a_machine_without_a_card_for_polder_is_not_scolded() {
    let tree = Tree::new();
    let bare = told(&tree);
    tree.card("0000:00:03.0", "1af4:1041").driven_by("virtio-pci").interface_at("virtio0/net/eth0", true);
    tree.card("0000:00:04.0", "8086:10d3").driven_by("e1000e");
    assert_eq!(told(&tree), bare);
    for name in ["iommu", "vfio-modules", "vfio-rights", "nic", "hugepages-node", "vf-policy"] {
        assert_eq!(of(&bare, name), [], "{name}");
    }
    assert!(of(&bare, "memlock").iter().all(|(_, mend)| mend.is_empty()));
}

#[test]
fn a_vf_in_order_is_ok() {
    let checks = told(&with_vf());
    for name in ["iommu", "vfio-modules", "vfio-rights", "nic"] {
        let all = of(&checks, name);
        assert!(!all.is_empty() && all.iter().all(|(_, mend)| mend.is_empty()), "{name}: {all:?}");
    }
    assert_mend(&checks, "nic", "0000:01:10.0 (Intel 82576 VF): usable", "");
    assert_eq!(of(&checks, "vf-policy"), []);
}

#[test]
fn what_a_vf_lacks_is_named_with_its_command() {
    let tree = with_vf();
    std::fs::remove_file(tree.root().join("dev/vfio/vfio")).expect("remove a file");
    tree.card("0000:02:00.0", "8086:1520").group(9).drive(Some("vfio-pci"));
    tree.card("0000:02:00.1", "8086:10d3").group(9).driven_by("e1000e");
    tree.card("0000:03:00.0", "8086:1520").group(10).driven_by("igbvf").file("numa_node", "1");
    put(&tree.sys(), "devices/system/node/online", "0-1\n");
    put(&tree.sys(), "devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "8\n");
    put(&tree.sys(), "devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "4\n");
    let checks = told(&tree);
    assert_mend(&checks, "vfio-rights", "/dev/vfio/vfio", "sudo modprobe vfio");
    assert_mend(&checks, "nic", "0000:02:00.1 (e1000e)", "sudo polder nic bind 0000:02:00.1");
    assert_mend(
        &checks,
        "nic",
        "0000:03:00.0 (Intel I350 VF): it is with the kernel's igbvf; sudo polder nic",
        "",
    );
    let mend = "echo 36 | sudo tee /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages";
    assert_mend(&checks, "hugepages-node", "node 1", mend);
}

#[test]
fn a_card_with_the_kernel_is_a_fault_only_if_all_are() {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    tree.card("0000:03:00.0", "8086:1520").group(10).driven_by("igbvf");
    assert_mend(&told(&tree), "nic", "with the kernel's igbvf", "sudo polder nic bind 0000:03:00.0");
    tree.card("0000:03:00.2", "8086:1520").group(11).drive(Some("vfio-pci"));
    let checks = told(&tree);
    let first = &of(&checks, "nic")[0];
    assert!(first.0.starts_with("0000:03:00.0") && first.1.is_empty(), "{first:?}");
}

#[test]
fn what_the_machine_lacks_is_said_once() {
    let tree = Tree::new();
    put(tree.root(), "proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    put(&tree.sys(), "firmware/acpi/tables/DMAR", "");
    for bdf in ["0000:02:00.0", "0000:02:00.2"] {
        tree.card(bdf, "8086:10ca").driven_by("igbvf");
    }
    let checks = told(&tree);
    assert_mend(&checks, "iommu", "off", "intel_iommu=on iommu=pt");
    assert_mend(&checks, "vfio-modules", "not loaded", "sudo modprobe -a vfio-pci vfio_iommu_type1");
    assert_eq!(of(&checks, "nic"), []);
}

#[test]
fn a_sysfs_that_cannot_be_read_is_told_of() {
    let tree = with_vf();
    std::fs::remove_file(tree.sys().join("bus/pci/devices/0000:01:10.0/device")).expect("remove a file");
    assert_mend(&told(&tree), "nic", "0000:01:10.0/device", "sysfs");
}

#[test]
fn a_pf_that_is_down_is_in_its_vfs_way() {
    let tree = Tree::new().drivers(&["vfio-pci"]);
    let pf = tree.card("0000:01:00.0", "8086:10c9");
    pf.driven_by("igb").group(4).interface("enp1s0", false).sriov(7, "10ca");
    pf.add_vf(0, "0000:01:10.0", "8086:10ca").group(5).drive(Some("vfio-pci"));
    assert_mend(&told(&tree), "vf-policy", "enp1s0 is down", "sudo ip link set enp1s0 up");
}

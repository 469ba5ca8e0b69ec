//! `polder nic` and `polder doctor` on cards: what they say is what the kernel does, and each mend mends.

use serde_json::Value;

use super::lab::{Lab, Setup, vf};
use super::mishap;
use crate::console::Output;
use crate::deadline::{secs, wait_for};
use crate::polder::binary;

const PF: &str = "0000:01:00.0";

/// Two functions behind one old bridge, which the IOMMU cannot tell apart.
const BEHIND_A_BRIDGE: &str = "-device pcie-pci-bridge,id=old,bus=rp5 \
     -device virtio-net-pci,bus=old,addr=1,disable-legacy=on,iommu_platform=on,romfile= \
     -device virtio-net-pci,bus=old,addr=2,disable-legacy=on,iommu_platform=on,romfile=";

fn order(lab: &mut Lab, args: &str) -> Output {
    lab.sh_within(&format!("{} {args} 2>&1", binary()), secs(60))
}

fn done(lab: &mut Lab, args: &str) -> String {
    let output = order(lab, args);
    assert_eq!(output.status, 0, "polder {args}: {}", output.text);
    output.text
}

fn refused(lab: &mut Lab, args: &str) -> String {
    let output = order(lab, args);
    assert_eq!(output.status, 1, "polder {args}: {}", output.text);
    output.text
}

/// What `nic list --json` says of one card.
fn nic(lab: &mut Lab, bdf: &str) -> Value {
    let list: Value = serde_json::from_str(&done(lab, "nic list --json")).expect("JSON");
    let nics = list["nics"].as_array().expect("cards");
    nics.iter().find(|nic| nic["bdf"] == bdf).unwrap_or_else(|| panic!("no {bdf} in {list}")).clone()
}

/// What `doctor` warns of under a name: what it found, and the mend without `sudo`, as the lab is root.
fn warnings(lab: &mut Lab, name: &str) -> Vec<(String, String)> {
    let told: Value = serde_json::from_str(&done(lab, "doctor --json")).expect("JSON");
    let checks = told["checks"].as_array().expect("checks");
    let mend = |check: &Value| check["mend"].as_str().map(|mend| mend.replace("sudo ", ""));
    let named = checks.iter().filter(|check| check["name"] == name);
    named.filter_map(|check| Some((check["found"].to_string(), mend(check)?))).collect()
}

/// Follows a mend that calls `polder` by its name.
fn follow(lab: &mut Lab, mend: &str) {
    lab.sh(&mend.replace("polder ", &format!("{} ", binary())));
}

/// One machine for all of it: each leaves the two VFs with vfio-pci.
#[test]
#[ignore = "needs a QEMU with igb: run ./test"]
fn cards_change_hands_and_mends_mend() {
    mishap::play(scene);
}

fn scene() {
    let mut lab = Lab::boot(&Setup::igb(1, 2).with("LAB_QEMU", BEHIND_A_BRIDGE));
    a_vf_is_given_back_and_bound_again(&mut lab);
    a_card_that_a_program_has_is_not_pulled_away(&mut lab);
    vfs_come_and_go(&mut lab);
    a_port_is_told_what_its_pf_holds_it_to(&mut lab);
    what_a_pf_holds_its_vfs_to_is_mended(&mut lab);
    who_is_to_blame_in_a_group_is_named_and_bound(&mut lab);
}

fn a_vf_is_given_back_and_bound_again(lab: &mut Lab) {
    let first = vf(0, 0);
    assert_eq!(nic(lab, PF)["usable"], false);
    assert_eq!(nic(lab, &first)["usable"], true);
    let told = done(lab, &format!("nic unbind {first}"));
    assert!(told.contains("igbvf"), "{told}");
    let with_kernel = nic(lab, &first);
    assert_eq!((&with_kernel["usable"], &with_kernel["driver"]), (&false.into(), &"igbvf".into()));
    follow(lab, &with_kernel["mend"].as_str().expect("a mend").replace("sudo ", ""));
    assert_eq!(nic(lab, &first)["usable"], true);
    assert!(refused(lab, "nic bind 00:10.0").contains("bridge"));
}

fn a_card_that_a_program_has_is_not_pulled_away(lab: &mut Lab) {
    let first = vf(0, 0);
    let group = nic(lab, &first)["iommu_group"]["number"].to_string();
    lab.start("holder", &format!("sleep 1000 <>/dev/vfio/{group}"));
    wait_for("a holder of the group", secs(20), || (nic(lab, &first)["usable"] == false).then_some(()));
    assert_eq!(nic(lab, &first)["why_not"], "a program has it");
    for args in [format!("nic unbind {first}"), format!("nic vfs {PF} 3")] {
        assert!(refused(lab, &args).contains("a program has"), "{args}");
    }
    lab.stop("holder", "TERM");
    assert_eq!(nic(lab, &first)["usable"], true);
}

fn vfs_come_and_go(lab: &mut Lab) {
    assert_eq!(done(lab, &format!("nic vfs {PF} 0")), "");
    assert!(refused(lab, &format!("nic vfs {PF} 8")).contains("at most 7"));
    assert_eq!(done(lab, &format!("nic vfs {PF} 3")).lines().count(), 3);
    let two = done(lab, &format!("nic vfs {PF} 2"));
    assert_eq!(two.lines().collect::<Vec<_>>(), [vf(0, 0), vf(0, 1)]);
    for bdf in two.lines() {
        done(lab, &format!("nic bind {bdf}"));
        assert_eq!(nic(lab, bdf)["usable"], true);
    }
}

/// The switch warns when it starts; while it runs, doctor knows whose VF is whose.
fn a_port_is_told_what_its_pf_holds_it_to(lab: &mut Lab) {
    let (first, second) = (vf(0, 0), vf(0, 1));
    lab.sh("ip link set pf0 vf 1 spoofchk off");
    lab.start("polder", &format!("{} run --port up=vfio:{first}", binary()));
    lab.wait_for_line("polder", "^ready", secs(60));
    let log = lab.log("polder");
    assert!(log.contains(&format!("{first}: spoof check is on")), "{log}");
    assert!(log.contains(&format!("{second}: spoof check is off")), "{log}");
    let found = warnings(lab, "vf-policy");
    let others: Vec<_> = found.iter().filter(|(found, _)| found.contains(&second)).collect();
    let [(_, mend)] = others.as_slice() else { panic!("{found:?}") };
    assert_eq!(mend, "ip link set pf0 vf 1 spoofchk on");
    follow(lab, mend);
    lab.stop("polder", "TERM");
}

fn what_a_pf_holds_its_vfs_to_is_mended(lab: &mut Lab) {
    lab.sh("ip link set pf0 vf 1 mac 00:00:00:00:00:00; ip link set pf0 down");
    let found = warnings(lab, "vf-policy");
    for word in ["pf0 is down", "no Ethernet address", "spoof check is on", "not trusted"] {
        assert!(found.iter().any(|(found, _)| found.contains(word)), "{word}: {found:?}");
    }
    for (_, mend) in &found {
        follow(lab, mend);
    }
    // The carrier comes a moment after the PF.
    lab.sh("while [ $(cat /sys/class/net/pf0/carrier) != 1 ]; do sleep 0.1; done");
    assert_eq!(warnings(lab, "vf-policy"), []);
}

fn who_is_to_blame_in_a_group_is_named_and_bound(lab: &mut Lab) {
    let (card, other) = ("0000:07:01.0", "0000:07:02.0");
    assert_eq!(nic(lab, card)["usable"], true);
    let told = done(lab, &format!("nic unbind {other}"));
    assert!(told.contains("virtio-pci"), "{told}");
    let why = nic(lab, card)["why_not"].to_string();
    assert!(why.contains("not viable") && why.contains(&format!("{other} (virtio-pci)")), "{why}");
    for (_, mend) in warnings(lab, "nic") {
        follow(lab, &mend);
    }
    assert_eq!(nic(lab, card)["usable"], true);
    assert_eq!(warnings(lab, "nic"), []);
}

//! Network cards for people, and for programs.

use pmd::bus::pci::{IommuGroup, NetInterface};
use serde_json::{Value, json};

use super::Nic;
use super::known::Driver;
use super::verdict::member_with_driver;
use crate::report::Table;

/// A line each, or one that says that there is none.
pub(super) fn as_table(nics: &[Nic]) -> String {
    if nics.is_empty() {
        return "no network card on a PCI bus here\n".to_owned();
    }
    let mut table = Table::new(&["BDF", "NAME", "DRIVER", "NODE", "GROUP", "VFS", "LINK", "USABLE"]);
    for nic in nics {
        table.row([
            nic.bdf.to_string(),
            nic.name.clone(),
            nic.driver.clone().unwrap_or_else(dash),
            nic.numa_node.map_or_else(dash, |node| node.to_string()),
            group_cell(nic),
            vfs_cell(nic),
            link_cell(&nic.interfaces),
            usable_cell(nic),
        ]);
    }
    table.to_string()
}

fn dash() -> String {
    "-".to_owned()
}

fn group_cell(nic: &Nic) -> String {
    let Some(group) = &nic.group else { return dash() };
    let others: Vec<_> = group.others(nic.bdf).map(member_with_driver).collect();
    let with = if others.is_empty() { String::new() } else { format!(" with {}", others.join(", ")) };
    format!("{}{with}", group.number)
}

fn vfs_cell(nic: &Nic) -> String {
    match (&nic.pf, &nic.sriov) {
        (Some(pf), _) => format!("{} of {}", pf.vf_number.map_or_else(dash, |n| n.to_string()), pf.bdf),
        (None, Some(sriov)) => format!("{}/{}", sriov.now, sriov.most),
        (None, None) => dash(),
    }
}

fn link_cell(interfaces: &[NetInterface]) -> String {
    let one = |i: &NetInterface| {
        let speed = i.speed_mbps.map_or_else(String::new, |speed| format!(" {speed} Mb/s"));
        format!("{} {}{speed}", i.name, link(i))
    };
    let cells: Vec<_> = interfaces.iter().map(one).collect();
    if cells.is_empty() { dash() } else { cells.join(", ") }
}

fn link(interface: &NetInterface) -> &'static str {
    match interface.carrier {
        Some(true) => "up",
        Some(false) => "no carrier",
        None => "down",
    }
}

fn usable_cell(nic: &Nic) -> String {
    let Some(obstacle) = &nic.verdict.obstacle else { return yes(nic) };
    let mend = obstacle.mend.as_ref().map_or_else(String::new, |mend| format!("; {mend}"));
    format!("no: {}{mend}", obstacle.what)
}

fn yes(nic: &Nic) -> String {
    let driver = nic.verdict.driver.map_or("", Driver::name);
    let unprotected = nic.group.as_ref().is_some_and(|group| group.no_iommu);
    let how =
        if unprotected { format!(", without an IOMMU: vfio:{},noiommu", nic.bdf) } else { String::new() };
    format!("yes, by {driver}{how}")
}

/// One object on one line: `{"nics": [..]}`.
pub(super) fn as_json(nics: &[Nic]) -> String {
    let nics: Vec<Value> = nics.iter().map(one_as_json).collect();
    format!("{}\n", json!({ "nics": nics }))
}

fn one_as_json(nic: &Nic) -> Value {
    let obstacle = nic.verdict.obstacle.as_ref();
    json!({
        "bdf": nic.bdf.to_string(),
        "name": nic.name,
        "vendor": format!("{:04x}", nic.ids.vendor),
        "device": format!("{:04x}", nic.ids.device),
        "driver": nic.driver,
        "numa_node": nic.numa_node,
        "iommu_group": nic.group.as_ref().map(|group| group_as_json(nic, group)),
        "pf": nic.pf.as_ref().map(|pf| pf.bdf.to_string()),
        "vf_number": nic.pf.as_ref().and_then(|pf| pf.vf_number),
        "vfs": nic.sriov.map(|sriov| json!({ "now": sriov.now, "most": sriov.most })),
        "interfaces": nic.interfaces.iter().map(interface_as_json).collect::<Vec<_>>(),
        "usable": nic.verdict.is_usable(),
        "polder_driver": nic.verdict.driver.map(Driver::name),
        "why_not": obstacle.map(|o| &o.what),
        "mend": obstacle.and_then(|o| o.mend.as_ref()),
    })
}

fn group_as_json(nic: &Nic, group: &IommuGroup) -> Value {
    let member = |m: &pmd::bus::pci::Member| json!({ "bdf": m.bdf.to_string(), "driver": m.driver, "in_the_way": !m.lets_go() });
    let others: Vec<_> = group.others(nic.bdf).map(member).collect();
    json!({ "number": group.number, "no_iommu": group.no_iommu, "others": others })
}

fn interface_as_json(interface: &NetInterface) -> Value {
    json!({
        "name": interface.name,
        "mac": interface.mac,
        "up": interface.up,
        "carrier": interface.carrier,
        "speed_mbps": interface.speed_mbps,
    })
}

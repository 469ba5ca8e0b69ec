//! Orders: VFs made, cards bound to vfio-pci and given back.

use std::process::ExitCode;

use pmd::bus::pci::{Bdf, Function, IommuGroup};

use super::verdict::{self, member_with_driver};
use super::{GroupAccess, Machine};
use crate::ask::print;
use crate::failure::Failure;

/// Has a PF make VFs and prints them, one a line.
pub(super) fn vfs(machine: &Machine, pf: Bdf, count: u16, force: bool) -> Result<ExitCode, Failure> {
    let function = machine.sysfs().function(pf).map_err(Failure::runtime)?;
    if function.sriov().is_some_and(|sriov| sriov.now != count) && !force {
        check_vfs_idle(machine, &function)?;
    }
    let vfs = machine.sysfs().set_vfs(pf, count).map_err(Failure::runtime)?;
    print(&vfs.iter().map(|vf| format!("{vf}\n")).collect::<String>())
}

/// All VFs go when their number changes.
fn check_vfs_idle(machine: &Machine, pf: &Function) -> Result<(), Failure> {
    for vf in pf.virtfns().map_err(Failure::runtime)? {
        check_idle(machine, vf)?;
        let interfaces =
            machine.sysfs().function(vf).and_then(|f| f.interfaces()).map_err(Failure::runtime)?;
        if let Some(up) = interfaces.iter().find(|i| i.up) {
            return Err(Failure::runtime(format!(
                "all VFs of {} go when their number changes, but {vf} is the kernel's interface {name}, which is up; \
                 sudo ip link set {name} down (or say --force)",
                pf.bdf(),
                name = up.name
            )));
        }
    }
    Ok(())
}

/// Gives a card to vfio-pci.
pub(super) fn bind(machine: &Machine, bdf: Bdf, force: bool) -> Result<ExitCode, Failure> {
    let group = machine.sysfs().bind_vfio(bdf, force).map_err(Failure::runtime)?;
    print(&bound(bdf, &group))
}

/// What can be done with the card now.
fn bound(bdf: Bdf, group: &IommuGroup) -> String {
    let option = if group.no_iommu { ",noiommu" } else { "" };
    let number = group.number;
    let mut text =
        format!("{bdf} is with vfio-pci, in group {number}; use it as --port NAME=vfio:{bdf}{option}\n");
    for member in group.in_the_way(bdf) {
        text += &format!("{} is in the same group; {}\n", member_with_driver(member), verdict::bind(member));
    }
    text
}

/// Gives a card back to the kernel.
pub(super) fn unbind(machine: &Machine, bdf: Bdf, force: bool) -> Result<ExitCode, Failure> {
    if !force {
        check_idle(machine, bdf)?;
    }
    let driver = machine.sysfs().unbind_vfio(bdf).map_err(Failure::runtime)?;
    let modalias = format!("sys/bus/pci/devices/{bdf}/modalias");
    print(&match (driver, machine.text(&modalias)) {
        (Some(driver), _) => format!("{bdf} is with the kernel's {driver}\n"),
        (None, Some(alias)) => format!("{bdf} has no driver; sudo modprobe '{}'\n", alias.trim()),
        (None, None) => format!("{bdf} has no driver\n"),
    })
}

/// The kernel takes a card from a program only when that lets go, and waits until then: better not begin.
fn check_idle(machine: &Machine, bdf: Bdf) -> Result<(), Failure> {
    let group = machine.sysfs().function(bdf).and_then(|f| f.iommu_group()).map_err(Failure::runtime)?;
    match group.map(|group| machine.group_access(&group)) {
        Some(GroupAccess::Busy) => Err(Failure::runtime(format!(
            "a program has {bdf}; if it is polder, `polder port del` its port first (or say --force, and wait for it)"
        ))),
        _ => Ok(()),
    }
}

//! VFIO's modules, and the file that a program opens first.

use pmd::bus::pci::VFIO;

use super::super::Check;
use crate::nic::{GroupAccess, Machine};

const CONTAINER: &str = "/dev/vfio/vfio";

pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let sysfs = machine.sysfs();
    let mut missing = Vec::new();
    missing.extend((!sysfs.has_driver(VFIO)).then_some("vfio-pci"));
    missing.extend((!sysfs.has_module("vfio_iommu_type1")).then_some("vfio_iommu_type1"));
    if missing.is_empty() {
        return vec![Check::ok("vfio-modules", "vfio-pci and vfio_iommu_type1 are loaded"), rights(machine)];
    }
    let found = format!("not loaded: {}", missing.join(", "));
    vec![Check::warn("vfio-modules", found, format!("sudo modprobe -a {}", missing.join(" ")))]
}

fn rights(machine: &Machine) -> Check {
    const NAME: &str = "vfio-rights";
    match machine.access(CONTAINER) {
        // The kernel makes it open to all: it gives nothing away without a group.
        GroupAccess::Denied => Check::warn(
            NAME,
            format!("{CONTAINER} may not be opened"),
            format!("sudo chmod 0666 {CONTAINER}"),
        ),
        GroupAccess::Broken(e) => Check::warn(NAME, format!("{CONTAINER}: {e}"), "sudo modprobe vfio"),
        GroupAccess::Free | GroupAccess::Busy => Check::ok(NAME, format!("{CONTAINER} can be opened")),
    }
}

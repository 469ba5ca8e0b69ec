//! The IOMMU: without one, VFIO gives no card away.

use std::fs;

use super::super::Check;
use crate::nic::Machine;

const NAME: &str = "iommu";

pub(super) fn check(machine: &Machine) -> Check {
    let groups = fs::read_dir(machine.sysfs().path("kernel/iommu_groups")).map_or(0, Iterator::count);
    match groups {
        0 if machine.sysfs().allows_no_iommu() => Check::warn(
            NAME,
            "off, and VFIO was told to do without: a card, and whoever drives it, can write to all of memory",
            "echo N | sudo tee /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        ),
        0 => off(machine),
        n => Check::ok(NAME, format!("on; groups: {n}")),
    }
}

/// Says what switches it on: the firmware's tables tell whether it is there, the CPU's maker how it is called.
fn off(machine: &Machine) -> Check {
    let intel = machine.text("proc/cpuinfo").is_some_and(|info| info.contains("GenuineIntel"));
    let (table, name, argument) =
        if intel { ("DMAR", "VT-d", "intel_iommu=on iommu=pt") } else { ("IVRS", "AMD-Vi", "iommu=pt") };
    let boot = boot_with(argument);
    if !machine.has(&format!("sys/firmware/acpi/tables/{table}")) {
        let setup = format!(
            "switch on {name} in the firmware's setup (a VM: give it one, as QEMU's -device intel-iommu); {boot}"
        );
        return Check::warn(NAME, "none that the firmware shows: no card can be driven", setup);
    }
    let arguments = machine.text("proc/cmdline").unwrap_or_default();
    match arguments.split_whitespace().find(|argument| argument.ends_with("iommu=off")) {
        Some(argument) => Check::warn(NAME, format!("off, as {argument} asks for"), boot_without(argument)),
        None => Check::warn(NAME, "off: the kernel was not told to use it", boot),
    }
}

const THEN: &str = "/etc/default/grub && sudo update-grub && sudo reboot";

fn boot_with(argument: &str) -> String {
    format!("sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{argument} /' {THEN}")
}

fn boot_without(argument: &str) -> String {
    format!("sudo sed -i 's/{argument}//' {THEN}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::State;
    use super::*;
    use crate::cli::MachineArgs;

    /// What is said of a machine with these files.
    fn told(files: &[(&str, &str)]) -> Check {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        check(&Machine::new(MachineArgs { root: Some(dir.path().to_owned()) }))
    }

    const INTEL: (&str, &str) = ("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    const AMD: (&str, &str) = ("proc/cpuinfo", "vendor_id\t: AuthenticAMD\n");

    #[test]
    fn on() {
        let check = told(&[("sys/kernel/iommu_groups/0/type", "DMA"), INTEL]);
        assert_eq!((check.state, check.found.as_str()), (State::Ok, "on; groups: 1"));
    }

    #[test]
    fn off_is_mended_by_the_kernels_argument() {
        let intel = told(&[("sys/firmware/acpi/tables/DMAR", ""), INTEL, ("proc/cmdline", "quiet")]);
        let mend = "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on iommu=pt /' /etc/default/grub \
                    && sudo update-grub && sudo reboot";
        assert_eq!(intel.mend.as_deref(), Some(mend));
        let amd =
            told(&[("sys/firmware/acpi/tables/IVRS", ""), AMD, ("proc/cmdline", "quiet amd_iommu=off")]);
        assert!(amd.found.contains("amd_iommu=off") && amd.mend.unwrap().contains("'s/amd_iommu=off//'"));
    }

    #[test]
    fn none_is_looked_for_in_the_firmware() {
        assert!(told(&[INTEL]).mend.unwrap().contains("VT-d"));
        assert!(told(&[AMD]).mend.unwrap().contains("AMD-Vi"));
        let unsafe_mode = ("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        assert!(told(&[INTEL, unsafe_mode]).found.contains("all of memory"));
    }
}

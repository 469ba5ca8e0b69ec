//! Whether Polder can drive a card, and if not: what is missing, and what mends it.

use pmd::bus::pci::{Class, Member, VFIO};

use super::known::{Driver, TRANSITIONAL};
use super::machine::group_path;
use super::{GroupAccess, Machine, Nic};

/// What there is to say of a card's use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The driver of Polder's for it; none: never usable.
    pub(crate) driver: Option<Driver>,
    /// What is in the way, the first thing first.
    pub(crate) obstacle: Option<Obstacle>,
}

/// What keeps a card from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// What it is, in one line.
    pub(crate) what: String,
    /// The command that removes it, if one does.
    pub(crate) mend: Option<String>,
    /// It is in every card's way on this machine.
    pub(crate) of_machine: bool,
}

impl Obstacle {
    /// One that a command removes.
    pub(crate) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: Some(mend.into()), of_machine: false }
    }

    /// One that stays.
    fn fixed(what: impl Into<String>) -> Self {
        Self { what: what.into(), mend: None, of_machine: false }
    }

    fn of_machine(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { of_machine: true, ..Self::new(what, mend) }
    }
}

impl Verdict {
    pub(crate) fn of(nic: &Nic, machine: &Machine) -> Self {
        let obstacle = unfit(nic)
            .or_else(|| in_use(nic))
            .or_else(|| no_vfio(nic, machine))
            .or_else(|| with_the_kernel(nic))
            .or_else(|| group_not_viable(nic))
            .or_else(|| pf_with_vfio(nic))
            .or_else(|| no_access(nic, machine));
        Self { driver: nic.ours, obstacle }
    }

    /// Whether `polder run --port NAME=vfio:BDF` would have it now.
    pub(crate) fn is_usable(&self) -> bool {
        self.driver.is_some() && self.obstacle.is_none()
    }
}

fn unfit(nic: &Nic) -> Option<Obstacle> {
    if nic.ours.is_none() {
        return Some(foreign(nic));
    }
    match nic.modern {
        _ if (nic.ids.vendor, nic.ids.device) != TRANSITIONAL => None,
        Some(true) => None,
        Some(false) => Some(Obstacle::new(
            "it has only virtio's legacy interface",
            "give the guest a modern one (QEMU: disable-legacy=on)",
        )),
        None => Some(Obstacle::new(
            "only root sees whether it has virtio's modern interface",
            "sudo polder nic list",
        )),
    }
}

/// A card that Polder has no driver for, but perhaps one for its VFs.
fn foreign(nic: &Nic) -> Obstacle {
    const PF: &str = "a PF; Polder drives its VFs";
    match nic.sriov.filter(|_| nic.ours_for_vfs().is_some()) {
        Some(sriov) if sriov.now > 0 => Obstacle::fixed(PF),
        Some(_) => Obstacle::new(PF, format!("sudo polder nic vfs {} 2", nic.bdf)),
        None => Obstacle::fixed("Polder has no driver for it"),
    }
}

fn in_use(nic: &Nic) -> Option<Obstacle> {
    let up = nic.interface_up()?;
    let mend = format!("if nobody is reached by it: sudo ip link set {up} down");
    Some(Obstacle::new(format!("the kernel uses it: {up} is up"), mend))
}

fn no_vfio(nic: &Nic, machine: &Machine) -> Option<Obstacle> {
    if nic.group.is_none() && !machine.sysfs().allows_no_iommu() {
        return Some(Obstacle::of_machine("the IOMMU is off, or there is none", "polder doctor"));
    }
    let loaded = machine.sysfs().has_driver(VFIO);
    (!loaded)
        .then(|| Obstacle::of_machine("the kernel's driver vfio-pci is not loaded", "sudo modprobe vfio-pci"))
}

fn with_the_kernel(nic: &Nic) -> Option<Obstacle> {
    let what = match nic.driver.as_deref() {
        Some(VFIO) => return None,
        Some(driver) => format!("it is with the kernel's {driver}"),
        None => "it is not with vfio-pci".to_owned(),
    };
    Some(Obstacle::new(what, format!("sudo polder nic bind {}", nic.bdf)))
}

fn group_not_viable(nic: &Nic) -> Option<Obstacle> {
    let group = nic.group.as_ref()?;
    let blamed: Vec<&Member> = group.in_the_way(nic.bdf).collect();
    let named: Vec<String> = blamed.iter().map(|member| member_with_driver(member)).collect();
    let binds: Vec<String> =
        blamed.iter().map(|member| format!("sudo polder nic bind {}", member.bdf)).collect();
    let what = format!("its group {} is not viable: {}", group.number, named.join(", "));
    (!blamed.is_empty()).then(|| Obstacle::new(what, binds.join("; ")))
}

fn pf_with_vfio(nic: &Nic) -> Option<Obstacle> {
    let pf = nic.pf.as_ref().filter(|pf| pf.driver.as_deref() == Some(VFIO))?;
    let what = format!(
        "its PF {} is with vfio-pci, too: it opens only with token=UUID, from the program that has that",
        pf.bdf
    );
    Some(Obstacle::new(what, format!("sudo polder nic unbind {}", pf.bdf)))
}

fn no_access(nic: &Nic, machine: &Machine) -> Option<Obstacle> {
    let group = nic.group.as_ref()?;
    let path = group_path(group);
    match machine.group_access(group) {
        GroupAccess::Free => None,
        GroupAccess::Busy => Some(Obstacle::fixed("a program has it")),
        GroupAccess::Denied => {
            Some(Obstacle::new(format!("{path} may not be opened"), format!("sudo chown $USER {path}")))
        }
        GroupAccess::Broken(e) => {
            Some(Obstacle::new(format!("{path}: {e}"), "sudo modprobe -a vfio-pci vfio_iommu_type1"))
        }
    }
}

/// What takes a member of a group out of the others' way.
pub(super) fn bind(member: &Member) -> String {
    if member.class.is_some_and(Class::is_network) {
        format!("sudo polder nic bind {}", member.bdf)
    } else {
        format!("if the system can do without: sudo polder nic bind {} --force", member.bdf)
    }
}

/// How a member of a group is shown: `0000:01:00.1 (e1000e)`, or without the driver that it has not.
pub(super) fn member_with_driver(member: &Member) -> String {
    let driver = member.driver.as_ref().map_or_else(String::new, |driver| format!(" ({driver})"));
    format!("{}{driver}", member.bdf)
}

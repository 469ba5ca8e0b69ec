//! What keeps a network card from being driven by Polder. Nothing is said on a machine that has none for it.

mod iommu;
mod pages;
mod policy;
mod vfio;

use pmd::bus::pci::{Bdf, PciError};

use super::Check;
use crate::nic::{Machine, Nic, survey};

/// The cards of this machine that matter here.
pub(super) struct Nics {
    all: Vec<Nic>,
    /// Those that ports of a running switch are on; unknown if none runs.
    ports: Option<Vec<Bdf>>,
    /// Why the look at them failed, if it did.
    fault: Option<PciError>,
}

impl Nics {
    /// Looks for cards that Polder drives, or whose VFs it does, and that the kernel does not use.
    pub(super) fn find(machine: &Machine, ports: Option<Vec<Bdf>>) -> Self {
        let (mut all, fault) = survey(machine).map_or_else(|e| (Vec::new(), Some(e)), |all| (all, None));
        all.retain(matters);
        Self { all, ports, fault }
    }

    /// How many cards a switch would open as things are: at least one, if any matters.
    pub(super) fn to_open(&self) -> usize {
        let with_vfio = self.all.iter().filter(|nic| nic.is_with_vfio()).count();
        let ports = self.ports.as_ref().map(Vec::len).filter(|ports| *ports > 0);
        ports.unwrap_or(with_vfio.max(1)).min(self.all.len())
    }

    /// All that there is to say.
    pub(super) fn checks(&self, machine: &Machine) -> Vec<Check> {
        if let Some(fault) = &self.fault {
            return vec![Check::warn("nic", fault.to_string(), "mount -t sysfs sysfs /sys")];
        }
        if self.all.is_empty() {
            return Vec::new();
        }
        let mut checks = vec![iommu::check(machine)];
        checks.extend(vfio::checks(machine));
        // Those that stay with the kernel beside one that does not are no fault.
        let some_with_vfio = self.all.iter().any(Nic::is_with_vfio);
        checks.extend(self.all.iter().filter_map(|nic| card(nic, some_with_vfio && !nic.is_with_vfio())));
        checks.extend(pages::checks(machine, &self.all));
        checks.extend(policy::checks(machine, &self.all, self.ports.as_deref()));
        checks
    }
}

fn matters(nic: &Nic) -> bool {
    nic.ours_for_vfs().is_some() || (nic.ours.is_some() && nic.interface_up().is_none())
}

/// One card by itself; what is in every card's way is said elsewhere. `spare`: one that need not be usable.
fn card(nic: &Nic, spare: bool) -> Option<Check> {
    const NAME: &str = "nic";
    let at = format!("{} ({})", nic.bdf, nic.name);
    if nic.ours.is_none() {
        return Some(pf(nic, &at));
    }
    let Some(obstacle) = &nic.verdict.obstacle else { return Some(Check::ok(NAME, format!("{at}: usable"))) };
    let found = format!("{at}: {}", obstacle.what);
    match &obstacle.mend {
        _ if obstacle.of_machine => None,
        Some(mend) if spare => Some(Check::ok(NAME, format!("{found}; {mend}"))),
        Some(mend) => Some(Check::warn(NAME, found, mend)),
        None => Some(Check::ok(NAME, found)),
    }
}

/// A PF without VFs is no fault.
fn pf(nic: &Nic, at: &str) -> Check {
    let found = match nic.sriov.map_or(0, |sriov| sriov.now) {
        0 => format!("{at}: makes VFs, has none; sudo polder nic vfs {} 2", nic.bdf),
        now => format!("{at}: has {now} VFs"),
    };
    Check::ok("nic", found)
}

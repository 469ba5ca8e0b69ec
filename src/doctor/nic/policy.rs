//! What PFs hold VFs to.

use pmd::bus::pci::Bdf;

use super::super::Check;
use crate::nic::{Machine, Nic, Obstacle, Policy, in_the_way};

/// What is in the way of VFs that are, or as far as is known might be, ports of a switch (`ports`: those that are); and of
/// all others, whether they can forge.
pub(super) fn checks(machine: &Machine, nics: &[Nic], ports: Option<&[Bdf]>) -> Vec<Check> {
    let mut checks = Vec::new();
    for nic in nics {
        let Some(pf) = &nic.pf else { continue };
        let policy = Policy::of(pf, machine);
        let ours = ports.map_or(nic.is_with_vfio(), |ports| ports.contains(&nic.bdf));
        let found = match (&policy, ours) {
            (policy, true) => in_the_way(policy.as_ref(), nic),
            (Some(policy), false) if ports.is_some_and(|ports| !ports.is_empty()) => {
                policy.forgeable(nic).into_iter().collect()
            }
            _ => Vec::new(),
        };
        checks.extend(found.iter().map(|obstacle| warning(nic, obstacle)));
    }
    checks
}

fn warning(nic: &Nic, obstacle: &Obstacle) -> Check {
    let mend = obstacle.mend.as_deref().unwrap_or("`polder nic list` tells more");
    Check::warn("vf-policy", format!("{}: {}", nic.bdf, obstacle.what), mend)
}

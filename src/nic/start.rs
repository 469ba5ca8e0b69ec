//! A look at a card's policy when a port on it starts.

use pmd::bus::pci::Bdf;

use super::survey::cards;
use super::{Machine, Nic, Obstacle, Policy, policy};

/// What is to be said when a port starts on the card at `bdf`, a line each with the command that mends it: its PF's policy
/// may be in a switch's way, and other VFs of that PF may be free to forge addresses. `ports`: where the switch's ports
/// sit, this one among them. Nothing is said of what cannot be found out.
pub(crate) fn warnings_at_start(machine: &Machine, bdf: Bdf, ports: &[Bdf]) -> Vec<String> {
    let nics = cards(machine).unwrap_or_default();
    let Some(pf) = nics.iter().find(|nic| nic.bdf == bdf).and_then(|nic| nic.pf.as_ref()) else {
        return Vec::new();
    };
    let policy = Policy::of(pf, machine);
    let of_this_pf = |nic: &&Nic| nic.pf.as_ref().is_some_and(|other| other.bdf == pf.bdf);
    let found = nics.iter().filter(of_this_pf).flat_map(|nic| {
        let found = if nic.bdf == bdf {
            policy::in_the_way(policy.as_ref(), nic)
        } else if ports.contains(&nic.bdf) {
            Vec::new()
        } else {
            policy.as_ref().and_then(|policy| policy.forgeable(nic)).into_iter().collect()
        };
        found.into_iter().map(|obstacle| line(nic.bdf, &obstacle))
    });
    found.collect()
}

fn line(bdf: Bdf, obstacle: &Obstacle) -> String {
    let mend = obstacle.mend.as_ref().map_or_else(String::new, |mend| format!("; {mend}"));
    format!("{bdf}: {}{mend}", obstacle.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::MachineArgs;

    #[test]
    fn nothing_is_said_of_what_is_no_vf() {
        let machine = Machine::new(MachineArgs::default());
        let bdf = "ffff:ff:1f.7".parse().unwrap();
        assert!(warnings_at_start(&machine, bdf, &[bdf]).is_empty());
    }
}

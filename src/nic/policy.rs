//! What a PF's driver holds a VF to, and what of it is in a switch's way.

use pmd::bus::pci::{LinkPolicy, VfConfig, vf_configs};

use super::survey::Pf;
use super::{Machine, Nic, Obstacle};

/// The policies of one PF.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The PF's interface.
    interface: String,
    /// Its VFs, in their order.
    vfs: Vec<VfConfig>,
}

impl Policy {
    /// Asks the kernel. `None` if the PF has no interface here, or the machine is made up.
    pub(crate) fn of(pf: &Pf, machine: &Machine) -> Option<Self> {
        let interface = pf.interfaces.first()?.name.clone();
        let vfs = if machine.is_this_one() { vf_configs(&interface).ok()? } else { return None };
        Some(Self { interface, vfs })
    }

    /// What is in the way of a VF that is to be a port of the switch: an uplink sends frames from the guests' addresses.
    pub(crate) fn obstacles(&self, nic: &Nic) -> Vec<Obstacle> {
        let Some(number) = nic.pf.as_ref().and_then(|pf| pf.vf_number) else { return Vec::new() };
        let Some(vf) = self.vfs.iter().find(|vf| vf.number as usize == number) else { return Vec::new() };
        let mend = |order: &str| format!("sudo ip link set {} vf {number} {order}", self.interface);
        let mut found = Vec::new();
        if vf.mac == [0; 6] {
            let what = "its PF lays down no Ethernet address: it makes up another at each start";
            found.push(Obstacle::new(what, mend(&format!("mac {}", stable_mac(nic)))));
        }
        if vf.spoof_check == Some(true) {
            let what =
                "spoof check is on: the card drops what guests send through it, as the addresses are theirs";
            found.push(Obstacle::new(what, mend("spoofchk off")));
        }
        if vf.trusted == Some(false) {
            let what = "it is not trusted: its PF may refuse it further addresses and promiscuous mode";
            found.push(Obstacle::new(what, mend("trust on")));
        }
        if vf.link == Some(LinkPolicy::Disable) {
            found.push(Obstacle::new("its PF holds its link down", mend("state auto")));
        }
        found
    }

    /// Of a VF that somebody else has: that he could send from any address, also from those of guests behind this switch.
    pub(crate) fn forgeable(&self, nic: &Nic) -> Option<Obstacle> {
        let number = nic.pf.as_ref()?.vf_number?;
        let vf = self.vfs.iter().find(|vf| vf.number as usize == number)?;
        let what = "spoof check is off: whoever has it can send from addresses of guests behind this switch";
        let mend = format!("sudo ip link set {} vf {number} spoofchk on", self.interface);
        (vf.spoof_check == Some(false)).then(|| Obstacle::new(what, mend))
    }
}

/// What a VF that is to be a port has in its way, from its PF on.
pub(crate) fn in_the_way(policy: Option<&Policy>, nic: &Nic) -> Vec<Obstacle> {
    let of_pf = nic.pf.as_ref().and_then(pf_obstacle);
    of_pf.into_iter().chain(policy.map(|policy| policy.obstacles(nic)).unwrap_or_default()).collect()
}

/// What of a PF's interface is in its VFs' way.
fn pf_obstacle(pf: &Pf) -> Option<Obstacle> {
    let interface = pf.interfaces.first()?;
    let name = &interface.name;
    let (what, mend) = match (interface.up, interface.carrier) {
        (false, _) => ("is down, and the VF's link with it", format!("sudo ip link set {name} up")),
        (true, Some(false)) => ("has no carrier", format!("look at the cable, and at `ethtool {name}`")),
        _ => return None,
    };
    Some(Obstacle::new(format!("its PF's interface {name} {what}"), mend))
}

/// A locally administered unicast address made of where the card sits: the same each time it is asked for.
fn stable_mac(nic: &Nic) -> String {
    let at = nic.bdf;
    let place = (at.device() << 3) | at.function();
    format!("02:50:{:02x}:{:02x}:{:02x}:{place:02x}", (at.domain() >> 8) as u8, at.domain() as u8, at.bus())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vf(number: u32, spoof_check: bool) -> VfConfig {
        let link = Some(LinkPolicy::Auto);
        VfConfig {
            number,
            mac: [2, 0, 0, 0, 0, 1],
            spoof_check: Some(spoof_check),
            trusted: Some(true),
            link,
        }
    }

    fn policy(vfs: &[VfConfig]) -> Policy {
        Policy { interface: "enp1s0".to_owned(), vfs: vfs.to_vec() }
    }

    fn nic(number: usize) -> Nic {
        let interfaces =
            vec![pmd::bus::pci::NetInterface { name: "enp1s0".to_owned(), ..Default::default() }];
        let bdf = "01:00.0".parse().unwrap();
        let pf = Some(Pf { bdf, driver: Some("igb".to_owned()), interfaces, vf_number: Some(number) });
        Nic { pf, ..Nic::nowhere("01:10.2".parse().unwrap()) }
    }

    #[test]
    fn what_suits_a_switch_is_not_in_the_way() {
        assert_eq!(policy(&[vf(0, true), vf(1, false)]).obstacles(&nic(1)), []);
        assert_eq!(policy(&[]).obstacles(&nic(1)), []);
    }

    #[test]
    fn each_thing_in_the_way_has_its_command() {
        let bad = VfConfig {
            mac: [0; 6],
            spoof_check: Some(true),
            trusted: Some(false),
            link: Some(LinkPolicy::Disable),
            ..vf(1, true)
        };
        let found = policy(&[bad]).obstacles(&nic(1));
        let mends: Vec<_> = found.iter().filter_map(|o| o.mend.as_deref()).collect();
        let of = |order| format!("sudo ip link set enp1s0 vf 1 {order}");
        assert_eq!(
            mends,
            [of("mac 02:50:00:00:01:82"), of("spoofchk off"), of("trust on"), of("state auto")]
        );
    }

    #[test]
    fn a_vf_of_somebody_else_that_can_forge() {
        let policy = policy(&[vf(0, true), vf(1, false)]);
        assert_eq!(policy.forgeable(&nic(0)), None);
        let mend = policy.forgeable(&nic(1)).and_then(|o| o.mend);
        assert_eq!(mend.as_deref(), Some("sudo ip link set enp1s0 vf 1 spoofchk on"));
    }

    #[test]
    fn a_pf_that_is_down() {
        let mut pf = nic(0).pf.unwrap();
        assert!(pf_obstacle(&pf).unwrap().mend.unwrap().ends_with("enp1s0 up"));
        pf.interfaces[0].up = true;
        assert_eq!(pf_obstacle(&pf), None);
        pf.interfaces[0].carrier = Some(false);
        assert!(pf_obstacle(&pf).unwrap().what.contains("carrier"));
    }
}

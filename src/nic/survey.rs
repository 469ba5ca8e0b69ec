//! A look at the network cards of a machine.

use pmd::bus::PciIds;
use pmd::bus::pci::{Bdf, Class, Function, IommuGroup, NetInterface, PciError, Sriov, VFIO};

use super::known::{Driver, Names, TRANSITIONAL, driver_for};
use super::{Machine, Verdict};

/// A network card: one PCI function, and all that there is to say of it.
#[derive(Debug)]
pub(crate) struct Nic {
    pub(crate) bdf: Bdf,
    pub(crate) ids: PciIds,
    /// What it is called.
    pub(crate) name: String,
    /// The kernel's driver on it.
    pub(crate) driver: Option<String>,
    pub(crate) numa_node: Option<u32>,
    pub(crate) group: Option<IommuGroup>,
    /// Of a VF: its PF.
    pub(crate) pf: Option<Pf>,
    /// Of a PF: how many VFs.
    pub(crate) sriov: Option<Sriov>,
    pub(crate) interfaces: Vec<NetInterface>,
    /// The driver of Polder's that would take it.
    pub(crate) ours: Option<Driver>,
    /// Of a transitional virtio device: whether it has the modern interface, which only root can see.
    pub(crate) modern: Option<bool>,
    /// Whether Polder can drive it as things are.
    pub(crate) verdict: Verdict,
}

/// The physical function of a VF.
#[derive(Debug)]
pub(crate) struct Pf {
    pub(crate) bdf: Bdf,
    /// The kernel's driver on it.
    pub(crate) driver: Option<String>,
    /// Its interfaces.
    pub(crate) interfaces: Vec<NetInterface>,
    /// Which of its VFs this is: `ip link set PF vf NUMBER ..`.
    pub(crate) vf_number: Option<usize>,
}

impl Nic {
    /// Whether it is where a program can open it.
    pub(crate) fn is_with_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO)
    }

    /// Its interface that is up, so that somebody may be reached by it.
    pub(crate) fn interface_up(&self) -> Option<&str> {
        self.interfaces.iter().find(|i| i.up).map(|i| i.name.as_str())
    }

    /// The driver of Polder's that would take its VFs.
    pub(crate) fn ours_for_vfs(&self) -> Option<Driver> {
        let vf = PciIds { device: self.sriov?.vf_device?, ..self.ids };
        driver_for(&vf)
    }

    fn read(machine: &Machine, names: &Names, function: &Function) -> Result<Self, PciError> {
        let ids = function.ids()?;
        let transitional = (ids.vendor, ids.device) == TRANSITIONAL;
        Ok(Self {
            bdf: function.bdf(),
            ids,
            name: names.name(&ids),
            driver: function.driver(),
            numa_node: function.numa_node(),
            group: function.iommu_group()?,
            pf: function.physfn().map(|pf| Pf::read(machine, pf, function)).transpose()?,
            sriov: function.sriov(),
            interfaces: function.interfaces()?,
            ours: driver_for(&ids),
            modern: transitional.then(|| modern(function)).flatten(),
            verdict: Verdict::default(),
        })
    }
}

#[cfg(test)]
impl Nic {
    /// One that nothing is known of.
    pub(crate) fn nowhere(bdf: Bdf) -> Self {
        Self {
            bdf,
            ids: PciIds::default(),
            name: String::new(),
            driver: None,
            numa_node: None,
            group: None,
            pf: None,
            sriov: None,
            interfaces: Vec::new(),
            ours: None,
            modern: None,
            verdict: Verdict::default(),
        }
    }
}

impl Pf {
    fn read(machine: &Machine, bdf: Bdf, vf: &Function) -> Result<Self, PciError> {
        let pf = machine.sysfs().function(bdf)?;
        Ok(Self { bdf, driver: pf.driver(), interfaces: pf.interfaces()?, vf_number: vf.vf_number() })
    }
}

fn modern(function: &Function) -> Option<bool> {
    pmd::bus::pci::is_modern_virtio(&function.config().ok()?)
}

/// Looks at all network cards, in the order of the bus. Opens, for a moment, what a program would open to have one: whoever
/// does so in that moment finds it taken.
pub(crate) fn survey(machine: &Machine) -> Result<Vec<Nic>, PciError> {
    let mut nics = cards(machine)?;
    for nic in &mut nics {
        nic.verdict = Verdict::of(nic, machine);
    }
    Ok(nics)
}

/// The same without a verdict on them, and without opening anything. A card that goes away meanwhile is left out.
pub(crate) fn cards(machine: &Machine) -> Result<Vec<Nic>, PciError> {
    let names = Names::of(machine);
    let mut nics = Vec::new();
    for function in machine.sysfs().functions()? {
        if !function.class().is_ok_and(Class::is_network) {
            continue;
        }
        match Nic::read(machine, &names, &function) {
            Ok(nic) => nics.push(nic),
            Err(_) if machine.sysfs().function(function.bdf()).is_err() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(nics)
}

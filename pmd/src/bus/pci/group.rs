//! IOMMU groups: functions that the IOMMU cannot tell apart, so that VFIO gives all of them to a program or none.

use super::sysfs::{entries, text};
use super::{Bdf, Class, Function, PciError, Sysfs};

/// A group and who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuGroup {
    /// Its number: a program opens `/dev/vfio/NUMBER`.
    pub number: u32,
    /// All its functions, in the order of the bus.
    pub members: Vec<Member>,
    /// VFIO made it up for a function without an IOMMU: it protects nobody, and a program opens
    /// `/dev/vfio/noiommu-NUMBER`.
    pub no_iommu: bool,
}

/// A function in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it sits.
    pub bdf: Bdf,
    /// The kernel's driver on it.
    pub driver: Option<String>,
    /// What kind of thing it is, if sysfs tells.
    pub class: Option<Class>,
}

impl Member {
    fn read(sysfs: &Sysfs, bdf: Bdf) -> Self {
        let function = sysfs.function(bdf).ok();
        let driver = function.as_ref().and_then(Function::driver);
        Self { bdf, driver, class: function.and_then(|f| f.class().ok()) }
    }

    /// Whether the kernel gives the group away with this function in it: one that nobody drives, that VFIO has, or whose
    /// driver masters no memory (ports and bridges).
    #[must_use]
    pub fn lets_go(&self) -> bool {
        let harmless = |driver: &str| driver.contains("vfio") || ["pci-stub", "pcieport"].contains(&driver);
        self.driver.as_deref().is_none_or(harmless)
    }
}

impl IommuGroup {
    pub(super) fn read(sysfs: &Sysfs, number: u32) -> Result<Self, PciError> {
        let names = entries(&sysfs.path(format!("kernel/iommu_groups/{number}/devices")))?;
        let mut bdfs: Vec<Bdf> = names.iter().filter_map(|name| name.parse().ok()).collect();
        bdfs.sort_unstable();
        let members = bdfs.into_iter().map(|bdf| Member::read(sysfs, bdf)).collect();
        let name = text(&sysfs.path(format!("kernel/iommu_groups/{number}/name")));
        Ok(Self { number, members, no_iommu: name.as_deref() == Some("vfio-noiommu") })
    }

    /// Those in it besides `bdf`.
    pub fn others(&self, bdf: Bdf) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.bdf != bdf)
    }

    /// Those besides `bdf` that keep the group from being viable.
    pub fn in_the_way(&self, bdf: Bdf) -> impl Iterator<Item = &Member> {
        self.others(bdf).filter(|member| !member.lets_go())
    }
}

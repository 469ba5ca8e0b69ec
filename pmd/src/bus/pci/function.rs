//! One PCI function, as sysfs tells of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::interface::NetInterface;
use super::sysfs::{entries, link_name, must_hex, must_text, text};
use super::{Bdf, IommuGroup, PciError, Sysfs};
use crate::bus::PciIds;

/// A function of a PCI device. Each question is asked of the kernel anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    sysfs: Sysfs,
    bdf: Bdf,
    dir: PathBuf,
}

/// What a function's class code says it is (PCI Code and ID Assignment 1.11 §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u32);

/// What a physical function says of its VFs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// Most VFs that its driver makes.
    pub most: u16,
    /// VFs that there are.
    pub now: u16,
    /// The VFs' device ID, if the kernel tells.
    pub vf_device: Option<u16>,
}

/// A BAR, as the kernel placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Which, 0 to 5.
    pub bar: u8,
    /// Where on the bus.
    pub start: u64,
    /// Size in bytes, at least 1.
    pub bytes: u64,
    /// Memory; else I/O ports.
    pub memory: bool,
}

impl Class {
    /// From the 24 bits of configuration space: base class, subclass, programming interface.
    #[must_use]
    pub fn new(code: u32) -> Self {
        Self(code & 0xff_ffff)
    }

    /// The 24 bits.
    #[must_use]
    pub fn code(self) -> u32 {
        self.0
    }

    /// A network controller: base class 02h.
    #[must_use]
    pub fn is_network(self) -> bool {
        self.0 >> 16 == 0x02
    }

    /// A bridge of whatever kind: base class 06h.
    #[must_use]
    pub fn is_bridge(self) -> bool {
        self.0 >> 16 == 0x06
    }
}

impl Function {
    pub(super) fn new(sysfs: Sysfs, bdf: Bdf) -> Self {
        let dir = sysfs.path("bus/pci/devices").join(bdf.to_string());
        Self { sysfs, bdf, dir }
    }

    /// Where it sits.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// The handle that it came from.
    #[must_use]
    pub fn sysfs(&self) -> &Sysfs {
        &self.sysfs
    }

    /// A file of its folder.
    #[must_use]
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.dir.join(file)
    }

    /// Who made it and what it is.
    ///
    /// # Errors
    /// [`PciError`] if sysfs does not tell.
    pub fn ids(&self) -> Result<PciIds, PciError> {
        let word = |file: &str| must_hex(&self.path(file)).map(|id| id as u16);
        Ok(PciIds {
            vendor: word("vendor")?,
            device: word("device")?,
            subsystem_vendor: word("subsystem_vendor")?,
            subsystem: word("subsystem_device")?,
            revision: word("revision")? as u8,
        })
    }

    /// What kind of thing it is.
    ///
    /// # Errors
    /// [`PciError`] if sysfs does not tell.
    pub fn class(&self) -> Result<Class, PciError> {
        must_hex(&self.path("class")).map(Class::new)
    }

    /// The kernel's driver on it, if any.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        link_name(&self.path("driver"))
    }

    /// The one driver that may take it, if that was laid down.
    #[must_use]
    pub fn driver_override(&self) -> Option<String> {
        text(&self.path("driver_override")).filter(|name| !name.is_empty() && name != "(null)")
    }

    /// The NUMA node that it sits at, if the system knows.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        text(&self.path("numa_node"))?.parse().ok()
    }

    /// The functions that it cannot be separated from; `None` without an IOMMU.
    ///
    /// # Errors
    /// [`PciError`] if the group's members cannot be read.
    pub fn iommu_group(&self) -> Result<Option<IommuGroup>, PciError> {
        let number = link_name(&self.path("iommu_group")).and_then(|name| name.parse().ok());
        number.map(|number| IommuGroup::read(&self.sysfs, number)).transpose()
    }

    /// Of a VF: its PF.
    #[must_use]
    pub fn physfn(&self) -> Option<Bdf> {
        link_name(&self.path("physfn"))?.parse().ok()
    }

    /// Of a PF: its VFs, in the order in which `ip link set PF vf N` counts them.
    ///
    /// # Errors
    /// [`PciError::Read`] if its folder cannot be read.
    pub fn virtfns(&self) -> Result<Vec<Bdf>, PciError> {
        let number = |name: &String| name.strip_prefix("virtfn")?.parse::<u16>().ok();
        let mut numbers: Vec<u16> = entries(&self.dir)?.iter().filter_map(number).collect();
        numbers.sort_unstable();
        let at = |n: u16| link_name(&self.path(format!("virtfn{n}")))?.parse().ok();
        Ok(numbers.into_iter().filter_map(at).collect())
    }

    /// Of a VF: which of its PF's it is, from 0.
    #[must_use]
    pub fn vf_number(&self) -> Option<usize> {
        let pf = self.sysfs.function(self.physfn()?).ok()?;
        pf.virtfns().ok()?.iter().position(|vf| *vf == self.bdf)
    }

    /// Of a PF: how many VFs it has and may have; `None` if it makes none.
    #[must_use]
    pub fn sriov(&self) -> Option<Sriov> {
        let number = |file: &str| text(&self.path(file))?.parse::<u16>().ok();
        let most = number("sriov_totalvfs").filter(|most| *most > 0)?;
        let vf_device = text(&self.path("sriov_vf_device"));
        let vf_device = vf_device.and_then(|id| u16::from_str_radix(id.trim_start_matches("0x"), 16).ok());
        Some(Sriov { most, now: number("sriov_numvfs").unwrap_or(0), vf_device })
    }

    /// The kernel's interfaces on it, by name. Those in another network namespace than sysfs was mounted in are not seen.
    ///
    /// # Errors
    /// [`PciError::Read`] if its folders cannot be read.
    pub fn interfaces(&self) -> Result<Vec<NetInterface>, PciError> {
        // virtio-net's interface hangs on the virtio device, which hangs on the function.
        let virtio = entries(&self.dir)?.into_iter().filter(|name| name.starts_with("virtio"));
        let mut found = Vec::new();
        for holder in virtio.map(|name| self.path(name)).chain([self.dir.clone()]) {
            let names = entries(&holder.join("net"))?;
            found.extend(names.into_iter().map(|name| NetInterface::read(&holder.join("net"), name)));
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Its BARs that have a size.
    ///
    /// # Errors
    /// [`PciError`] if the file cannot be read, or is no table of start, end and flags.
    pub fn resources(&self) -> Result<Vec<Resource>, PciError> {
        let path = self.path("resource");
        let table = must_text(&path)?;
        let lines = table.lines().take(6).enumerate();
        let bars: Option<Vec<_>> = lines.map(|(bar, line)| resource(bar as u8, line)).collect();
        let wrong = || PciError::Contents {
            path,
            found: table.chars().take(60).collect(),
            wanted: "lines of start, end and flags",
        };
        Ok(bars.ok_or_else(wrong)?.into_iter().flatten().collect())
    }

    /// Configuration space: 256 or 4096 bytes for root, 64 for others.
    ///
    /// # Errors
    /// [`PciError::Read`].
    pub fn config(&self) -> Result<Vec<u8>, PciError> {
        let path = self.path("config");
        fs::read(&path).map_err(|source| PciError::Read { path, source })
    }
}

/// A line of `resource`; `Some(None)` for a BAR that is not there.
fn resource(bar: u8, line: &str) -> Option<Option<Resource>> {
    const IORESOURCE_MEM: u64 = 0x200;
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let words: Option<Vec<u64>> = line.split_whitespace().map(number).collect();
    let &[start, end, flags] = words?.as_slice() else { return None };
    if flags == 0 || end < start {
        return Some(None);
    }
    let bytes = (end - start).saturating_add(1);
    Some(Some(Resource { bar, start, bytes, memory: flags & IORESOURCE_MEM != 0 }))
}

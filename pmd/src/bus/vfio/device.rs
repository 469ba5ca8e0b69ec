//! A device of VFIO's.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mbuf::{PageSize, Zone};
use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FLAGS_RESET, VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX,
};

use super::answer::Region;
use super::group::{Claim, Group, Home};
use super::mmio::Mmio;
use super::{Access, ioctl, iommufd};
use crate::alarm::Alarm;
use crate::bus::pci::{Bdf, Function, IommuGroup, PciError, Sysfs};
use crate::bus::{BusError, DmaMapping, PciDevice, PciIds};

/// PCI Local Bus 3.0 §6.1, §6.2.2, §6.2.5: configuration space.
const VENDOR: u16 = 0x00;
const COMMAND: u16 = 0x04;
const COMMAND_INTX_OFF: u16 = 1 << 10;
const REVISION: u16 = 0x08;
const BAR0: u16 = 0x10;
const BAR_IS_IO: u32 = 1;
const SUBSYSTEM: u16 = 0x2c;
/// BARs of a function.
const BARS: u8 = 6;

/// A PCI function that VFIO gave to this process. When it is dropped, and nobody uses its BARs any more, the kernel resets it
/// and takes it back; so it does when the process ends in any other way, before its memory goes to somebody else (N17).
pub struct VfioDevice {
    name: String,
    ids: PciIds,
    numa_node: Option<u32>,
    vectors: usize,
    can_reset: bool,
    config: Region,
    bars: Mutex<[Option<Arc<Mmio>>; BARS as usize]>,
    /// Whether MSI-X is on.
    interrupts: Mutex<bool>,
    /// Raised when the system wants the device back, where the kernel tells.
    removal: Option<Alarm>,
    open: Arc<Opened>,
}

/// What keeps a device open: it is closed when the last BAR is unmapped.
struct Opened {
    // In this order: a device is closed before its home is left, and only then may be opened again.
    fd: OwnedFd,
    home: Home,
    _claim: Claim,
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl core::fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VfioDevice").field("name", &self.name).field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl VfioDevice {
    /// Opens a function that is bound to vfio-pci.
    ///
    /// # Errors
    /// [`BusError`]: says what keeps it from being had, and the command that mends it.
    pub fn open(bdf: Bdf, access: &Access) -> Result<Self, BusError> {
        let function = Sysfs::default().function(bdf).map_err(|e| as_missing(&e))?;
        let group = check(&function, access)?;
        let claim = Claim::new(bdf)?;
        if access.noiommu {
            tracing::warn!(
                device = %bdf,
                "no IOMMU holds this device: whatever it is told or gets wrong, it can write anywhere in memory"
            );
        }
        let (home, fd) = open_in(&function, &group, access)?;
        Self::new(&function, Opened { fd, home, _claim: claim })
    }

    fn new(function: &Function, open: Opened) -> Result<Self, BusError> {
        let bdf = function.bdf();
        let ask = |what: &str| BusError::os(format!("cannot ask VFIO for the {what} of {bdf}"));
        let info = ioctl::device_info(open.as_fd()).map_err(ask("kind"))?;
        let config = ioctl::region_info(open.as_fd(), VFIO_PCI_CONFIG_REGION_INDEX);
        let vectors = ioctl::irq_count(open.as_fd(), VFIO_PCI_MSIX_IRQ_INDEX).unwrap_or(0);
        let mut device = Self {
            name: bdf.to_string(),
            ids: PciIds::default(),
            numa_node: function.numa_node(),
            vectors: vectors as usize,
            can_reset: info.flags() & VFIO_DEVICE_FLAGS_RESET != 0,
            config: Region::of(&config.map_err(ask("configuration space"))?),
            bars: Mutex::default(),
            interrupts: Mutex::new(false),
            removal: watch_removal(open.as_fd()),
            open: Arc::new(open),
        };
        device.ids = device.read_ids()?;
        device.intx_off()?;
        Ok(device)
    }

    fn read_ids(&self) -> Result<PciIds, BusError> {
        let mut revision = [0];
        self.read_config(REVISION, &mut revision)?;
        Ok(PciIds {
            vendor: self.read_config16(VENDOR)?,
            device: self.read_config16(VENDOR + 2)?,
            subsystem_vendor: self.read_config16(SUBSYSTEM)?,
            subsystem: self.read_config16(SUBSYSTEM + 2)?,
            revision: revision[0],
        })
    }

    /// Nobody listens to the interrupt line. (VFs have none.)
    fn intx_off(&self) -> Result<(), BusError> {
        if ioctl::irq_count(self.fd(), VFIO_PCI_INTX_IRQ_INDEX).unwrap_or(0) == 0 {
            return Ok(());
        }
        let command = self.read_config16(COMMAND)? | COMMAND_INTX_OFF;
        self.write_config(COMMAND, &command.to_le_bytes())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.open.as_fd()
    }

    fn lacks(&self, what: impl Into<String>) -> BusError {
        BusError::Lacks { device: self.name.clone(), what: what.into() }
    }

    fn map_bar(&self, index: u8) -> Result<Arc<Mmio>, BusError> {
        let what = || format!("no memory BAR {index}");
        if index >= BARS || self.read_config32(BAR0 + 4 * u16::from(index))? & BAR_IS_IO != 0 {
            return Err(self.lacks(what()));
        }
        let info = ioctl::region_info(self.fd(), VFIO_PCI_BAR0_REGION_INDEX + u32::from(index));
        let region = Region::of(
            &info.map_err(BusError::os(format!("cannot ask VFIO for BAR {index} of {}", self.name)))?,
        );
        if region.size == 0 {
            return Err(self.lacks(what()));
        }
        let device: Arc<Opened> = Arc::clone(&self.open);
        Ok(Arc::new(Mmio::new(device, &region)))
    }

    /// Where bytes of configuration space are in the descriptor.
    fn config_at(&self, offset: u16, len: usize) -> Result<u64, BusError> {
        let end = u64::from(offset) + len as u64;
        if end > self.config.size {
            return Err(
                self.lacks(format!("{:#x} bytes of configuration space, not {end:#x}", self.config.size))
            );
        }
        Ok(self.config.offset + u64::from(offset))
    }

    /// That `done` bytes of `wanted` were moved.
    fn config_done(
        &self,
        verb: &str,
        done: rustix::io::Result<usize>,
        wanted: usize,
    ) -> Result<(), BusError> {
        let what = || format!("cannot {verb} configuration space of {}", self.name);
        match done {
            Ok(n) if n == wanted => Ok(()),
            Ok(_) => Err(BusError::Os { what: what(), source: io::ErrorKind::UnexpectedEof.into() }),
            Err(error) => Err(BusError::Os { what: what(), source: error.into() }),
        }
    }
}

impl PciDevice for VfioDevice {
    type Bar = Mmio;

    fn name(&self) -> &str {
        &self.name
    }

    fn ids(&self) -> PciIds {
        self.ids
    }

    fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) -> Result<(), BusError> {
        let (at, wanted) = (self.config_at(offset, bytes.len())?, bytes.len());
        self.config_done("read", rustix::io::pread(self.fd(), bytes, at), wanted)
    }

    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError> {
        let at = self.config_at(offset, bytes.len())?;
        self.config_done("write", rustix::io::pwrite(self.fd(), bytes, at), bytes.len())
    }

    fn bar(&self, index: u8) -> Result<Arc<Mmio>, BusError> {
        let mut bars = lock(&self.bars);
        match bars.get(usize::from(index)) {
            Some(Some(mapped)) => Ok(Arc::clone(mapped)),
            Some(None) => {
                let mapped = self.map_bar(index)?;
                bars[usize::from(index)] = Some(Arc::clone(&mapped));
                Ok(mapped)
            }
            None => Err(self.lacks(format!("no BAR {index}"))),
        }
    }

    fn map(&self, zone: &Zone) -> Result<DmaMapping, BusError> {
        let home = self.open.home.clone();
        let offset = home.container().map(zone)?;
        let (base, len) = (zone.base().addr().get(), zone.len());
        Ok(DmaMapping::new(Unmap { home, base, len }, offset))
    }

    fn has_iommu(&self) -> bool {
        !self.open.home.container().is_noiommu()
    }

    fn area_pages(&self) -> PageSize {
        if self.has_iommu() { PageSize::Small4K } else { PageSize::Huge2M }
    }

    fn reset(&self) -> Result<(), BusError> {
        if !self.can_reset {
            return Err(self.lacks("no function-level reset that the kernel knows"));
        }
        ioctl::reset(self.fd()).map_err(BusError::os(format!("cannot reset {}", self.name)))
    }

    fn vectors(&self) -> usize {
        self.vectors
    }

    fn set_interrupts(&self, events: &[OwnedFd]) -> Result<(), BusError> {
        if events.len() > self.vectors {
            return Err(self.lacks(format!("{} interrupt vectors, not {}", self.vectors, events.len())));
        }
        let failed = || BusError::os(format!("cannot set the interrupts of {}", self.name));
        let mut on = lock(&self.interrupts);
        if *on {
            let none: [OwnedFd; 0] = [];
            ioctl::set_irqs(self.fd(), VFIO_PCI_MSIX_IRQ_INDEX, &none).map_err(failed())?;
            *on = false;
        }
        if !events.is_empty() {
            ioctl::set_irqs(self.fd(), VFIO_PCI_MSIX_IRQ_INDEX, events).map_err(failed())?;
            *on = true;
        }
        Ok(())
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        self.removal.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        // A BAR may outlive this and keep the device open: it is quiet at least. One that is gone is, too.
        let _ = self.quiesce();
        let _ = self.set_interrupts(&[]);
    }
}

/// Undoes a mapping, while the address space is still there.
struct Unmap {
    home: Home,
    base: usize,
    len: usize,
}

impl Drop for Unmap {
    fn drop(&mut self) {
        self.home.container().unmap(self.base, self.len);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_missing(error: &PciError) -> BusError {
    BusError::Missing(error.to_string())
}

/// What keeps the function from being opened, as far as sysfs knows; else its group.
fn check(function: &Function, access: &Access) -> Result<IommuGroup, BusError> {
    let bdf = function.bdf();
    let driver = function.driver();
    if !driver.as_deref().is_some_and(|name| name.contains("vfio")) {
        let holder =
            driver.map_or("with no driver".to_owned(), |name| format!("with the kernel's driver {name}"));
        return Err(BusError::Missing(format!("{bdf} is {holder}: sudo polder nic bind {bdf}")));
    }
    let group = function.iommu_group().map_err(|e| as_missing(&e))?;
    let group = group.ok_or_else(|| as_missing(&PciError::NoIommu(bdf)))?;
    match (group.no_iommu, access.noiommu) {
        (true, false) => Err(BusError::Missing(format!(
            "no IOMMU stands behind {bdf}: switch it on (`polder doctor` says how), or, where every program may be trusted \
             with all of memory, say so: vfio:{bdf},noiommu"
        ))),
        (false, true) => Err(BusError::Missing(format!("{bdf} has an IOMMU: leave `noiommu` out"))),
        _ => Ok(group),
    }
}

/// Opens the device, by its group; by its character device where that is all there is.
fn open_in(function: &Function, group: &IommuGroup, access: &Access) -> Result<(Home, OwnedFd), BusError> {
    let bdf = function.bdf();
    if iommufd::is_all_there_is() {
        return match access.token {
            Some(_) => Err(BusError::Missing(format!("{bdf}: tokens need a kernel with VFIO's containers"))),
            None => Home::without_group(function),
        };
    }
    let group = Group::get(group, bdf)?;
    let device = ioctl::device(group.fd(), &name_for(bdf, access));
    Ok((Home::Group(Arc::clone(&group)), device.map_err(|source| not_given(bdf, access, source))?))
}

/// How VFIO is asked for a device: by its address, and with the token that its PF's owner gave out.
fn name_for(bdf: Bdf, access: &Access) -> CString {
    let name = match &access.token {
        Some(token) => format!("{bdf} vf_token={token}"),
        None => bdf.to_string(),
    };
    CString::new(name).expect("digits, letters and punctuation")
}

/// Why VFIO does not give a device of its own group.
fn not_given(bdf: Bdf, access: &Access, source: io::Error) -> BusError {
    let hint = match (source.raw_os_error(), &access.token) {
        (Some(libc::EACCES), None) => {
            format!(
                "; a program has its PF by VFIO: vfio:{bdf},token=UUID, with the UUID that program was given"
            )
        }
        (Some(libc::EACCES), Some(_)) => "; the token is not the one that its PF was given".to_owned(),
        (Some(libc::EINVAL), Some(_)) => "; its PF is with the kernel: leave `token` out".to_owned(),
        (Some(libc::ENODEV), _) => format!("; sudo polder nic bind {bdf}"),
        (Some(libc::EBUSY), _) => "; another process has it".to_owned(),
        _ => String::new(),
    };
    BusError::Os { what: format!("VFIO does not give {bdf}{hint}"), source }
}

/// Has the kernel say when it wants the device back; None on kernels that cannot.
fn watch_removal(device: BorrowedFd<'_>) -> Option<Alarm> {
    let alarm = Alarm::new().ok()?;
    ioctl::set_irqs(device, VFIO_PCI_REQ_IRQ_INDEX, core::slice::from_ref(&alarm)).ok()?;
    Some(alarm)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    const BDF: &str = "0000:01:10.0";

    /// A sysfs with one function, with this driver, in group 5 of this name.
    fn tree(root: &Path, driver: Option<&str>, group: Option<&str>) -> Function {
        let function = root.join("bus/pci/devices").join(BDF);
        let members = root.join("kernel/iommu_groups/5/devices").join(BDF);
        for folder in [&function, &members] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(function.join("vendor"), "0x8086\n").unwrap();
        if let Some(name) = driver {
            symlink(format!("../../drivers/{name}"), function.join("driver")).unwrap();
        }
        if let Some(name) = group {
            symlink("../../../kernel/iommu_groups/5", function.join("iommu_group")).unwrap();
            fs::write(root.join("kernel/iommu_groups/5/name"), name).unwrap();
        }
        Sysfs::at(root).function(BDF.parse().unwrap()).unwrap()
    }

    fn checked(driver: Option<&str>, group: Option<&str>, noiommu: bool) -> Result<u32, String> {
        let root = tempfile::tempdir().unwrap();
        let function = tree(root.path(), driver, group);
        let group = check(&function, &Access { token: None, noiommu });
        group.map(|group| group.number).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_in_the_way_is_said_with_the_mend() {
        assert_eq!(checked(Some("vfio-pci"), Some(""), false), Ok(5));
        assert_eq!(checked(Some("vfio-pci"), Some("vfio-noiommu\n"), true), Ok(5));
        assert_eq!(checked(Some("mlx5_vfio_pci"), Some(""), false), Ok(5), "a variant for one card");
        let bind = "sudo polder nic bind 0000:01:10.0";
        let with_igbvf = checked(Some("igbvf"), Some(""), false).unwrap_err();
        assert!(with_igbvf.contains("driver igbvf") && with_igbvf.contains(bind), "{with_igbvf}");
        assert!(checked(None, Some(""), false).unwrap_err().contains(bind));
        assert!(checked(Some("vfio-pci"), None, false).unwrap_err().contains("no IOMMU group"));
        assert!(
            checked(Some("vfio-pci"), Some("vfio-noiommu"), false)
                .unwrap_err()
                .contains("vfio:0000:01:10.0,noiommu")
        );
        assert!(checked(Some("vfio-pci"), Some(""), true).unwrap_err().contains("leave `noiommu` out"));
    }

    #[test]
    fn a_token_stands_behind_the_address() {
        let bdf: Bdf = BDF.parse().unwrap();
        let access = Access { token: Some("14d63f20-8445-11ea-8900-1f9ce7d5650d".into()), noiommu: false };
        assert_eq!(
            name_for(bdf, &access).to_str().unwrap(),
            "0000:01:10.0 vf_token=14d63f20-8445-11ea-8900-1f9ce7d5650d"
        );
        let refused = |number, access: &Access| {
            not_given(bdf, access, io::Error::from_raw_os_error(number)).to_string()
        };
        assert!(refused(libc::EACCES, &Access::default()).contains("token=UUID"));
        assert!(refused(libc::EACCES, &access).contains("not the one"));
        assert!(refused(libc::EINVAL, &access).contains("leave `token` out"));
        assert!(refused(libc::ENODEV, &Access::default()).contains("polder nic bind"));
    }
}

//! The process's containers: what devices see of memory, one table for all of them.
#![expect(unsafe_code, reason = "hands memory to devices")]
// UNSAFETY: a zone is mapped for devices whole. They write only where their drivers point them (descriptor rings, which we
// reach as atomics, and the data of mbufs that a driver owns and nobody refers to while they are posted), and the kernel
// holds the pages until the mapping is undone, whatever becomes of the zone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mbuf::{Iova, Zone};
use vfio_bindings::bindings::vfio::{VFIO_NOIOMMU_IOMMU, VFIO_TYPE1v2_IOMMU};
use vfio_ioctls::{VfioContainer, VfioError};

use super::answer::IommuInfo;
use super::iommufd::Ioas;
use super::mappings::{Iommu, Mappings};
use super::memlock::Memlock;
use super::{ioctl, physical};
use crate::bus::BusError;

/// A container.
pub(super) enum Container {
    /// Behind an IOMMU.
    Type1(Mappings<Type1>),
    /// Without any: devices use physical addresses, and may use all of them.
    NoIommu(File),
    /// Behind an IOMMU, by iommufd: what character devices have in a container's place.
    Ioas(Mappings<Ioas>),
}

/// The kernel's type 1 IOMMU interface, second version: a mapping is undone as a whole.
pub(super) struct Type1(VfioContainer);

impl Container {
    /// A fresh one, still without a group and so without an IOMMU.
    pub(super) fn new(noiommu: bool) -> Result<Self, BusError> {
        if noiommu {
            let file = OpenOptions::new().read(true).write(true).open("/dev/vfio/vfio");
            return Ok(Self::NoIommu(file.map_err(not_opened)?));
        }
        let container = VfioContainer::new(None).map_err(|error| match error {
            VfioError::OpenContainer(source) => not_opened(source),
            VfioError::VfioExtension => {
                BusError::Missing("VFIO has no IOMMU driver: sudo modprobe vfio_iommu_type1".into())
            }
            other => BusError::Missing(format!("this kernel's VFIO is none that Polder knows: {other}")),
        })?;
        Ok(Self::Type1(Mappings::new(Type1(container))))
    }

    pub(super) fn is_noiommu(&self) -> bool {
        matches!(self, Self::NoIommu(_))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Type1(mappings) => mappings.iommu().fd(),
            Self::NoIommu(file) => file.as_fd(),
            Self::Ioas(mappings) => mappings.iommu().fd(),
        }
    }

    /// Maps a zone for all devices in it; says what must be added (wrapping) to the zone's addresses to make them theirs.
    /// To be undone by [`unmap`](Self::unmap), before the zone is dropped.
    pub(super) fn map(&self, zone: &Zone) -> Result<u64, BusError> {
        let iova = match self {
            Self::Type1(mappings) => mappings.map(zone, Memlock::now())?,
            Self::Ioas(mappings) => mappings.map(zone, Memlock::now())?,
            Self::NoIommu(_) => return physical::offset(zone),
        };
        Ok(iova.0.wrapping_sub(zone.base().addr().get() as u64))
    }

    /// One user less of the zone that begins at `base`.
    pub(super) fn unmap(&self, base: usize, len: usize) {
        match self {
            Self::Type1(mappings) => mappings.unmap(base, len),
            Self::Ioas(mappings) => mappings.unmap(base, len),
            Self::NoIommu(_) => {}
        }
    }

    /// Has the kernel choose the IOMMU driver, now that there is a group.
    pub(super) fn set_iommu(&self) -> io::Result<()> {
        ioctl::set_iommu(self.fd(), if self.is_noiommu() { VFIO_NOIOMMU_IOMMU } else { VFIO_TYPE1v2_IOMMU })
    }
}

fn not_opened(source: io::Error) -> BusError {
    let what = match source.kind() {
        io::ErrorKind::NotFound => {
            "cannot open /dev/vfio/vfio (sudo modprobe vfio-pci; a container needs /dev/vfio)"
        }
        io::ErrorKind::PermissionDenied => {
            "cannot open /dev/vfio/vfio (run this as root, or sudo chmod 666 /dev/vfio/vfio)"
        }
        _ => "cannot open /dev/vfio/vfio (sudo modprobe vfio-pci)",
    };
    BusError::Os { what: what.into(), source }
}

impl Type1 {
    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the container's descriptor, open as long as `self` is.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

impl Iommu for Type1 {
    fn info(&self) -> io::Result<IommuInfo> {
        Ok(IommuInfo::of(&ioctl::iommu_info(self.fd())?))
    }

    fn map(&self, zone: &Zone, iova: Iova) -> io::Result<()> {
        // SAFETY: the zone is one mapping of that length; who reads and writes it while devices may is said at the head.
        let mapped = unsafe { self.0.vfio_dma_map(iova.0, zone.len(), zone.base().as_ptr()) };
        mapped.map_err(os_error)
    }

    fn unmap(&self, iova: Iova, len: usize) -> io::Result<()> {
        self.0.vfio_dma_unmap(iova.0, len).map_err(os_error)
    }
}

fn os_error(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(e) | VfioError::IommuDmaUnmap(e) => io::Error::from_raw_os_error(e.errno()),
        other => io::Error::other(other),
    }
}

//! PCI functions by the kernel's VFIO: a program drives a device, and an IOMMU sees to it that the device reaches only what
//! the program gave it.
//!
//! | file | what it is |
//! |---|---|
//! | [`VfioDevice`] (device.rs) | a device: configuration space, BARs, DMA, interrupts, reset |
//! | [`Mmio`] (mmio.rs) | a BAR's registers |
//! | group.rs | what VFIO gives away as one, and which devices this process has |
//! | container.rs | the address space that all our devices share |
//! | mappings.rs, memlock.rs | which memory is in it, where, and what limits that |
//! | iommufd.rs | the same on kernels that have character devices in place of groups and containers; only compiled |
//! | physical.rs | addresses without an IOMMU |
//! | ioctl.rs, answer.rs | the kernel's calls, and what it answers |
//!
//! The container, its DMA mappings and their undoing are vfio-ioctls'. Groups and devices are our own few calls: that
//! crate's know neither VF tokens nor devices without an IOMMU, say of a group that is not viable only that, and swallow the
//! errors of resets and of accesses to configuration space.
//!
//! Source: the kernel's include/uapi/linux/vfio.h and Documentation/driver-api/vfio.rst.

mod answer;
mod container;
mod device;
mod group;
mod ioctl;
mod iommufd;
mod mappings;
mod memlock;
mod mmio;
mod physical;

pub use device::VfioDevice;
pub use mmio::Mmio;

/// How a device may be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The UUID that protects VFs whose PF is driven by VFIO, too, as that PF's program was given it.
    pub token: Option<String>,
    /// Take a device that no IOMMU holds: it can write anywhere in memory.
    pub noiommu: bool,
}

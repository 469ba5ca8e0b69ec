//! PCI by the kernel's sysfs: what sits on the bus, who drives it, and how it changes hands.
//!
//! [`Sysfs`] is the way in: it finds [`Function`]s by their [`Bdf`], and each answers one question at a time, from the
//! kernel and as of now. Three orders change something: [`Sysfs::bind_vfio`], [`Sysfs::unbind_vfio`], [`Sysfs::set_vfs`].
//! [`vf_configs`] asks a PF's driver what it holds its VFs to, which sysfs does not tell.
//!
//! Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci and sysfs-class-net, Documentation/driver-api/vfio.rst.
//!
//! ```no_run
//! use pmd::bus::pci::Sysfs;
//!
//! let sysfs = Sysfs::default();
//! for nic in sysfs.functions()? {
//!     if nic.class()?.is_network() {
//!         println!("{} is with {:?}", nic.bdf(), nic.driver());
//!     }
//! }
//! # Ok::<(), pmd::bus::pci::PciError>(())
//! ```

mod bdf;
mod capability;
mod change;
mod error;
mod function;
mod group;
mod interface;
mod sysfs;
mod vf_config;

pub use bdf::{BadBdf, Bdf};
pub use capability::is_modern_virtio;
pub use change::VFIO;
pub use error::PciError;
pub use function::{Class, Function, Resource, Sriov};
pub use group::{IommuGroup, Member};
pub use interface::NetInterface;
pub use sysfs::Sysfs;
pub use vf_config::{LinkPolicy, VfConfig, vf_configs};

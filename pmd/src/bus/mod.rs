//! Where NICs sit: PCI functions, their registers, and the memory that they read and write by themselves.
//!
//! A driver knows its device only by [`PciDevice`]. Behind VFIO that is the hardware; in tests it is a model in memory,
//! under the very same driver.
//!
//! | module | what it is |
//! |---|---|
//! | [`registers`] | registers in a BAR: little-endian loads and stores that the compiler neither merges nor moves |
//! | [`dma`] | memory that a device masters: mapped zones, and the areas that descriptor rings lie in |
//! | [`device`] | one PCI function under our control |
//! | [`pci`] | PCI by sysfs: what is there, who drives it, how it changes hands |
//! | [`vfio`] | a function by the kernel's VFIO |
//!
//! # Order of taking down
//! Bus mastering off, pending transactions done ([`PciDevice::quiesce`]), then unmap, then free: memory that a device may
//! still write to is never given to anybody else.

pub mod device;
pub mod dma;
mod error;
pub mod pci;
pub mod registers;
pub mod vfio;

pub use device::{PciDevice, PciIds};
pub use dma::{DmaArea, DmaMapping};
pub use error::BusError;
pub use registers::Registers;

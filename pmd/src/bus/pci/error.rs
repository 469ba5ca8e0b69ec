//! What can go wrong with the kernel's view of the bus, each with what to do.

use std::io;
use std::path::PathBuf;

use super::Bdf;

/// Why something could not be read from, or done by, sysfs. The text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// There is no such function.
    #[error("there is no PCI function {0}; `polder nic list` shows which there are")]
    NoSuchFunction(Bdf),
    /// A file of sysfs could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of sysfs holds what it never should.
    #[error("{} holds {found:?}, not {wanted}: no kernel that Polder knows writes this", path.display())]
    Contents {
        /// Which.
        path: PathBuf,
        /// What was found, cut short.
        found: String,
        /// What should have been there.
        wanted: &'static str,
    },
    /// The kernel did not take what was written to a file of sysfs.
    #[error("cannot write \"{text}\" to {}: {source}{}", path.display(), hint(source))]
    Write {
        /// Which.
        path: PathBuf,
        /// What was to be written.
        text: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The driver that hands functions to programs is not there.
    #[error("the kernel has no driver vfio-pci loaded: sudo modprobe vfio-pci")]
    NoVfio,
    /// The function is in no IOMMU group, so that VFIO does not give it away.
    #[error(
        "{0} is in no IOMMU group: the IOMMU is off or missing; `polder doctor` says how to switch it on"
    )]
    NoIommu(Bdf),
    /// It is a bridge: other functions are reached through it.
    #[error("{0} is a bridge, which stays with the kernel; name the network card behind it")]
    Bridge(Bdf),
    /// It is something else than a network card.
    #[error(
        "{0} is no network card but may be a disk or a console that the system needs; say --force if it does not"
    )]
    NotNetwork(Bdf),
    /// The kernel uses it, by an interface that is up.
    #[error(
        "{bdf} is the kernel's interface {interface}, which is up: whoever is reached by it would be cut off; \
         sudo ip link set {interface} down (or say --force)"
    )]
    InUse {
        /// The function.
        bdf: Bdf,
        /// Its interface.
        interface: String,
    },
    /// It is a PF whose VFs would lose their mailbox.
    #[error("{bdf} has {vfs} VFs, which need its kernel driver; sudo polder nic vfs {bdf} 0")]
    HasVfs {
        /// The PF.
        bdf: Bdf,
        /// How many.
        vfs: u16,
    },
    /// It makes no VFs.
    #[error("{0} has no SR-IOV; `polder nic list` shows in the column VFS which functions have")]
    NotPf(Bdf),
    /// It makes fewer VFs.
    #[error("{bdf} makes at most {most} VFs, not {asked}")]
    TooManyVfs {
        /// The PF.
        bdf: Bdf,
        /// What was asked for.
        asked: u16,
        /// What is possible.
        most: u16,
    },
    /// The kernel took the number, but the VFs did not come or did not go.
    #[error("{bdf} has {found} VFs, though {asked} were asked for; `dmesg | tail` says why")]
    VfsMissing {
        /// The PF.
        bdf: Bdf,
        /// What was asked for.
        asked: u16,
        /// What is there.
        found: usize,
    },
    /// The kernel took the request, but the driver is not on the function (or still is).
    #[error(
        "{bdf} is with {}, not with {}; `dmesg | tail` says why",
        found.as_deref().unwrap_or("no driver"), wanted.as_deref().unwrap_or("no driver")
    )]
    WrongDriver {
        /// The function.
        bdf: Bdf,
        /// The driver that was asked for.
        wanted: Option<String>,
        /// The driver that is there.
        found: Option<String>,
    },
    /// A change failed halfway, and what had been done could not be undone either.
    #[error("{first}; then, on the way back: {then}")]
    Halfway {
        /// Why the change failed.
        first: Box<PciError>,
        /// Why the way back failed.
        then: Box<PciError>,
    },
}

/// What to do about an error of a write, as far as its number tells.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (run this as root: sudo)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (sysfs is mounted read-only, as in a container: run this on the host)"
        }
        io::ErrorKind::ResourceBusy => " (somebody uses it)",
        io::ErrorKind::NotFound => " (the function has no kernel driver, or one that does not do this)",
        _ => "",
    }
}

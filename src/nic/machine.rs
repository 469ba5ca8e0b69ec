//! The machine that is looked at.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use pmd::bus::pci::{IommuGroup, Sysfs};

use crate::cli::MachineArgs;

/// This machine, or in tests a folder that stands for its `/`.
#[derive(Debug)]
pub(crate) struct Machine {
    root: PathBuf,
    sysfs: Sysfs,
}

/// How the file by which a program gets an IOMMU group answers.
#[derive(Debug)]
pub(crate) enum GroupAccess {
    /// It opens.
    Free,
    /// A program has it.
    Busy,
    /// This user may not open it.
    Denied,
    /// It is not there, or answers otherwise.
    Broken(io::Error),
}

impl Machine {
    pub(crate) fn new(args: MachineArgs) -> Self {
        let root = args.root.unwrap_or_else(|| PathBuf::from("/"));
        Self { sysfs: Sysfs::at(root.join("sys")), root }
    }

    /// Its PCI bus.
    pub(crate) fn sysfs(&self) -> &Sysfs {
        &self.sysfs
    }

    /// Whether it is this machine: only then does the running kernel speak of it.
    pub(crate) fn is_this_one(&self) -> bool {
        self.root == Path::new("/")
    }

    /// What a file holds, by its path below `/`; `None` if it cannot be read.
    pub(crate) fn text(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.root.join(below)).ok()
    }

    /// Whether something is there, by its path below `/`.
    pub(crate) fn has(&self, below: &str) -> bool {
        self.root.join(below).exists()
    }

    /// Opens the file by which a program gets the group, as a look only.
    pub(crate) fn group_access(&self, group: &IommuGroup) -> GroupAccess {
        self.access(&group_path(group))
    }

    /// Opens a device file for reading and writing, as a look only.
    pub(crate) fn access(&self, path: &str) -> GroupAccess {
        let opened =
            OpenOptions::new().read(true).write(true).open(self.root.join(path.trim_start_matches('/')));
        match opened {
            Ok(_) => GroupAccess::Free,
            Err(e) if e.kind() == ErrorKind::ResourceBusy => GroupAccess::Busy,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => GroupAccess::Denied,
            Err(e) => GroupAccess::Broken(e),
        }
    }
}

/// The file by which a program gets the group.
pub(crate) fn group_path(group: &IommuGroup) -> String {
    let kind = if group.no_iommu { "noiommu-" } else { "" };
    format!("/dev/vfio/{kind}{}", group.number)
}

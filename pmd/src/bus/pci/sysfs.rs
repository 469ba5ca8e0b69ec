//! The handle on sysfs, and how its files are read and written.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Bdf, Function, PciError};

/// The kernel's view of the bus: a folder that is `/sys`, but in tests. Holds no open file; what it says is as of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// One below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root.
    #[must_use]
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// All PCI functions, in the order of the bus. None on a machine without PCI.
    ///
    /// # Errors
    /// [`PciError::Read`] if the list cannot be read.
    pub fn functions(&self) -> Result<Vec<Function>, PciError> {
        let names = entries(&self.path("bus/pci/devices"))?;
        let mut bdfs: Vec<Bdf> = names.iter().filter_map(|name| name.parse().ok()).collect();
        bdfs.sort_unstable();
        Ok(bdfs.into_iter().map(|bdf| Function::new(self.clone(), bdf)).collect())
    }

    /// One function.
    ///
    /// # Errors
    /// [`PciError::NoSuchFunction`].
    pub fn function(&self, bdf: Bdf) -> Result<Function, PciError> {
        let function = Function::new(self.clone(), bdf);
        if function.path("vendor").exists() { Ok(function) } else { Err(PciError::NoSuchFunction(bdf)) }
    }

    /// Whether the kernel has an IOMMU at work: some function is in a group.
    #[must_use]
    pub fn has_iommu(&self) -> bool {
        entries(&self.path("kernel/iommu_groups")).is_ok_and(|groups| !groups.is_empty())
    }

    /// Whether VFIO was told to hand out functions without an IOMMU: such a function, and whoever drives it, can write to
    /// all of memory.
    #[must_use]
    pub fn allows_no_iommu(&self) -> bool {
        text(&self.path("module/vfio/parameters/enable_unsafe_noiommu_mode")).as_deref() == Some("Y")
    }

    /// Whether a PCI driver of this name is there, loaded or built in.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.path("bus/pci/drivers").join(name).exists()
    }

    /// Whether a module is loaded. One that is built in counts if it has parameters.
    #[must_use]
    pub fn has_module(&self, name: &str) -> bool {
        self.path("module").join(name).exists()
    }
}

/// Names in a folder, unsorted. A folder that is not there has none.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>, PciError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().or_else(|source| match source.kind() {
        ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(PciError::Read { path: dir.to_owned(), source }),
    })
}

/// What a file says, without the blank at its end; `None` if it is not there, or the kernel has no answer now (a carrier
/// of an interface that is down).
pub(super) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The same of a file that has to be there.
pub(super) fn must_text(path: &Path) -> Result<String, PciError> {
    let text = fs::read_to_string(path).map_err(|source| PciError::Read { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// `0x8086` and the like.
pub(super) fn must_hex(path: &Path) -> Result<u32, PciError> {
    let text = must_text(path)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u32::from_str_radix(digits, 16).map_err(|_| PciError::Contents {
        path: path.to_owned(),
        found: text.chars().take(40).collect(),
        wanted: "a hexadecimal number",
    })
}

/// The last part of where a link points: sysfs names drivers, groups and functions so.
pub(super) fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Hands a text to the kernel in one write. Neither makes the file nor leaves an earlier, longer text's end in it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), PciError> {
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| PciError::Write {
        path: path.to_owned(),
        text: text.trim().to_owned(),
        source,
    })
}

//! A made-up machine: a folder that stands for `/`, with as much of sysfs in it as Polder reads and writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The folder; it goes with this.
pub(crate) struct Tree {
    dir: TempDir,
}

/// A PCI function in it.
pub(crate) struct Card {
    sys: PathBuf,
    bdf: String,
}

impl Tree {
    /// A machine with a PCI bus and nothing on it.
    pub(crate) fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().expect("a folder") };
        for folder in ["bus/pci/devices", "bus/pci/drivers", "kernel/iommu_groups", "module"] {
            fs::create_dir_all(tree.sys().join(folder)).expect("a folder");
        }
        put(&tree.sys(), "bus/pci/drivers_probe", "");
        tree
    }

    /// What stands for `/`.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// What stands for `/sys`.
    pub(crate) fn sys(&self) -> PathBuf {
        self.root().join("sys")
    }

    /// Loads drivers.
    pub(crate) fn drivers(self, names: &[&str]) -> Self {
        for name in names {
            put(&self.sys(), &format!("bus/pci/drivers/{name}/unbind"), "");
        }
        self
    }

    /// Puts a function on the bus: a network card, with nobody driving it. `ids` is `VENDOR:DEVICE`.
    pub(crate) fn card(&self, bdf: &str, ids: &str) -> Card {
        Card::new(&self.sys(), bdf, ids)
    }
}

impl Card {
    pub(crate) fn new(sys: &Path, bdf: &str, ids: &str) -> Self {
        let (vendor, device) = ids.split_once(':').expect("VENDOR:DEVICE");
        let card = Self::at(sys, bdf);
        for (file, text) in [
            ("vendor", format!("0x{vendor}")),
            ("device", format!("0x{device}")),
            ("subsystem_vendor", "0x1af4".to_owned()),
            ("subsystem_device", "0x1100".to_owned()),
            ("revision", "0x01".to_owned()),
            ("class", "0x020000".to_owned()),
            ("numa_node", "-1".to_owned()),
            ("driver_override", "(null)".to_owned()),
        ] {
            card.file(file, &text);
        }
        card
    }

    /// One that is there.
    pub(crate) fn at(sys: &Path, bdf: &str) -> Self {
        Self { sys: sys.to_owned(), bdf: bdf.to_owned() }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.sys.join("bus/pci/devices").join(&self.bdf)
    }

    /// Writes a file of it, with the line's end that the kernel puts there.
    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        put(&self.dir(), name, &format!("{text}\n"));
        self
    }

    /// Has the kernel's driver `name` know it, and drive it.
    pub(crate) fn driven_by(&self, name: &str) -> &Self {
        self.file("known_to", name);
        put(&self.sys, &format!("bus/pci/drivers/{name}/unbind"), "");
        self.drive(Some(name))
    }

    /// Changes who drives it.
    pub(crate) fn drive(&self, name: Option<&str>) -> &Self {
        let link = self.dir().join("driver");
        let _ = fs::remove_file(&link);
        if let Some(name) = name {
            symlink(format!("../../drivers/{name}"), link).expect("a link");
        }
        self
    }

    /// Puts it in an IOMMU group.
    pub(crate) fn group(&self, number: u32) -> &Self {
        let group = format!("../../../../kernel/iommu_groups/{number}");
        symlink(group, self.dir().join("iommu_group")).expect("a link");
        let members = self.sys.join(format!("kernel/iommu_groups/{number}/devices"));
        fs::create_dir_all(&members).expect("a folder");
        symlink(self.dir(), members.join(&self.bdf)).expect("a link");
        self
    }

    /// Gives it an interface, `up` or not.
    pub(crate) fn interface(&self, name: &str, up: bool) -> &Self {
        self.interface_at(&format!("net/{name}"), up)
    }

    /// The same anywhere below it.
    pub(crate) fn interface_at(&self, net: &str, up: bool) -> &Self {
        self.file(&format!("{net}/flags"), if up { "0x1003" } else { "0x1002" });
        self.file(&format!("{net}/address"), "52:54:00:00:00:01");
        if up {
            self.file(&format!("{net}/carrier"), "1").file(&format!("{net}/speed"), "1000");
        }
        self
    }

    /// Lets it make VFs of this device ID; there are none yet.
    pub(crate) fn sriov(&self, most: u16, vf_device: &str) -> &Self {
        self.file("sriov_totalvfs", &most.to_string())
            .file("sriov_numvfs", "0")
            .file("sriov_vf_device", vf_device)
    }

    /// Adds a VF to a PF, as its `number`th.
    pub(crate) fn add_vf(&self, number: u16, bdf: &str, ids: &str) -> Self {
        let vf = Self::new(&self.sys, bdf, ids);
        self.link_vf(number, &vf);
        self.file("sriov_numvfs", &(number + 1).to_string());
        vf
    }

    /// Makes a function a PF's VF.
    pub(crate) fn link_vf(&self, number: u16, vf: &Self) {
        symlink(format!("../{}", self.bdf), vf.dir().join("physfn")).expect("a link");
        symlink(format!("../{}", vf.bdf), self.dir().join(format!("virtfn{number}"))).expect("a link");
    }

    /// Takes it off the bus.
    pub(crate) fn remove(&self) {
        if let Ok(group) = fs::read_link(self.dir().join("iommu_group")) {
            fs::remove_file(self.dir().join(group).join("devices").join(&self.bdf)).expect("a member");
        }
        fs::remove_dir_all(self.dir()).expect("a function");
    }
}

/// Writes a file, and the folders on the way to it.
pub(crate) fn put(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

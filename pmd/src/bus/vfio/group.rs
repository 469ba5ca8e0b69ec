//! Groups: what VFIO gives away as one. A group is opened once in the machine, by one process, and put into a container.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vfio_bindings::bindings::vfio::VFIO_GROUP_FLAGS_VIABLE;

use super::container::Container;
use super::ioctl;
use super::iommufd::Ioas;
use super::mappings::Mappings;
use crate::bus::BusError;
use crate::bus::pci::{Bdf, Function, IommuGroup};

/// What this process has of VFIO. One lock for all of it: opening and closing devices is rare.
struct Open {
    groups: BTreeMap<u32, Weak<Group>>,
    /// With an IOMMU, and without.
    containers: [Weak<Shared>; 2],
    /// Of character devices.
    ioas: Weak<Container>,
    devices: BTreeSet<Bdf>,
}

static OPEN: Mutex<Open> = Mutex::new(Open {
    groups: BTreeMap::new(),
    containers: [Weak::new(), Weak::new()],
    ioas: Weak::new(),
    devices: BTreeSet::new(),
});

fn lock() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A container and how many groups are in it: it has an IOMMU while there is one, and loses all its mappings with the last.
pub(super) struct Shared {
    container: Container,
    /// Changed under the lock.
    groups: Mutex<usize>,
}

impl Shared {
    fn groups(&self) -> MutexGuard<'_, usize> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What keeps the address space there that a device is in.
#[derive(Clone)]
pub(super) enum Home {
    /// A group in a container.
    Group(Arc<Group>),
    /// The address space itself: a character device has no group.
    Ioas(Arc<Container>),
}

impl Home {
    pub(super) fn container(&self) -> &Container {
        match self {
            Self::Group(group) => &group.shared.container,
            Self::Ioas(container) => container,
        }
    }

    /// Opens a device that has no group.
    pub(super) fn without_group(function: &Function) -> Result<(Self, OwnedFd), BusError> {
        let mut open = lock();
        let container = match open.ioas.upgrade() {
            Some(container) => container,
            None => Arc::new(Container::Ioas(Mappings::new(Ioas::new()?))),
        };
        open.ioas = Arc::downgrade(&container);
        let Container::Ioas(mappings) = &*container else { unreachable!("made above") };
        let device = mappings.iommu().open_device(function)?;
        Ok((Self::Ioas(container), device))
    }
}

/// A group of ours, in its container.
pub(super) struct Group {
    number: u32,
    /// None from its drop on.
    file: Option<File>,
    shared: Arc<Shared>,
}

impl Group {
    /// The group, opened now or before. `bdf` is the device for whose sake.
    pub(super) fn get(group: &IommuGroup, bdf: Bdf) -> Result<Arc<Self>, BusError> {
        let mut open = lock();
        while let Some(ours) = open.groups.get(&group.number) {
            if let Some(ours) = ours.upgrade() {
                return Ok(ours);
            }
            // Its drop has begun on another thread and waits for the lock.
            drop(open);
            std::thread::sleep(Duration::from_millis(1));
            open = lock();
        }
        let file = open_file(group)?;
        check_viable(&file, group, bdf)?;
        let place = &mut open.containers[usize::from(group.no_iommu)];
        let shared = match place.upgrade() {
            Some(shared) => shared,
            None => {
                let fresh = Shared { container: Container::new(group.no_iommu)?, groups: Mutex::new(0) };
                Arc::new(fresh)
            }
        };
        *place = Arc::downgrade(&shared);
        attach(&file, &shared, bdf)?;
        let ours = Arc::new(Self { number: group.number, file: Some(file), shared });
        open.groups.insert(group.number, Arc::downgrade(&ours));
        Ok(ours)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().expect("taken by drop alone").as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever opens it again waits until it is closed.
        let mut open = lock();
        open.groups.remove(&self.number);
        if let Some(file) = self.file.take() {
            // Also done by the kernel when the file is closed.
            let _ = ioctl::unset_container(file.as_fd());
            *self.shared.groups() -= 1;
        }
    }
}

/// Under the lock: no half attached group is left.
fn attach(file: &File, shared: &Shared, bdf: Bdf) -> Result<(), BusError> {
    let mut groups = shared.groups();
    ioctl::set_container(file.as_fd(), shared.container.fd()).map_err(BusError::os(format!(
        "the group of {bdf} cannot join the devices that Polder has (VFIO_GROUP_SET_CONTAINER)"
    )))?;
    if *groups == 0
        && let Err(source) = shared.container.set_iommu()
    {
        let _ = ioctl::unset_container(file.as_fd());
        return Err(no_iommu(bdf, source));
    }
    *groups += 1;
    Ok(())
}

fn no_iommu(bdf: Bdf, source: io::Error) -> BusError {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => {
            "; the machine does not remap interrupts: where that is a risk to be taken, \
             `echo 1 | sudo tee /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts`"
        }
        Some(libc::ENODEV) => "; sudo modprobe vfio_iommu_type1",
        _ => "",
    };
    BusError::Os { what: format!("{bdf} gets no IOMMU (VFIO_SET_IOMMU){hint}"), source }
}

fn open_file(group: &IommuGroup) -> Result<File, BusError> {
    let path = format!("/dev/vfio/{}{}", if group.no_iommu { "noiommu-" } else { "" }, group.number);
    OpenOptions::new().read(true).write(true).open(&path).map_err(|source| not_opened(&path, source))
}

/// Why a group's file is not had.
fn not_opened(path: &str, source: io::Error) -> BusError {
    let what = match source.raw_os_error() {
        Some(libc::ENOENT) => {
            format!("cannot open {path} (a container or chroot needs /dev/vfio; sudo modprobe vfio-pci)")
        }
        Some(libc::EBUSY) => {
            format!(
                "{path} is open in another process, which has the device (`sudo fuser -v {path}` shows which)"
            )
        }
        Some(libc::EPERM) => {
            format!("cannot open {path} (without an IOMMU that takes CAP_SYS_RAWIO: run this as root)")
        }
        Some(libc::EACCES) => format!("cannot open {path} (run this as root, or `sudo chown $USER {path}`)"),
        _ => format!("cannot open {path}"),
    };
    BusError::Os { what, source }
}

/// VFIO gives a group away only if none of its devices can be told by the kernel to write somewhere.
fn check_viable(file: &File, group: &IommuGroup, bdf: Bdf) -> Result<(), BusError> {
    let flags = ioctl::group_flags(file.as_fd()).map_err(BusError::os("VFIO_GROUP_GET_STATUS"))?;
    if flags & VFIO_GROUP_FLAGS_VIABLE != 0 { Ok(()) } else { Err(not_viable(group, bdf)) }
}

/// Who is in the way, and how to move them.
fn not_viable(group: &IommuGroup, bdf: Bdf) -> BusError {
    let (mut whom, mut how) = (Vec::new(), Vec::new());
    for member in group.in_the_way(bdf) {
        whom.push(format!("{} (with {})", member.bdf, member.driver.as_deref().unwrap_or("no driver")));
        how.push(format!("sudo polder nic bind {}", member.bdf));
    }
    if whom.is_empty() {
        return BusError::Missing(format!(
            "VFIO does not give {bdf} away: something else in its IOMMU group {} is in use; `polder nic list` shows what \
             is in it",
            group.number
        ));
    }
    BusError::Missing(format!(
        "VFIO does not give {bdf} away while the kernel uses others of its IOMMU group {}: {}; `{}`",
        group.number,
        whom.join(", "),
        how.join("; ")
    ))
}

/// That a device is ours, until drop.
#[derive(Debug)]
pub(super) struct Claim(Bdf);

impl Claim {
    /// Refused if this process has it.
    pub(super) fn new(bdf: Bdf) -> Result<Self, BusError> {
        if lock().devices.insert(bdf) {
            return Ok(Self(bdf));
        }
        Err(BusError::Missing(format!("{bdf} is a port of Polder's already: a device makes one port")))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock().devices.remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::pci::Member;

    #[test]
    fn a_group_that_is_not_viable_names_who_is_to_blame_and_the_mend() {
        let bdf = |text: &str| text.parse::<Bdf>().unwrap();
        let member =
            |text, driver: &str| Member { bdf: bdf(text), driver: Some(driver.to_owned()), class: None };
        let members = vec![
            member("0000:00:1c.0", "pcieport"),
            member("0000:01:10.0", "vfio-pci"),
            member("0000:01:10.2", "igbvf"),
            member("0000:01:10.4", "igbvf"),
        ];
        let mut group = IommuGroup { number: 7, members, no_iommu: false };
        let error = not_viable(&group, bdf("0000:01:10.0")).to_string();
        assert!(error.contains("group 7: 0000:01:10.2 (with igbvf), 0000:01:10.4 (with igbvf)"), "{error}");
        assert!(
            error.contains("`sudo polder nic bind 0000:01:10.2; sudo polder nic bind 0000:01:10.4`"),
            "{error}"
        );
        group.members.truncate(2);
        assert!(not_viable(&group, bdf("0000:01:10.0")).to_string().contains("polder nic list"));
    }

    #[test]
    fn a_device_is_opened_once() {
        let bdf = "0000:fe:1f.7".parse().unwrap();
        let claim = Claim::new(bdf).unwrap();
        assert!(
            Claim::new(bdf).unwrap_err().to_string().contains("0000:fe:1f.7 is a port of Polder's already")
        );
        drop(claim);
        assert!(Claim::new(bdf).is_ok());
    }

    #[test]
    fn what_cannot_be_opened_says_what_mends_it() {
        let text = |number| not_opened("/dev/vfio/9", io::Error::from_raw_os_error(number)).to_string();
        assert!(text(libc::ENOENT).contains("modprobe vfio-pci"));
        assert!(text(libc::EBUSY).contains("fuser -v /dev/vfio/9"));
        assert!(text(libc::EACCES).contains("chown $USER /dev/vfio/9"));
        assert!(text(libc::EPERM).contains("CAP_SYS_RAWIO"));
        assert!(
            no_iommu("01:10.0".parse().unwrap(), io::Error::from_raw_os_error(libc::EPERM))
                .to_string()
                .contains("allow_unsafe_interrupts")
        );
    }
}

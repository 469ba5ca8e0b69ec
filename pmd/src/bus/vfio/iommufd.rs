//! iommufd and VFIO's character devices: what newer kernels offer beside groups and containers, and some instead of them.
//!
//! Only compiled, never run: no kernel at hand has them. So they are taken where there is nothing else.
//!
//! Source: the kernel's include/uapi/linux/iommufd.h, and Documentation/driver-api/vfio.rst, "IOMMUFD and VFIO_IOMMU_TYPE1".
#![expect(unsafe_code, reason = "hands memory to devices by ioctls")]
// UNSAFETY: each call is lent words of ours for its duration, as many as the first says, and in one case a list that it fills
// in. What devices may do with a zone is said in container.rs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::c_ulong;
use mbuf::{Iova, Zone};
use vfio_bindings::bindings::vfio::{VFIO_BASE, VFIO_TYPE};

use super::answer::{Answer, IommuInfo};
use super::mappings::Iommu;
use crate::bus::BusError;
use crate::bus::pci::Function;

const IOMMU_IOAS_ALLOC: u32 = 0x81;
const IOMMU_IOAS_IOVA_RANGES: u32 = 0x84;
const IOMMU_IOAS_MAP: u32 = 0x85;
const IOMMU_IOAS_UNMAP: u32 = 0x86;
const VFIO_DEVICE_BIND_IOMMUFD: u32 = VFIO_BASE + 18;
const VFIO_DEVICE_ATTACH_IOMMUFD_PT: u32 = VFIO_BASE + 19;

/// IOMMU_IOAS_MAP_FIXED_IOVA, _WRITEABLE and _READABLE.
const MAP_FLAGS: u32 = 1 | 2 | 4;
/// More ranges than any platform has.
const MOST_RANGES: usize = 256;

/// An I/O address space.
pub(super) struct Ioas {
    file: File,
    id: u32,
}

/// Whether this kernel has character devices and no containers.
pub(super) fn is_all_there_is() -> bool {
    !Path::new("/dev/vfio/vfio").exists() && Path::new("/dev/iommu").exists()
}

/// A call with a structure whose first 32 bits are its size in bytes.
fn call(fd: BorrowedFd<'_>, number: u32, words: &mut [u64]) -> io::Result<()> {
    let request = (VFIO_TYPE as c_ulong) << 8 | c_ulong::from(number);
    // SAFETY: the words are ours until the call returns; their first says how many bytes of them the kernel may use, and
    // callers say no more than there are. A pointer in them is to a list of theirs, with its length beside it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, words.as_mut_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Ioas {
    /// A fresh one, still without devices.
    pub(super) fn new() -> Result<Self, BusError> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/iommu");
        let file =
            file.map_err(BusError::os("cannot open /dev/iommu (sudo modprobe iommufd; run this as root)"))?;
        let mut words = [Answer::words(12, 0), 0];
        call(file.as_fd(), IOMMU_IOAS_ALLOC, &mut words).map_err(BusError::os("IOMMU_IOAS_ALLOC"))?;
        Ok(Self { file, id: Answer::new(&words, 16).u32(8) })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Opens a function's character device and has it use this address space.
    pub(super) fn open_device(&self, function: &Function) -> Result<OwnedFd, BusError> {
        let bdf = function.bdf();
        let mut names = fs::read_dir(function.path("vfio-dev")).into_iter().flatten();
        let name = names.find_map(|entry| Some(entry.ok()?.file_name())).ok_or_else(|| {
            BusError::Missing(format!("{bdf} has no character device of VFIO's; `dmesg | tail` says why"))
        })?;
        let path = Path::new("/dev/vfio/devices").join(name);
        let open = OpenOptions::new().read(true).write(true).open(&path);
        let device: OwnedFd = open
            .map_err(BusError::os(format!("cannot open {} of {bdf} (run this as root)", path.display())))?
            .into();
        let mut bind = [Answer::words(16, 0), Answer::words(self.file.as_raw_fd() as u32, 0)];
        call(device.as_fd(), VFIO_DEVICE_BIND_IOMMUFD, &mut bind)
            .map_err(BusError::os(format!("VFIO_DEVICE_BIND_IOMMUFD of {bdf}")))?;
        let mut attach = [Answer::words(12, 0), Answer::words(self.id, 0)];
        call(device.as_fd(), VFIO_DEVICE_ATTACH_IOMMUFD_PT, &mut attach)
            .map_err(BusError::os(format!("VFIO_DEVICE_ATTACH_IOMMUFD_PT of {bdf}")))?;
        Ok(device)
    }
}

impl Iommu for Ioas {
    fn info(&self) -> io::Result<IommuInfo> {
        let mut list = vec![0u64; 2 * MOST_RANGES];
        let mut words = [
            Answer::words(32, self.id),
            Answer::words(MOST_RANGES as u32, 0),
            list.as_mut_ptr().expose_provenance() as u64,
            0,
        ];
        call(self.file.as_fd(), IOMMU_IOAS_IOVA_RANGES, &mut words)?;
        let found = Answer::new(&words, 32).u32(8) as usize;
        let (pairs, _) = list.as_chunks::<2>();
        let ranges = pairs.iter().take(found).map(|[start, last]| *start..=*last).collect();
        Ok(IommuInfo { page_sizes: words[3].max(1), ranges, entries_left: None })
    }

    fn map(&self, zone: &Zone, iova: Iova) -> io::Result<()> {
        let (base, len) = (zone.base().addr().get() as u64, zone.len() as u64);
        let mut words = [Answer::words(40, MAP_FLAGS), Answer::words(self.id, 0), base, len, iova.0];
        call(self.file.as_fd(), IOMMU_IOAS_MAP, &mut words)
    }

    fn unmap(&self, iova: Iova, len: usize) -> io::Result<()> {
        call(self.file.as_fd(), IOMMU_IOAS_UNMAP, &mut [Answer::words(24, self.id), iova.0, len as u64])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_says_so() {
        if !Path::new("/dev/iommu").exists() {
            assert!(!is_all_there_is());
            assert!(Ioas::new().err().unwrap().to_string().contains("/dev/iommu"));
        }
    }
}

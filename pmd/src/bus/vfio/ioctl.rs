//! The calls of VFIO (the kernel's include/uapi/linux/vfio.h) that vfio-ioctls has not, or whose errors it swallows.
#![expect(unsafe_code, reason = "ioctls have no safe wrapper")]
// UNSAFETY: each call is lent memory of ours for its duration, as much of it as its `argsz` tells the kernel, or a plain
// number; a descriptor that the kernel hands out is owned from that moment on.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_TYPE,
    vfio_device_info, vfio_group_status, vfio_iommu_type1_info, vfio_irq_info, vfio_irq_set,
    vfio_region_info,
};

use super::answer::Answer;

const SET_IOMMU: u32 = 2;
const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const GROUP_UNSET_CONTAINER: u32 = 5;
const GROUP_GET_DEVICE_FD: u32 = 6;
const DEVICE_GET_INFO: u32 = 7;
const DEVICE_GET_REGION_INFO: u32 = 8;
const DEVICE_GET_IRQ_INFO: u32 = 9;
const DEVICE_SET_IRQS: u32 = 10;
const DEVICE_RESET: u32 = 11;
const IOMMU_GET_INFO: u32 = 12;

/// Words before the descriptors in a `vfio_irq_set`: argsz, flags, index, start, count.
const IRQ_SET_HEADER: usize = 5;
const _: () = assert!(size_of::<vfio_irq_set>() == 4 * IRQ_SET_HEADER);

/// `_IO(VFIO_TYPE, VFIO_BASE + nr)`.
const fn number(nr: u32) -> c_ulong {
    (VFIO_TYPE as c_ulong) << 8 | (VFIO_BASE + nr) as c_ulong
}

/// A call whose argument is a number, or nothing.
fn with_value(fd: BorrowedFd<'_>, nr: u32, value: c_ulong) -> io::Result<c_int> {
    // SAFETY: the calls that come here take a number, which the kernel checks, and touch no memory of ours.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), number(nr) as _, value) })
}

fn done(returned: c_int) -> io::Result<c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// A call that fills in `words`, whose first says how many bytes that is.
fn with_words(fd: BorrowedFd<'_>, nr: u32, words: &mut [u64]) -> io::Result<c_int> {
    let head = words.as_mut_ptr();
    // SAFETY: every structure of VFIO begins with `argsz`, which callers set to the size of `words` at most; it is aligned
    // to 8, as those structures are.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), number(nr) as _, head) })
}

/// Asks for a structure of `fixed` bytes and the capabilities behind it: twice, if the kernel wants more room for these.
/// `index` goes where region and interrupt queries have it.
fn ask(fd: BorrowedFd<'_>, nr: u32, fixed: usize, index: u32) -> io::Result<Answer> {
    const MOST: usize = 64 << 10;
    let mut bytes = fixed;
    loop {
        let mut words = vec![0u64; bytes.div_ceil(8)];
        words[0] = Answer::words(bytes as u32, 0);
        if let Some(second) = words.get_mut(1) {
            *second = Answer::words(index, 0);
        }
        with_words(fd, nr, &mut words)?;
        let answer = Answer::new(&words, bytes);
        match answer.argsz() {
            wanted if wanted > bytes && wanted <= MOST => bytes = wanted,
            _ => return Ok(answer),
        }
    }
}

/// Gives a container, which has a group, an IOMMU of this kind.
pub(super) fn set_iommu(container: BorrowedFd<'_>, kind: u32) -> io::Result<()> {
    with_value(container, SET_IOMMU, kind.into()).map(drop)
}

/// A group's flags.
pub(super) fn group_flags(group: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(ask(group, GROUP_GET_STATUS, size_of::<vfio_group_status>(), 0)?.flags())
}

/// Puts a group into a container.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let container: c_int = container.as_raw_fd();
    // SAFETY: the call reads one int, which lives until it returns.
    let returned =
        unsafe { libc::ioctl(group.as_raw_fd(), number(GROUP_SET_CONTAINER) as _, &raw const container) };
    done(returned).map(drop)
}

/// Takes it out.
pub(super) fn unset_container(group: BorrowedFd<'_>) -> io::Result<()> {
    with_value(group, GROUP_UNSET_CONTAINER, 0).map(drop)
}

/// Opens a device of a group, by its address and what may stand behind that.
pub(super) fn device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the call reads a string that ends with 0 and lives until it returns.
    let fd =
        done(unsafe { libc::ioctl(group.as_raw_fd(), number(GROUP_GET_DEVICE_FD) as _, name.as_ptr()) })?;
    // SAFETY: a fresh descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a device is (`vfio_device_info`).
pub(super) fn device_info(device: BorrowedFd<'_>) -> io::Result<Answer> {
    ask(device, DEVICE_GET_INFO, size_of::<vfio_device_info>(), 0)
}

/// What one of its regions is (`vfio_region_info`).
pub(super) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Answer> {
    ask(device, DEVICE_GET_REGION_INFO, size_of::<vfio_region_info>(), index)
}

/// How many interrupts it has of one kind.
pub(super) fn irq_count(device: BorrowedFd<'_>, index: u32) -> io::Result<u32> {
    let answer = ask(device, DEVICE_GET_IRQ_INFO, size_of::<vfio_irq_info>(), index)?;
    Ok(answer.u32(core::mem::offset_of!(vfio_irq_info, count)))
}

/// What an IOMMU can (`vfio_iommu_type1_info`).
pub(super) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<Answer> {
    ask(container, IOMMU_GET_INFO, size_of::<vfio_iommu_type1_info>(), 0)
}

/// Has interrupts 0 .. of one kind signal these descriptors; without any, switches that kind off.
pub(super) fn set_irqs<F: AsFd>(device: BorrowedFd<'_>, index: u32, events: &[F]) -> io::Result<()> {
    let what = if events.is_empty() { VFIO_IRQ_SET_DATA_NONE } else { VFIO_IRQ_SET_DATA_EVENTFD };
    let mut set = vec![0, what | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, events.len() as u32];
    set.extend(events.iter().map(|event| event.as_fd().as_raw_fd() as u32));
    set[0] = 4 * set.len() as u32;
    // SAFETY: the call reads as many bytes as the first word says, which is all of the vector.
    done(unsafe { libc::ioctl(device.as_raw_fd(), number(DEVICE_SET_IRQS) as _, set.as_ptr()) }).map(drop)
}

/// Resets a device.
pub(super) fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    with_value(device, DEVICE_RESET, 0).map(drop)
}

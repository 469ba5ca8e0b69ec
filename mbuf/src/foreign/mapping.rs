//! Mappings of files that somebody else owns: a guest's memory, above all.
#![expect(unsafe_code, reason = "maps files of others")]
// UNSAFETY: the mapping is ours to make and to take down; its bytes are never named by a reference. A page that its owner
// takes away is replaced by `sigbus`, which may map over any part of a registered range.

use core::ptr::NonNull;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::registry::{Fill, MAX_RANGES, Range, Registration};
use super::{Watch, sigbus};

const TMPFS_MAGIC: u64 = 0x0102_1994;
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Why somebody's file could not be mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// Not a regular file.
    #[error(
        "the descriptor is no regular file but {kind:?}: memory must be a memfd, or a file on tmpfs or hugetlbfs"
    )]
    NotRegular {
        /// What it is.
        kind: FileType,
    },
    /// On a file system where a page fault may wait for somebody else.
    #[error(
        "the file lies on a file system of type {magic:#x}: memory must be a memfd, or a file on tmpfs or hugetlbfs"
    )]
    FileSystem {
        /// The type, as statfs(2) tells it.
        magic: u64,
    },
    /// No bytes, or an end beyond 2⁶³.
    #[error("{len:#x} bytes at offset {offset:#x} of a file is no range that can be mapped")]
    NoRange {
        /// Where it starts in the file.
        offset: u64,
        /// Its length.
        len: usize,
    },
    /// The file ends before the range does.
    #[error("the file has {size:#x} bytes, the range ends at {end:#x}")]
    TooShort {
        /// The file's size.
        size: u64,
        /// Where the range ends in the file.
        end: u64,
    },
    /// All places for mappings are taken, or there is no memory for one more.
    #[error("no room for one more foreign mapping (at most {MAX_RANGES}): remove ports")]
    TooMany,
    /// The kernel said no.
    #[error("{step}: {source}")]
    System {
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl Fn(rustix::io::Errno) -> ForeignError {
    move |e| ForeignError::System { step, source: e.into() }
}

/// Bytes of a file that somebody else owns, writes, and may take away. They are reached by raw copies and atomics only.
/// A page that is gone reads as zeroes (registers: all ones) from then on, and [`is_gone`](Self::is_gone) tells.
///
/// Who drops it must have seen to it that nobody uses its addresses any more.
#[derive(Debug)]
pub struct ForeignMapping {
    base: NonNull<u8>,
    len: usize,
    // Dropped before the pages: another mapping may stand at their addresses a moment later.
    registration: Registration,
    _pages: Pages,
}

// SAFETY: addresses and a registry entry; reading and writing through `base` is the users' unsafe code, whose contracts
// cope with any other reader or writer.
unsafe impl Send for ForeignMapping {}
// SAFETY: as above.
unsafe impl Sync for ForeignMapping {}

impl ForeignMapping {
    /// Maps `len` bytes from `offset` on; neither needs to be a multiple of a page.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self, ForeignError> {
        Self::map_watched(fd, offset, len, writable, &Watch::new())
    }

    /// The same, for one of several mappings with one owner: `watch` tells when any of them loses a page.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn map_watched(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        writable: bool,
        watch: &Watch,
    ) -> Result<Self, ForeignError> {
        sigbus::install().map_err(|source| ForeignError::System { step: "sigaction", source })?;
        let page = file_page(fd, offset, len)?;
        let (lead, whole) = whole_pages(page, offset, len)?;
        let pages = Pages::map(fd, offset - lead as u64, whole, writable)?;
        let registration = pages.register(page, writable, Fill::Zeroes, watch)?;
        // SAFETY: lead < page <= the mapping's length.
        let base = unsafe { pages.start.add(lead) };
        Ok(Self { base, len, registration, _pages: pages })
    }

    /// Bytes of address space that [`map`](Self::map) takes up for this range: the file's pages are whole.
    ///
    /// # Errors
    /// [`ForeignError`], as `map` would have it.
    pub fn extent(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, ForeignError> {
        let page = file_page(fd, offset, len)?;
        whole_pages(page, offset, len).map(|(_, whole)| whole)
    }

    /// Maps a device's registers: `len` bytes from `offset` (a multiple of a small page) on, of a descriptor that stands
    /// for the device (VFIO's). Where they vanish they read as all ones from then on, a page at a time, and what is
    /// written is lost.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn map_device(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        writable: bool,
        watch: &Watch,
    ) -> Result<Self, ForeignError> {
        sigbus::install().map_err(|source| ForeignError::System { step: "sigaction", source })?;
        let page = rustix::param::page_size();
        let whole = len.checked_next_multiple_of(page).filter(|_| len > 0);
        let pages = Pages::map(fd, offset, whole.ok_or(ForeignError::NoRange { offset, len })?, writable)?;
        let registration = pages.register(page, writable, Fill::Ones, watch)?;
        Ok(Self { base: pages.start, len, registration, _pages: pages })
    }

    /// Where the byte at `offset` is.
    #[inline]
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// As many bytes as were asked for.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty mapping")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether a page was lost, of this mapping or of another with the same [`Watch`]. Ask as [`Watch::is_gone`] says.
    #[inline]
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.registration.watch().is_gone()
    }

    /// The flag behind [`is_gone`](Self::is_gone).
    #[must_use]
    pub fn watch(&self) -> &Watch {
        self.registration.watch()
    }
}

/// The file's page size, once it is clear that it is a file to be mapped and has the range.
fn file_page(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<usize, ForeignError> {
    let stat = fstat(fd).map_err(failed("fstat"))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(ForeignError::NotRegular { kind });
    }
    // Fields of statfs and stat are of different types on different machines.
    let magic = fstatfs(fd).map_err(failed("fstatfs"))?.f_type as u64;
    let page = match magic {
        // Its st_blksize may be that of transparent hugepages, which can be mapped in part.
        TMPFS_MAGIC => rustix::param::page_size(),
        HUGETLBFS_MAGIC => stat.st_blksize as usize,
        _ => return Err(ForeignError::FileSystem { magic }),
    };
    let end = offset.checked_add(len as u64).filter(|&end| len > 0 && i64::try_from(end).is_ok());
    let end = end.ok_or(ForeignError::NoRange { offset, len })?;
    let size = stat.st_size as u64;
    if end > size { Err(ForeignError::TooShort { size, end }) } else { Ok(page) }
}

/// How far into a page the range starts, and the bytes of all pages that it touches.
fn whole_pages(page: usize, offset: u64, len: usize) -> Result<(usize, usize), ForeignError> {
    let lead = (offset % page as u64) as usize;
    let whole = lead.checked_add(len).and_then(|n| n.checked_next_multiple_of(page));
    Ok((lead, whole.ok_or(ForeignError::NoRange { offset, len })?))
}

/// Whole pages, mapped.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self, ForeignError> {
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping where the kernel likes; nothing else is replaced.
        let start = unsafe { mmap(core::ptr::null_mut(), len, protection, flags, fd, offset) }
            .map_err(failed("mmap"))?;
        let start = NonNull::new(start.cast()).expect("mmap never succeeds at 0 without MAP_FIXED");
        let pages = Self { start, len };
        // SAFETY: our mapping; the advice changes no byte.
        unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxDontDump) }.map_err(failed("madvise"))?;
        Ok(pages)
    }

    /// Has them replaced where they vanish, `page` being the unit.
    fn register(
        &self,
        page: usize,
        writable: bool,
        fill: Fill,
        watch: &Watch,
    ) -> Result<Registration, ForeignError> {
        let start = self.start.addr().get();
        let range = Range { start, end: start + self.len, page, writable, fill };
        Registration::new(range, watch).ok_or(ForeignError::TooMany)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole, with whatever replaced a part of it; nobody uses its addresses any more.
        let done = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(done.is_ok(), "munmap of a whole mapping: {done:?}");
    }
}

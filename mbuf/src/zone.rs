//! Memory zones: memory that the process owns, mapped once and whole, shareable by its file descriptor.
//!
//! A zone is a memfd. All its pages are had before [`Zone::new`] returns, so that a missing hugepage is an error there and
//! not a SIGBUS later, and its size is sealed, so that nobody whom the descriptor is handed to can cut pages off.
//! (Somebody who may write to it can still punch holes into it: hand it only to whom you trust with the content.)
#![expect(unsafe_code, reason = "maps memory and binds it to a node")]
// UNSAFETY: `base..base + len` is one mapping, made by `Zone::new`, unmapped by its drop, and never changed in between.

mod error;
mod pages;

use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

pub use error::ZoneError;
pub use pages::PageSize;

/// An address as a NIC sees it. Polder's are its own virtual addresses (through an IOMMU), never a guest's physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

/// What a zone is made of.
#[derive(Clone, Debug)]
pub struct ZoneConfig {
    /// The memfd's name, as /proc/PID/maps shows it; up to 249 bytes.
    pub name: String,
    /// Bytes wanted, at least 1; rounded up to whole pages.
    pub bytes: usize,
    /// The pages' size.
    pub pages: PageSize,
    /// The NUMA node all pages must lie on; `None`: wherever the kernel finds them.
    pub numa_node: Option<u32>,
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self { name: "polder".into(), bytes: 0, pages: PageSize::Auto, numa_node: None }
    }
}

/// A stretch of memory that is all there, all ours, and stays where it is until drop.
#[derive(Debug)]
pub struct Zone {
    base: NonNull<u8>,
    len: usize,
    pages: PageSize,
    numa_node: Option<u32>,
    fd: OwnedFd,
}

// SAFETY: an address range and a descriptor; the zone itself reads and writes none of its bytes.
unsafe impl Send for Zone {}
// SAFETY: as above.
unsafe impl Sync for Zone {}

/// More than a process can address, on any machine that this runs on.
const MAX_BYTES: usize = 1 << 46;

impl Zone {
    /// Gets the memory: all of it, now, zeroed.
    ///
    /// # Errors
    /// [`ZoneError`]; with [`PageSize::Auto`] the one of the last size tried.
    pub fn new(config: &ZoneConfig) -> Result<Self, ZoneError> {
        if !(1..=MAX_BYTES).contains(&config.bytes) {
            return Err(ZoneError::Size { name: config.name.clone(), bytes: config.bytes });
        }
        let (last, better) = config.pages.candidates(config.bytes).split_last().expect("there is always one");
        better
            .iter()
            .find_map(|&size| Self::of(config, size).ok())
            .map_or_else(|| Self::of(config, *last), Ok)
    }

    /// The same, with pages of one size. The order matters: the node is bound before a page is had, and all pages are
    /// had by `fallocate`, which fails where a touch would kill.
    fn of(config: &ZoneConfig, size: PageSize) -> Result<Self, ZoneError> {
        let len = config.bytes.next_multiple_of(size.bytes());
        let failed = |step| move |e: rustix::io::Errno| ZoneError::at(step, config, size, len, e.into());
        enough_small(config, size, len)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | size.memfd_flags();
        let fd = memfd_create(config.name.as_str(), flags).map_err(failed("memfd_create"))?;
        ftruncate(&fd, len as u64).map_err(failed("ftruncate"))?;
        let (protection, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping where the kernel likes; nothing else is replaced.
        let base = unsafe { mmap(core::ptr::null_mut(), len, protection, shared, &fd, 0) }
            .map_err(failed("mmap"))?;
        let base = NonNull::new(base.cast()).expect("mmap never succeeds at 0 without MAP_FIXED");
        let zone = Self { base, len, pages: size, numa_node: config.numa_node, fd };
        // Guests' frames have no place in a core dump.
        // SAFETY: the range is our mapping; the advice changes no byte.
        unsafe { madvise(base.as_ptr().cast(), len, Advice::LinuxDontDump) }.map_err(failed("madvise"))?;
        if let Some(node) = config.numa_node {
            zone.bind(node).map_err(|source| ZoneError::Node { name: config.name.clone(), node, source })?;
        }
        fallocate(&zone.fd, FallocateFlags::empty(), 0, len as u64).map_err(failed("fallocate"))?;
        zone.prefault();
        fcntl_add_seals(&zone.fd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)
            .map_err(failed("seal"))?;
        Ok(zone)
    }

    /// Every page that this zone will have is to come from `node`.
    fn bind(&self, node: u32) -> io::Result<()> {
        const BITS: usize = 1024;
        let mut mask = [0u64; BITS / 64];
        let word = mask.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word = 1 << (node % 64);
        // SAFETY: the range is our mapping; the mask is as long as is said (the kernel counts one bit more).
        let done = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.base.as_ptr(),
                self.len,
                libc::MPOL_BIND,
                mask.as_ptr(),
                BITS + 1,
                0,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Enters all pages, which the file has by now, into the page table.
    fn prefault(&self) {
        // SAFETY: the range is our mapping; the advice changes no byte.
        if unsafe { madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) }.is_ok() {
            return;
        }
        // Linux before 5.14 does not know that advice.
        for at in (0..self.len).step_by(self.pages.bytes()) {
            // SAFETY: at < len, and nobody else knows the zone yet; the byte is the 0 that it was.
            unsafe { self.base.add(at).write_volatile(0) };
        }
    }

    /// Where it starts, aligned to its pages. The bytes belong to whoever the zone's owner gives them to.
    #[inline]
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Its size in bytes: a multiple of the page size, at least what was asked for.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is no empty zone")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The page size that was had; never `Auto`.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.pages
    }

    /// The node it is bound to.
    #[must_use]
    pub fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    /// The memfd, to be handed to another process or mapped a second time. Its size is sealed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The address by which a NIC reaches `at`; `None` if it lies outside. The zone must have been mapped for the NIC at
    /// its own virtual address.
    #[inline]
    #[must_use]
    pub fn iova(&self, at: NonNull<u8>) -> Option<Iova> {
        let offset = at.addr().get().checked_sub(self.base.addr().get())?;
        (offset < self.len).then(|| Iova(at.addr().get() as u64))
    }
}

/// Small pages are had even if others must die for them, so look first.
fn enough_small(config: &ZoneConfig, size: PageSize, bytes: usize) -> Result<(), ZoneError> {
    match pages::small_available() {
        Some(available) if !size.is_huge() && available < bytes => {
            Err(ZoneError::Memory { name: config.name.clone(), bytes, available })
        }
        _ => Ok(()),
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole; whoever used its bytes is done by the owner's word.
        let done = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(done.is_ok(), "munmap of a whole mapping: {done:?}");
    }
}

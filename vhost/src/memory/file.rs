//! The file behind a region: open for writing, and sealed against shrinking or not.
//!
//! It is not sealed by us: F_ADD_SEALS waits, uninterruptibly, for the file's inode lock, which its owner can keep for ever
//! by a write(2) from a page that never comes (docs/decisions/0018). What shrinks is survived (docs/decisions/0003).

use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat};

use super::MemoryError;

/// Whether the file behind a region can still shrink under us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// Sealed against shrinking by its owner.
    Sealed,
    /// It can shrink: a fault on it ends the session, and nothing else.
    Open,
}

/// Looks at the file for a region at `gpa`. Comes before mapping: the mapping reads the file's size, which stays true if
/// it is sealed by now. Asks only what the kernel answers by itself, whatever the file is.
pub(super) fn prepare(fd: BorrowedFd<'_>, gpa: u64) -> Result<Seal, MemoryError> {
    let flags =
        fcntl_getfl(fd).map_err(|e| MemoryError::Os { gpa, what: "fcntl F_GETFL", source: e.into() })?;
    if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE != OFlags::RDWR {
        return Err(MemoryError::ReadOnly { gpa });
    }
    // A file that knows no seals answers EINVAL; then the mapping has its say.
    let seals = fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
    if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(MemoryError::WriteSealed { gpa });
    }
    Ok(if seals.contains(SealFlags::SHRINK) { Seal::Sealed } else { Seal::Open })
}

/// Which file a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of the descriptor for a region at `gpa`.
    pub(super) fn of(fd: BorrowedFd<'_>, gpa: u64) -> Result<Self, MemoryError> {
        let stat = fstat(fd).map_err(|e| MemoryError::Os { gpa, what: "fstat", source: e.into() })?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::fs::{MemfdFlags, Mode, fcntl_add_seals, ftruncate, memfd_create, open};

    use super::*;

    fn memfd(size: u64) -> rustix::fd::OwnedFd {
        let fd = memfd_create("file-test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fd, size).expect("ftruncate");
        fd
    }

    #[test]
    fn m14_a_descriptor_that_is_only_a_path_or_read_only() {
        let fd = memfd(0x1000);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for flags in [OFlags::PATH, OFlags::RDONLY] {
            let other = open(&path, flags | OFlags::CLOEXEC, Mode::empty()).expect("reopen");
            let e = prepare(other.as_fd(), 0).expect_err("not writable");
            assert!(matches!(e, MemoryError::ReadOnly { .. }), "{e}");
        }
    }

    #[test]
    fn m15_sealed_against_writing() {
        for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
            let fd = memfd(0x1000);
            fcntl_add_seals(&fd, seal).expect("seal");
            let e = prepare(fd.as_fd(), 0).expect_err("sealed");
            assert!(matches!(e, MemoryError::WriteSealed { .. }), "{e}");
        }
    }

    #[test]
    fn a_file_is_sealed_if_its_owner_sealed_it() {
        let fd = memfd(0x2000);
        assert_eq!(prepare(fd.as_fd(), 0).expect("good"), Seal::Open);
        assert_eq!(ftruncate(&fd, 0x1000), Ok(()), "it is left as it was");
        fcntl_add_seals(&fd, SealFlags::SHRINK).expect("seal");
        assert_eq!(prepare(fd.as_fd(), 0).expect("good"), Seal::Sealed);
        let stubborn = memfd(0x1000);
        fcntl_add_seals(&stubborn, SealFlags::SEAL).expect("seal");
        assert_eq!(prepare(stubborn.as_fd(), 0).expect("good"), Seal::Open);
    }
}

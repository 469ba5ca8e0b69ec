//! One daemon at a time looks for a stale control socket and puts its own in its place.
//!
//! A lock on the directory would do, were it not that anybody who may read a directory may lock it, and keep the lock. So
//! there is a lock file, which only its owner can open, for as long as it takes; and nobody waits for it for ever.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, lstat, open, unlink};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::SocketError;

/// Longest wait for another daemon that starts.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// The lock, and its file, until dropped.
#[derive(Debug)]
pub(super) struct StartLock {
    path: PathBuf,
    _file: OwnedFd,
}

impl StartLock {
    /// Locks `.NAME.lock` beside the socket.
    ///
    /// # Errors
    /// [`SocketError::Locked`] after [`PATIENCE`], or if somebody else's file is there.
    pub(super) fn take(socket: &Path) -> Result<Self, SocketError> {
        let path = beside(socket);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(file) = try_lock(&path)? {
                return Ok(Self { path, _file: file });
            }
            if Instant::now() >= end {
                return Err(SocketError::Locked(path));
            }
            sleep(AGAIN);
        }
    }
}

impl Drop for StartLock {
    /// Removes the file while it is locked: who waits for it sees that it is another, and begins anew.
    fn drop(&mut self) {
        let _ = unlink(&self.path);
    }
}

fn beside(socket: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(socket.file_name().unwrap_or_default());
    name.push(".lock");
    socket.with_file_name(name)
}

/// The locked file; `None` if another has it, or had it until just now.
fn try_lock(path: &Path) -> Result<Option<OwnedFd>, SocketError> {
    let failed =
        |step| move |e: Errno| SocketError::Os { path: path.to_owned(), step, source: io::Error::from(e) };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open its lock"))?;
    let opened = fstat(&file).map_err(failed("stat its lock"))?;
    if !is_ours(&opened) {
        return Err(SocketError::Locked(path.to_owned()));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
        Err(e) => return Err(failed("lock")(e)),
    }
    let same = |now: Stat| (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino);
    Ok(lstat(path).is_ok_and(same).then_some(file))
}

fn is_ours(stat: &Stat) -> bool {
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    regular && stat.st_uid == geteuid().as_raw() && stat.st_nlink <= 1
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_after_the_other_and_nothing_left() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c");
        let first = StartLock::take(&socket).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| StartLock::take(&socket).map(drop));
            sleep(5 * AGAIN);
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a14_a_lock_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c");
        let (precious, lock) = (dir.path().join("precious"), dir.path().join(".c.lock"));
        fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, &lock).unwrap();
        assert!(StartLock::take(&socket).is_err());
        fs::remove_file(&lock).unwrap();
        fs::hard_link(&precious, &lock).unwrap();
        assert!(matches!(StartLock::take(&socket), Err(SocketError::Locked(_))));
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
    }
}

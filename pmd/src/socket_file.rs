//! A listening Unix socket and its file, in a directory that others may write in.
//!
//! Whoever may write in the directory can rename the file, or put another in its place, between any two system calls.
//! So the directory is opened once and everything is done relative to it; what has the file's name is opened once
//! (`O_PATH | O_NOFOLLOW`), checked, and changed through that descriptor: never by name, never through a link.
//! The checks leave only one thing whose mode can change: a socket of our own user that nobody listens on, with one
//! name. That is the socket just made, or one as worthless.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, chmod, fchmod, fstat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, shutdown,
    socket_with,
};
use rustix::process::geteuid;

const NEW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A listening, non-blocking stream socket and its file. The file is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    socket: OwnedFd,
    place: Place,
    /// Device and inode of the file that we made.
    file: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SocketFileError {
    #[error("{0}: no file name")]
    NoName(PathBuf),
    #[error("{path}: a file name of {length} bytes; at most {most} fit in a socket's address")]
    NameTooLong { path: PathBuf, length: usize, most: usize },
    #[error("cannot open the directory of {path}: make it first (mkdir -p {directory}): {source}")]
    NoDirectory { path: PathBuf, directory: PathBuf, source: io::Error },
    #[error("{0} exists and is no socket: remove it, or choose another path")]
    NoSocket(PathBuf),
    #[error("{path} is a socket of uid {uid}: remove it, or choose another path")]
    Foreign { path: PathBuf, uid: u32 },
    #[error("another process listens on {0}: stop it, or choose another path")]
    Answered(PathBuf),
    #[error(
        "somebody put another file in the place of {0} while it was made: use a directory that only polder's user can write in"
    )]
    Replaced(PathBuf),
    #[error("cannot {step} the socket {path}: {source}")]
    Os { path: PathBuf, step: &'static str, source: io::Error },
}

/// A name in a directory that is held open, so that it stays the same directory.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl SocketFile {
    /// Listens at `path`, whose file has exactly `mode`, whatever the umask. A socket file of our own user that nobody
    /// listens on any more is replaced; anything else that has the name stays, and is an error. Never waits.
    ///
    /// # Errors
    /// [`SocketFileError`]: what has the name, or what the system refused.
    pub fn listen(path: &Path, mode: Mode, backlog: i32) -> Result<Self, SocketFileError> {
        let place = Place::open(path)?;
        place.clear()?;
        let socket = stream_socket().map_err(place.failed("make"))?;
        // Before the file is there, so that it never allows more; the umask may take away some of it.
        fchmod(&socket, mode).map_err(place.failed("make"))?;
        bind(&socket, &place.address()?).map_err(place.failed("bind"))?;
        let made = place.find(LOOK).map_err(place.failed("find"))?;
        let this = Self { file: identity(&made.stat), socket, place };
        this.place.check_fresh(&made)?;
        if made.stat.st_mode & 0o777 != mode.as_raw_mode() {
            chmod(magic_link(&made.fd), mode).map_err(this.place.failed("set the mode of"))?;
        }
        listen(&this.socket, backlog).map_err(this.place.failed("listen on"))?;
        Ok(this)
    }

    /// Lets nobody connect any more, also while another thread holds a duplicate of the socket, and removes the file.
    pub fn close(self) {
        // It cannot fail on a socket of ours.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    /// Removes the file if it is still the one that we made.
    fn drop(&mut self) {
        let now = self.place.stat();
        if now.is_ok_and(|stat| is_socket(&stat) && identity(&stat) == self.file) {
            let _ = self.place.unlink();
        }
    }
}

/// What has the name: held open, so that it stays the same file.
struct Found {
    fd: OwnedFd,
    stat: Stat,
}

impl Found {
    /// What connecting says: `None` if somebody listens.
    fn refusal(&self) -> Option<Errno> {
        let address = match SocketAddrUnix::new(magic_link(&self.fd).as_str()) {
            Ok(address) => address,
            Err(e) => return Some(e),
        };
        stream_socket().and_then(|socket| connect(&socket, &address)).err()
    }
}

impl Place {
    fn open(path: &Path) -> Result<Self, SocketFileError> {
        let name = path.file_name().ok_or_else(|| SocketFileError::NoName(path.to_owned()))?.to_owned();
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, directory, flags, Mode::empty()).map_err(|e| SocketFileError::NoDirectory {
            path: path.to_owned(),
            directory: directory.to_owned(),
            source: e.into(),
        })?;
        Ok(Self { path: path.to_owned(), directory: fd, name })
    }

    fn failed(&self, step: &'static str) -> impl Fn(Errno) -> SocketFileError + use<> {
        let path = self.path.clone();
        move |e| SocketFileError::Os { path: path.clone(), step, source: e.into() }
    }

    /// The name, in the directory that is held open.
    fn address(&self) -> Result<SocketAddrUnix, SocketFileError> {
        let mut text = magic_link(&self.directory).into_bytes();
        text.push(b'/');
        let most = MAX_PATH.saturating_sub(text.len());
        text.extend_from_slice(self.name.as_bytes());
        let length = self.name.len();
        SocketAddrUnix::new(OsStr::from_bytes(&text)).map_err(|_| SocketFileError::NameTooLong {
            path: self.path.clone(),
            length,
            most,
        })
    }

    fn stat(&self) -> Result<Stat, Errno> {
        statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn find(&self, flags: OFlags) -> Result<Found, Errno> {
        let fd = openat(&self.directory, &self.name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        Ok(Found { fd, stat })
    }

    fn unlink(&self) -> Result<(), Errno> {
        unlinkat(&self.directory, &self.name, AtFlags::empty())
    }

    /// Sees to it that nothing has the name, or says what has it.
    fn clear(&self) -> Result<(), SocketFileError> {
        let there = match self.find(LOOK) {
            Err(Errno::NOENT) => return Ok(()),
            there => there.map_err(self.failed("look at"))?,
        };
        let path = || self.path.clone();
        if !is_socket(&there.stat) {
            return Err(SocketFileError::NoSocket(path()));
        }
        if there.stat.st_uid != geteuid().as_raw() {
            return Err(SocketFileError::Foreign { path: path(), uid: there.stat.st_uid });
        }
        match there.refusal() {
            Some(Errno::CONNREFUSED) => {}
            Some(Errno::ACCESS | Errno::PERM) => {
                return Err(SocketFileError::Foreign { path: path(), uid: there.stat.st_uid });
            }
            // Also where its backlog is full.
            _ => return Err(SocketFileError::Answered(path())),
        }
        if !self.stat().is_ok_and(|now| identity(&now) == identity(&there.stat)) {
            return Err(SocketFileError::Replaced(path()));
        }
        self.unlink().map_err(self.failed("remove"))
    }

    /// That what has the name can be the socket just made and bound, on which nobody listens yet.
    fn check_fresh(&self, made: &Found) -> Result<(), SocketFileError> {
        let ours = made.stat.st_uid == geteuid().as_raw() && made.stat.st_nlink == 1;
        if is_socket(&made.stat) && ours && made.refusal() == Some(Errno::CONNREFUSED) {
            return Ok(());
        }
        Err(SocketFileError::Replaced(self.path.clone()))
    }
}

/// Longest path of a Unix socket: 108 bytes with the zero behind it.
pub const MAX_PATH: usize = 107;

/// A path that leads to the very file that is open, also if it has no name any more.
fn magic_link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW, None)
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    const GROUP: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn exact_mode_and_gone_after() {
        let dir = dir();
        let path = dir.path().join("s");
        for mode in [GROUP, Mode::RUSR | Mode::WUSR] {
            let socket = SocketFile::listen(&path, mode, 1).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode.as_raw_mode());
            assert!(UnixStream::connect(&path).is_ok());
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[test]
    fn c26_stale_is_replaced_living_is_not() {
        let dir = dir();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let first = SocketFile::listen(&path, GROUP, 1).unwrap();
        assert!(matches!(SocketFile::listen(&path, GROUP, 1), Err(SocketFileError::Answered(_))));
        drop(first);
        for put in [|p: &Path| fs::write(p, "mine").unwrap(), |p: &Path| fs::create_dir(p).unwrap()] {
            put(&path);
            assert!(matches!(SocketFile::listen(&path, GROUP, 1), Err(SocketFileError::NoSocket(_))));
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }

    #[test]
    fn c26_long_names_and_none() {
        let dir = dir();
        let long = dir.path().join("x".repeat(100));
        assert!(matches!(SocketFile::listen(&long, GROUP, 1), Err(SocketFileError::NameTooLong { .. })));
        let none = SocketFile::listen(Path::new("/"), GROUP, 1);
        assert!(matches!(none, Err(SocketFileError::NoName(_))));
        let nowhere = SocketFile::listen(&dir.path().join("no/s"), GROUP, 1);
        assert!(nowhere.unwrap_err().to_string().contains("mkdir -p"));
    }

    #[test]
    fn a_successor_of_that_name_is_not_removed() {
        let dir = dir();
        let path = dir.path().join("s");
        let first = SocketFile::listen(&path, GROUP, 1).unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        let second = SocketFile::listen(&path, GROUP, 1).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}

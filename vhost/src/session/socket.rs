//! The socket's file: made so that only who should can connect, replaced only if it is ours to replace.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use pmd::PortError;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, chmodat, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

/// Longest path of a Unix socket: 108 bytes with the zero behind it.
pub(crate) const MAX_PATH: usize = 107;
/// Owner and group connect. (Connecting is writing.)
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);
const BACKLOG: i32 = 8;
const NEW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A listening socket and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    directory: OwnedFd,
    name: OsString,
    /// Device and inode of the file that we made.
    file: (u64, u64),
}

impl Listener {
    /// Makes the socket and listens. A socket file that nobody listens on any more is replaced; anything else that has the
    /// name stays, and is an error.
    pub(crate) fn bind(path: &Path) -> Result<Self, PortError> {
        let os = |what: String| move |e: Errno| PortError::Os { what, source: e.into() };
        let shown = path.display();
        let (directory, name) = open_directory(path)?;
        clear_the_way(path, directory.as_fd(), &name)?;
        let failed = || os(format!("cannot make the socket {shown}"));
        let socket = stream_socket().map_err(failed())?;
        // Before the file is there, so that it never allows more; again afterwards, whatever the umask took away. Nobody
        // can connect before `listen`.
        fchmod(&socket, MODE).map_err(failed())?;
        let address = SocketAddrUnix::new(path).map_err(failed())?;
        bind(&socket, &address).map_err(failed())?;
        let file = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
        let listener = Self { socket, directory, name, file: identity(&file) };
        chmodat(&listener.directory, &listener.name, MODE, AtFlags::empty()).map_err(failed())?;
        listen(&listener.socket, BACKLOG).map_err(failed())?;
        Ok(listener)
    }

    /// A connection that waits, if there is one.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.socket, NEW) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    /// Removes the file if it is still the one that we made.
    fn drop(&mut self) {
        let now = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if now.is_ok_and(|stat| is_socket(&stat) && identity(&stat) == self.file) {
            let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Connects to whoever listens at `path`, without waiting.
pub(super) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = stream_socket()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW, None)
}

fn open_directory(path: &Path) -> Result<(OwnedFd, OsString), PortError> {
    let shown = path.display();
    let name = path.file_name().ok_or_else(|| PortError::Spec(format!("{shown}: no file name")))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let opened = openat(CWD, &directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let what =
        format!("cannot open the directory of {shown}: make it first (mkdir -p {})", directory.display());
    Ok((opened.map_err(|e| PortError::Os { what, source: e.into() })?, name.to_owned()))
}

/// Sees to it that nothing has the name, or says what has it.
fn clear_the_way(path: &Path, directory: BorrowedFd<'_>, name: &OsString) -> Result<(), PortError> {
    let shown = path.display();
    let os = |what: String| move |e: Errno| PortError::Os { what, source: e.into() };
    let there = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        there => there.map_err(os(format!("cannot look at {shown}")))?,
    };
    let exists = |why: String| {
        let source = io::Error::from(Errno::ADDRINUSE);
        Err(PortError::Os { what: why, source })
    };
    if !is_socket(&there) {
        return exists(format!("{shown} exists and is no socket: remove it, or choose another path"));
    }
    match connect_to(path) {
        Err(Errno::CONNREFUSED) => unlinkat(directory, name, AtFlags::empty())
            .map_err(os(format!("cannot remove the socket {shown}, which nobody listens on any more"))),
        Err(Errno::ACCESS | Errno::PERM) => {
            exists(format!("{shown} is a socket of somebody else: remove it, or choose another path"))
        }
        _ => exists(format!("another process listens on {shown}: stop it, or choose another path")),
    }
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

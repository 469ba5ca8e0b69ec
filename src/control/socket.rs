//! The daemon's end of the control socket: made for its owner alone, gone when dropped.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket and the file that names it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: somebody else's file of that name is not removed.
    identity: (u64, u64),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error("a polder answers at {0} already; stop it, or give this one another socket with --control")]
    Answered(PathBuf),
    #[error("{0} is there and no socket; remove it, or give another path with --control")]
    NoSocket(PathBuf),
    #[error(
        "control socket path of {0} bytes; the system takes at most 107; give a shorter one with --control"
    )]
    TooLong(usize),
    #[error("control socket {path}: {step}: {source}; give another path with --control")]
    Os { path: PathBuf, step: &'static str, source: io::Error },
}

impl ControlSocket {
    /// Listens at `path`, with mode 0600 whatever the umask. A socket on which nobody listens any more is replaced.
    pub(crate) fn listen(path: &Path) -> Result<Self, SocketError> {
        let address = SocketAddrUnix::new(path).map_err(|_| SocketError::TooLong(path.as_os_str().len()))?;
        let at = |step| move |e: rustix::io::Errno| failed(path, step)(e.into());
        let _alone = lock_dir(path)?;
        remove_stale(path)?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(at("socket"))?;
        // Linux gives the file the mode of the unbound socket, less the umask: at no time may others connect.
        fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(at("fchmod"))?;
        bind(&fd, &address).map_err(at("bind"))?;
        let made = fs::symlink_metadata(path).map_err(failed(path, "stat"))?;
        let this = Self { listener: fd.into(), path: path.to_owned(), identity: (made.dev(), made.ino()) };
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed(path, "chmod"))?;
        listen(&this.listener, BACKLOG).map_err(at("listen"))?;
        Ok(this)
    }

    /// What to accept from.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "control socket not removed");
        }
    }
}

fn failed(path: &Path, step: &'static str) -> impl Fn(io::Error) -> SocketError {
    move |source| SocketError::Os { path: path.to_owned(), step, source }
}

/// Locks the directory until dropped: of two daemons that find the same stale socket, one removes it.
fn lock_dir(path: &Path) -> Result<File, SocketError> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = File::open(dir).map_err(failed(path, "open its directory"))?;
    flock(&dir, FlockOperation::LockExclusive).map_err(|e| failed(path, "lock its directory")(e.into()))?;
    Ok(dir)
}

/// Removes a socket that refuses connections; an error for anything else that stands there.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(path, "stat")(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Answered(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed(path, "remove"))
        }
        Err(e) => Err(failed(path, "connect")(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn owner_only_and_gone_after() {
        let dir = dir();
        let path = dir.path().join("c");
        let socket = ControlSocket::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn stale_is_replaced_living_is_not() {
        let dir = dir();
        let path = dir.path().join("c");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let first = ControlSocket::listen(&path).unwrap();
        assert!(matches!(ControlSocket::listen(&path), Err(SocketError::Answered(_))));
        assert!(UnixStream::connect(&path).is_ok(), "the first one still listens");
        drop(first);
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = dir();
        let path = dir.path().join("c");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(ControlSocket::listen(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let long = dir.path().join("x".repeat(200));
        assert!(matches!(ControlSocket::listen(&long), Err(SocketError::TooLong(_))));
    }

    #[test]
    fn a_successor_of_that_name_is_not_removed() {
        let dir = dir();
        let path = dir.path().join("c");
        let first = ControlSocket::listen(&path).unwrap();
        fs::rename(&path, dir.path().join("old")).unwrap();
        let second = ControlSocket::listen(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}

//! The daemon's end of the control socket: made for its owner alone, gone when dropped.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use pmd::socket_file::{SocketFile, SocketFileError};
use rustix::fs::Mode;

use super::lock::StartLock;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket and the file that names it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    /// The file, which goes with it.
    _file: SocketFile,
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
    #[error(
        "{0} is locked: another polder is starting there, or a program holds the file; stop it (fuser {0}), or give another \
         socket with --control"
    )]
    Locked(PathBuf),
    #[error("control socket: {0}; or give another path with --control")]
    File(SocketFileError),
    #[error("control socket {path}: {step}: {source}; give another path with --control")]
    Os { path: PathBuf, step: &'static str, source: io::Error },
}

impl ControlSocket {
    /// Listens at `path`, with mode 0600 whatever the umask. A socket on which nobody listens any more is replaced. Waits for
    /// at most [`super::lock::PATIENCE`].
    pub(crate) fn listen(path: &Path) -> Result<Self, SocketError> {
        let length = path.as_os_str().len();
        if length > pmd::socket_file::MAX_PATH {
            return Err(SocketError::TooLong(length));
        }
        // Of two daemons that find the same stale socket, one removes it.
        let _alone = StartLock::take(path)?;
        let file = SocketFile::listen(path, Mode::RUSR | Mode::WUSR, BACKLOG)?;
        let failed = |source| SocketError::Os { path: path.to_owned(), step: "dup", source };
        let listener = UnixListener::from(file.as_fd().try_clone_to_owned().map_err(failed)?);
        listener.set_nonblocking(false).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }

    /// What to accept from.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl From<SocketFileError> for SocketError {
    fn from(error: SocketFileError) -> Self {
        match error {
            SocketFileError::Answered(path) => Self::Answered(path),
            SocketFileError::NoSocket(path) => Self::NoSocket(path),
            other => Self::File(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

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
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "neither socket nor lock");
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

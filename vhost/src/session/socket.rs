//! The port's socket: listening, or connecting to one that listens.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use pmd::PortError;
use pmd::socket_file::{SocketFile, SocketFileError};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, socket_with,
};

pub(crate) use pmd::socket_file::MAX_PATH;

/// Owner and group connect. (Connecting is writing.)
const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);
const BACKLOG: i32 = 8;
const NEW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket and its file, and listens; see [`SocketFile::listen`].
    pub(crate) fn bind(path: &Path) -> Result<(Self, SocketFile), PortError> {
        let file = SocketFile::listen(path, MODE, BACKLOG).map_err(refused)?;
        let what = || format!("cannot share the socket {}", path.display());
        let socket = file.as_fd().try_clone_to_owned();
        let socket = socket.map_err(|source| PortError::Os { what: what(), source })?;
        Ok((Self(socket), file))
    }

    /// A connection that waits, if there is one.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.0, NEW) {
            Ok(socket) => Ok(Some(socket)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn refused(error: SocketFileError) -> PortError {
    match error {
        SocketFileError::NoName(_) | SocketFileError::NameTooLong { .. } => {
            PortError::Spec(error.to_string())
        }
        SocketFileError::NoDirectory { path, directory, source } => PortError::Os {
            what: format!(
                "cannot open the directory of {}: make it first (mkdir -p {})",
                path.display(),
                directory.display()
            ),
            source,
        },
        SocketFileError::Os { path, step, source } => {
            PortError::Os { what: format!("cannot {step} the socket {}", path.display()), source }
        }
        taken => PortError::Os { what: taken.to_string(), source: io::Error::from(Errno::ADDRINUSE) },
    }
}

/// Connects to whoever listens at `path`, without waiting.
pub(super) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

//! Who is at the other end of a socket.
#![expect(unsafe_code, reason = "getsockopt(SO_PEERCRED)")]
// UNSAFETY: one system call that fills a structure of ours. rustix has it too, but with a process number that cannot be
// 0, and a peer in another PID namespace has 0.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A process, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// 0 if it has no number here.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

impl Peer {
    /// Who connected, or who listened when we connected.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the pointers name `credentials` and its size, both alive and ours; the kernel writes at most `len`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut len,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pid: credentials.pid, uid: credentials.uid })
    }
}

//! Kick, call and err descriptors: eventfds, and nothing else.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{CWD, OFlags, fcntl_getfl, fcntl_setfl, readlinkat};
use rustix::io::Errno;

use super::trouble::Refusal;

/// Makes sure that `fd` is an eventfd, and non-blocking: writing to anything else could wait for somebody, or harm a file.
/// (The flag is the front end's too; the data plane does not rely on it.)
pub(super) fn check(fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let is_eventfd = is_eventfd(fd)
        .map_err(|e| Refusal::Os { what: "cannot look at a descriptor through /proc", source: e.into() })?;
    if !is_eventfd {
        return Err(Refusal::NotEventfd);
    }
    let nonblocking = fcntl_getfl(fd).and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK));
    nonblocking.map_err(|e| Refusal::Os { what: "fcntl F_SETFL", source: e.into() })
}

/// What kind of file it is, as the kernel knows it: the file itself is not asked.
pub(super) fn is_eventfd(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(readlinkat(CWD, path, Vec::new())?.to_bytes() == b"anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn an_eventfd_becomes_non_blocking() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd");
        check(fd.as_fd()).expect("accepted");
        assert!(fcntl_getfl(&fd).expect("F_GETFL").contains(OFlags::NONBLOCK));
    }

    #[test]
    fn whatever_else_is_refused() {
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        let named = memfd_create("anon_inode:[eventfd]", MemfdFlags::CLOEXEC).expect("memfd");
        for fd in [reader, writer, named] {
            assert!(matches!(check(fd.as_fd()), Err(Refusal::NotEventfd)));
        }
    }
}

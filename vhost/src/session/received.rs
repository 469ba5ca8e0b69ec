//! Descriptors as a front end sent them: anything may be behind them, also a file whose every call waits for its owner for
//! ever (FUSE, NFS). close(2) is such a call, and no signal ends it.
//!
//! A [`Received`] is asked only what the kernel answers by itself. What turns out to be an eventfd or a file in memory
//! becomes an ordinary descriptor; whatever else is closed by a [`Closer`], in a process that can be left behind.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::fcntl_get_seals;
use rustix::io::Errno;

use super::closer::{Closer, unknown};
use super::eventfd;
use super::trouble::Refusal;
use crate::memory::MemoryError;

/// A descriptor that came with a message. Dropping it never waits.
#[derive(Debug)]
pub(super) struct Received {
    /// `None` only once it was turned into something else.
    fd: Option<OwnedFd>,
    closer: Closer,
}

impl Received {
    pub(super) fn new(fd: OwnedFd, closer: &Closer) -> Self {
        unknown().insert(fd.as_raw_fd());
        Self { fd: Some(fd), closer: closer.clone() }
    }

    /// As kick, call or err descriptor of a ring.
    pub(super) fn into_eventfd(mut self) -> Result<OwnedFd, Refusal> {
        eventfd::check(self.as_fd())?;
        self.take()
    }

    /// As the memory of a region at `gpa`: a file that knows seals, which is one on tmpfs or hugetlbfs, or a memfd. Their
    /// fstat, fstatfs, mmap and close wait for nobody.
    pub(super) fn into_memory_file(mut self, gpa: u64) -> Result<OwnedFd, Refusal> {
        match fcntl_get_seals(self.as_fd()) {
            Ok(_) => self.take(),
            Err(Errno::BADF) => Err(MemoryError::ReadOnly { gpa }.into()),
            Err(_) => Err(MemoryError::NotInMemory { gpa }.into()),
        }
    }

    fn take(&mut self) -> Result<OwnedFd, Refusal> {
        unknown().remove(&self.as_fd().as_raw_fd());
        self.fd.take().ok_or(Refusal::NotEventfd)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("taken only by value").as_fd()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if is_harmless(fd.as_fd()) {
            // Before its number can be somebody else's.
            unknown().remove(&fd.as_raw_fd());
        } else {
            self.closer.close(fd);
        }
    }
}

/// Whether the kernel alone answers for the file, so that closing it waits for nobody.
fn is_harmless(fd: BorrowedFd<'_>) -> bool {
    fcntl_get_seals(fd).is_ok() || eventfd::is_eventfd(fd) == Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::pipe;

    use super::*;

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < end, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn c09_what_an_honest_front_end_sends_is_closed_in_place() {
        let closer = Closer::default();
        for _ in 0..20 {
            drop(Received::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap(), &closer));
            drop(Received::new(memfd_create("received", MemfdFlags::CLOEXEC).unwrap(), &closer));
        }
        assert!(!closer.is_at_work());
    }

    #[test]
    fn c09_whatever_else_is_closed_elsewhere_and_nothing_is_left() {
        let closer = Closer::default();
        let (reader, writer) = pipe().unwrap();
        for _ in 0..100 {
            drop(Received::new(writer.try_clone().unwrap(), &closer));
        }
        drop(Received::new(writer, &closer));
        until("all reaped", || closer.has_room() && !closer.is_at_work());
        // End of file: nobody has the other end any more.
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn c09_a_port_that_goes_leaves_nothing_open() {
        let (reader, writer) = pipe().unwrap();
        let closer = Closer::default();
        drop(Received::new(writer, &closer));
        drop(closer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    }
}

//! What wakes a sleeping lcore for a NIC's queue: one descriptor for the half's whole life, whatever becomes of the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;

use crate::alarm::Alarm;

/// An epoll set, itself waited on by the lcore. In it: the device's interrupt while there is a device, and a nudge.
#[derive(Debug)]
pub(super) struct Wake {
    set: OwnedFd,
    nudge: Alarm,
}

impl Wake {
    /// Without a device yet.
    ///
    /// # Errors
    /// What the system says: too many descriptors, most likely.
    pub(super) fn new() -> io::Result<Self> {
        let (set, nudge) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Alarm::new()?);
        epoll::add(&set, &nudge, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { set, nudge })
    }

    /// What the lcore waits on.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }

    /// Has a device's interrupt wake, too. It leaves the set by being closed.
    pub(super) fn hang_in(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.set, event, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?)
    }

    /// Takes a device's interrupt out.
    pub(super) fn take_out(&self, event: BorrowedFd<'_>) {
        // Not in it, if it could not be put in.
        let _ = epoll::delete(&self.set, event);
    }

    /// Wakes whoever sleeps: the ring was changed, and the new one is not armed.
    pub(super) fn nudge(&self) {
        self.nudge.raise();
    }

    /// Ends that.
    pub(super) fn clear(&self) {
        self.nudge.clear();
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn wakes_by_a_nudge_and_by_each_device() {
        let wake = Wake::new().unwrap();
        assert!(!is_readable(wake.fd()));
        wake.nudge();
        assert!(is_readable(wake.fd()));
        wake.clear();
        for _ in 0..2 {
            let interrupt = Alarm::new().unwrap();
            wake.hang_in(interrupt.as_fd()).unwrap();
            assert!(!is_readable(wake.fd()));
            interrupt.raise();
            assert!(is_readable(wake.fd()));
            wake.take_out(interrupt.as_fd());
            assert!(!is_readable(wake.fd()));
        }
    }
}

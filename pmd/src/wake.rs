//! What wakes a sleeping lcore for a receive half: one descriptor for the half's whole life, whatever becomes of the device
//! or the guest behind it.
//!
//! Nobody reads what signals here. A peer's eventfd belongs to the peer, too, who may make it block at any moment (C14); so
//! the lcore watches for edges ([`is_readable`] says what was there before), and each write to the eventfd is one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use crate::alarm::Alarm;

/// An epoll set, itself waited on by the lcore. In it: the peer's event, or a set of that, while there is a peer; and a nudge.
#[derive(Debug)]
pub struct Wake {
    set: OwnedFd,
    nudge: Alarm,
}

impl Wake {
    /// Without a peer yet.
    ///
    /// # Errors
    /// What the system says: too many descriptors, most likely.
    pub fn new() -> io::Result<Self> {
        let (set, nudge) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Alarm::new()?);
        epoll::add(&set, &nudge, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { set, nudge })
    }

    /// What the lcore waits on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }

    /// Has a device's event (a NIC's interrupt) wake, too, until [`take_out`](Self::take_out). For one that is ours alone.
    ///
    /// # Errors
    /// What the system says: no memory, or the user's limit of watches.
    pub fn hang_in(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.set, event, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?)
    }

    /// The same for an event that a peer has, too (a guest's kick), until what is returned is dropped. Closing the event would not
    /// do, as the peer has the same open file.
    ///
    /// The peer decides how long this takes: the kernel walks all that watches the event, and takes the lock that each signal
    /// takes, with the mutex of the set held into which it hangs the event (epoll_ctl(2)). An lcore that wakes needs the mutex
    /// of this set; so the event gets a set of its own, which joins this one while it is empty and leaves it before it is
    /// taken apart.
    ///
    /// # Errors
    /// What the system says: no memory, too many descriptors, the user's limit of watches; or that the peer nested its own
    /// watches too deep.
    pub fn hang_in_shared(&self, event: BorrowedFd<'_>) -> io::Result<Hung> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&self.set, &set, epoll::EventData::new_u64(2), epoll::EventFlags::IN)?;
        epoll::add(&set, event, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        Ok(Hung { _set: set })
    }

    /// Takes a device's event out.
    pub fn take_out(&self, event: BorrowedFd<'_>) {
        // Not in it, if it could not be put in.
        let _ = epoll::delete(&self.set, event);
    }

    /// Wakes whoever sleeps: the ring was changed, and the new one is not armed.
    pub fn nudge(&self) {
        self.nudge.raise();
    }

    /// Makes the set as it was before the nudge, for who does not go by edges.
    pub fn clear(&self) {
        self.nudge.clear();
    }
}

/// A peer's event that wakes, until this is dropped.
#[derive(Debug)]
pub struct Hung {
    /// Nobody else has it: closed, it first leaves the set that it is in, and is taken apart then (eventpoll_release comes
    /// first in the kernel's __fput).
    _set: OwnedFd,
}

/// Whether there is something to read, now. One system call, never waiting.
#[must_use]
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// As lcores wait: by edges.
    fn edges(set: &OwnedFd) -> usize {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 4];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(set, &mut events[..], Some(&now)).unwrap()
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

    /// C14: what is never read wakes by each write all the same, and costs nothing while it stays as it is.
    #[test]
    fn each_write_is_an_edge_though_nobody_reads() {
        let lcore = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (wake, kick) = (Wake::new().unwrap(), Alarm::new().unwrap());
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&lcore, wake.fd(), epoll::EventData::new_u64(7), edge).unwrap();
        kick.raise();
        let hung = wake.hang_in_shared(kick.as_fd()).unwrap();
        assert_eq!((edges(&lcore), edges(&lcore)), (1, 0), "one that was readable when it came is an edge");
        for _ in 0..100 {
            kick.raise();
            kick.raise();
            assert_eq!((edges(&lcore), edges(&lcore)), (1, 0));
            wake.nudge();
            assert_eq!((edges(&lcore), edges(&lcore)), (1, 0));
        }
        drop(hung);
        edges(&lcore);
        kick.raise();
        assert_eq!(edges(&lcore), 0, "it was taken out, though it is still open");
    }

    /// A6, for kicks: a front end that has 10^5 epoll watches on its kick and has it hung in again and again keeps no lcore
    /// from waking. Hanging it in takes milliseconds, as the kernel walks the watches.
    #[test]
    fn a06_a_kick_with_many_watches_holds_up_no_lcore() {
        const WHILE: Duration = Duration::from_millis(1000);
        let wake = Wake::new().unwrap();
        let lcore = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&lcore, wake.fd(), epoll::EventData::new_u64(7), edge).unwrap();
        // How often the lcore wakes in a while, nudged every 200 us.
        let wakes = |meanwhile: &(dyn Fn() + Sync)| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        meanwhile();
                    }
                });
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        wake.nudge();
                        std::thread::sleep(Duration::from_micros(200));
                    }
                });
                let (start, mut count) = (Instant::now(), 0);
                while start.elapsed() < WHILE {
                    count += edges(&lcore);
                    std::thread::sleep(Duration::from_micros(50));
                }
                stop.store(true, Ordering::Relaxed);
                count
            })
        };
        let kick = Alarm::new().unwrap();
        let hang = || drop(wake.hang_in_shared(kick.as_fd()).unwrap());
        let honest = wakes(&hang);
        let sets: Vec<_> = (0..250).map(|_| epoll::create(epoll::CreateFlags::CLOEXEC).unwrap()).collect();
        let duplicates: Vec<_> = (0..400).map(|_| kick.as_fd().try_clone_to_owned().unwrap()).collect();
        for (set, duplicate) in sets.iter().flat_map(|set| duplicates.iter().map(move |d| (set, d))) {
            epoll::add(set, duplicate, epoll::EventData::new_u64(0), epoll::EventFlags::IN).unwrap();
        }
        let attacked = wakes(&hang);
        println!("{honest} wakes, {attacked} under attack");
        assert!(attacked > honest / 4, "{attacked} wakes of {honest}");
    }
}

//! How the data plane tells a port's control thread that something broke: an eventfd of our own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An alarm that any thread raises and the control thread waits for. Nobody else has the descriptor, so that raising it
/// never blocks.
#[derive(Debug)]
pub struct Alarm {
    event: OwnedFd,
}

impl Alarm {
    /// One that is not raised.
    ///
    /// # Errors
    /// Whatever eventfd(2) says: too many descriptors, most likely.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Raises it: one system call, async-signal-safe, never waiting.
    pub fn raise(&self) {
        // It fails only when the counter is full: raised enough.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Puts it down again; whether it was up.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.event, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_up_until_cleared() {
        let alarm = Alarm::new().expect("eventfd");
        assert!(!alarm.clear());
        alarm.raise();
        alarm.raise();
        assert!(alarm.clear());
        assert!(!alarm.clear());
    }
}

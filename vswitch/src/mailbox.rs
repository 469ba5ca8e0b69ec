//! How the control path speaks to an lcore: commands in a box that the lcore looks at between turns.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};

use crate::sync::{AtomicBool, Mutex};

/// One lcore's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox<C> {
    posted: AtomicBool,
    queue: Mutex<VecDeque<C>>,
}

impl<C> Default for Mailbox<C> {
    fn default() -> Self {
        Self { posted: AtomicBool::new(false), queue: Mutex::new(VecDeque::new()) }
    }
}

impl<C> Mailbox<C> {
    /// Puts a command in. The control path only: it may wait for others who do the same.
    pub(crate) fn post(&self, command: C) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
        // ORDERING: B1 Release, pairs with B2: who sees the flag finds the command.
        self.posted.store(true, Ordering::Release);
    }

    /// Whether there may be something in it. One load of a line that nobody writes as long as there is nothing.
    #[inline(always)]
    pub(crate) fn has_mail(&self) -> bool {
        self.posted.load(Ordering::Relaxed)
    }

    /// The next command. `None` if there is none, or if somebody is just putting one in: then it is there next time.
    pub(crate) fn take(&self) -> Option<C> {
        // ORDERING: B2 Acquire, pairs with B1. Down before looking: what comes after the look puts it up again.
        self.posted.swap(false, Ordering::Acquire);
        let mut queue = match self.queue.try_lock() {
            Ok(queue) => queue,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.posted.store(true, Ordering::Relaxed);
                return None;
            }
        };
        let command = queue.pop_front();
        if !queue.is_empty() {
            self.posted.store(true, Ordering::Relaxed);
        }
        command
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_lost_doubled_or_reordered() {
        let mailbox = Arc::new(Mailbox::default());
        let posters: Vec<_> = (0..3u32)
            .map(|who| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || (0..20_000u32).for_each(|n| mailbox.post((who, n))))
            })
            .collect();
        let mut next = [0u32; 3];
        while next != [20_000; 3] {
            if mailbox.has_mail()
                && let Some((who, n)) = mailbox.take()
            {
                assert_eq!(n, next[who as usize], "each poster's commands come in its order");
                next[who as usize] += 1;
            } else {
                std::thread::yield_now();
            }
        }
        posters.into_iter().for_each(|p| p.join().unwrap());
        assert_eq!(mailbox.take(), None);
        assert!(!mailbox.has_mail());
    }

    #[test]
    fn a_busy_box_is_looked_at_again() {
        let mailbox = Mailbox::default();
        mailbox.post(1);
        let held = mailbox.queue.lock().unwrap();
        assert_eq!(mailbox.take(), None, "never waits");
        assert!(mailbox.has_mail());
        drop(held);
        assert_eq!(mailbox.take(), Some(1));
    }
}

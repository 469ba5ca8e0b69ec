//! What the control thread signals itself: err eventfds of rings that broke, and the calls that the data plane leaves to it.
//!
//! A front end may make signalling its eventfds take long. That costs this thread, and the CPU it runs on for a tenth of the
//! time: after a long one the next waits, and calls of one ring that are due meanwhile become one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Session;
use super::control::lock;
use crate::vring::{PortNotifier, thread_cpu_time};
use pmd::notify;

/// After signalling for some time, so many times as long nothing is signalled,
const PAUSE: u32 = 9;
/// but no longer than that.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Less is no reason to pause.
const WORTH_A_PAUSE: Duration = Duration::from_micros(100);
/// When to try again what the kernel refused.
const RETRY: Duration = Duration::from_millis(10);

/// An eventfd that is to be signalled.
#[derive(Debug)]
pub(super) struct Due {
    ring: usize,
    /// Not its err, but its call.
    is_call: bool,
    eventfd: Arc<OwnedFd>,
}

impl Session {
    /// What is to be signalled now.
    fn take_due(&mut self) -> Vec<Due> {
        let due = |ring, is_call, eventfd: &Option<Arc<OwnedFd>>| {
            eventfd.clone().map(|eventfd| Due { ring, is_call, eventfd })
        };
        let mut all = Vec::new();
        for (i, ring) in self.rings.iter_mut().enumerate() {
            if std::mem::take(&mut ring.err_due) {
                all.extend(due(i, false, &ring.err));
            }
            if self.slots[i].notifier().take_due() {
                all.extend(due(i, true, &ring.call));
            }
        }
        all
    }

    /// The kernel refused to signal it.
    fn not_signalled(&mut self, due: &Due, error: &std::io::Error) {
        self.note(&format!("ring {}", due.ring), "call_failed", error);
        if due.is_call {
            self.slots[due.ring].notifier().is_still_due();
        }
    }

    /// Says once that calls were taken from the data plane, or given back.
    fn tell_who_calls(&mut self, notifier: &PortNotifier, was_away: &mut bool) {
        let stats = notifier.stats();
        if std::mem::replace(was_away, stats.is_away) == stats.is_away {
            return;
        }
        let longest = stats.longest;
        if stats.is_away {
            let why = format!(
                "calling the guest takes long ({longest:?}), as the front end's eventfd has many waiters: its calls are \
                 made by the port's control thread from now on, and come later"
            );
            self.note("calls", "calls_moved", &why);
        } else {
            self.note("calls", "calls_returned", &"calling the guest is quick: made by the lcore again");
        }
    }
}

/// The control thread's memory of what it signals.
#[derive(Debug)]
pub(super) struct Calls {
    notifier: Arc<PortNotifier>,
    not_before: Instant,
    was_away: bool,
}

impl Calls {
    pub(super) fn new(notifier: Arc<PortNotifier>) -> Self {
        Self { notifier, not_before: Instant::now(), was_away: false }
    }

    /// Signals what is due, unless it is too early. Without the session's lock: it may take long.
    pub(super) fn make(&mut self, session: &Mutex<Session>) {
        if Instant::now() < self.not_before {
            return;
        }
        let due = lock(session).take_due();
        let mut pause = Duration::ZERO;
        for due in due {
            let start = thread_cpu_time();
            let done = notify::signal(due.eventfd.as_fd());
            let took = thread_cpu_time().saturating_sub(start);
            if due.is_call {
                self.notifier.took_control_thread(took);
            }
            if took > WORTH_A_PAUSE {
                pause = (pause + took * PAUSE).min(LONGEST_PAUSE);
            }
            if let Err(error) = done {
                lock(session).not_signalled(&due, &error);
                pause = pause.max(RETRY);
            }
        }
        if !pause.is_zero() {
            self.not_before = Instant::now() + pause;
        }
        if self.notifier.is_away() != self.was_away {
            lock(session).tell_who_calls(&self.notifier, &mut self.was_away);
        }
    }

    /// When to look again though nothing wakes the thread.
    pub(super) fn next_time(&self) -> Option<Instant> {
        Some(self.not_before).filter(|at| *at > Instant::now())
    }
}

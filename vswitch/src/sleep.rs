//! How an idle lcore sleeps, and how it is woken.
//!
//! | what may come | how it is not missed |
//! |---|---|
//! | packets from outside | each receive half's [`arm`](pmd::RxQueue::arm) looks once more after asking to be signalled |
//! | packets from other lcores | a flag, a fence, and one more look (S1, S2) |
//! | mail | its doorbell is rung whether the lcore sleeps or not |
//! | a timer | its time is the sleep's time-out |
//!
//! All that signals is watched for edges and never read: what stands there from before wakes nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pmd::RxQueue;
use pmd::alarm::Alarm;
use rustix::event::{Timespec, epoll};

use crate::asleep::Asleep;

/// The longest sleep, so that statistics are never older; and what a peer that fails to signal costs its own packets.
const LONGEST: Duration = Duration::from_millis(10);
/// Signals taken from the kernel at a time.
const SIGNALS: usize = 32;
/// Marks in the set: somebody rang, or a receive half signalled.
const RUNG: u64 = 0;
const SIGNALLED: u64 = 1;

/// By which others wake an lcore.
#[derive(Debug)]
pub(crate) struct Doorbell {
    asleep: Asleep,
    alarm: Alarm,
}

impl Doorbell {
    /// # Errors
    /// What the system says: too many descriptors, most likely.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { asleep: Asleep::new(), alarm: Alarm::new()? })
    }

    /// Wakes the lcore; if it does not sleep, its next sleep ends at once. Control path.
    pub(crate) fn ring(&self) {
        self.alarm.raise();
    }

    /// Wakes the lcore if it sleeps, after something was put into one of its rings. A system call only then. Data plane.
    #[inline]
    pub(crate) fn ring_if_asleep(&self) {
        if self.asleep.is_to_be_woken() {
            self.alarm.raise();
        }
    }
}

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A receive half signalled.
    ByInput,
    /// Somebody rang, the time was over, or there was no sleep.
    Otherwise,
}

/// An lcore's own end: what it waits on.
#[derive(Debug)]
pub(crate) struct Sleeper {
    set: OwnedFd,
    bell: Arc<Doorbell>,
}

impl Sleeper {
    /// # Errors
    /// What the system says: too many descriptors, most likely.
    pub(crate) fn new(bell: Arc<Doorbell>) -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&set, &bell.alarm, epoll::EventData::new_u64(RUNG), edges())?;
        Ok(Self { set, bell })
    }

    /// Has a receive half's signal wake. Whether it can.
    pub(crate) fn watch(&self, queue: &dyn RxQueue) -> bool {
        let mark = epoll::EventData::new_u64(SIGNALLED);
        queue.wake_fd().is_some_and(|fd| epoll::add(&self.set, fd, mark, edges()).is_ok())
    }

    /// Ends that.
    pub(crate) fn unwatch(&self, queue: &dyn RxQueue) {
        if let Some(fd) = queue.wake_fd() {
            // Not there if it could not be watched.
            let _ = epoll::delete(&self.set, fd);
        }
    }

    /// Sleeps for `most` if `is_quiet` says, after the doorbell knows of it, that nothing is in the lcore's rings.
    pub(crate) fn sleep(&self, most: Duration, is_quiet: impl FnOnce() -> bool) -> Woken {
        self.bell.asleep.lie_down();
        let woken = if is_quiet() { self.wait(most.min(LONGEST)) } else { Woken::Otherwise };
        self.bell.asleep.get_up();
        woken
    }

    fn wait(&self, most: Duration) -> Woken {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(RUNG) };
        let mut signals = [none; SIGNALS];
        let most = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        // Interrupted is as good as rung.
        let n = epoll::wait(self.set.as_fd(), &mut signals[..], Some(&most)).unwrap_or(0);
        if signals[..n].iter().any(|s| s.data.u64() == SIGNALLED) { Woken::ByInput } else { Woken::Otherwise }
    }
}

fn edges() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::ET
}

/// Whether signals are worth listening to. Whoever signals without end and has nothing to give (K3) wakes an lcore so many
/// times in each while; for the rest of it the lcore naps and does not listen.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// When this while began.
    since_ns: u64,
    /// Signals in it after which nothing came.
    in_vain: u32,
    /// Whether the last sleep was ended by a receive half's signal, and all packets until then.
    signalled: bool,
    packets: u64,
    /// Times in a row that not all receive halves could be armed.
    refused: u32,
}

impl Patience {
    const WHILE_NS: u64 = 10_000_000;
    const MOST_IN_VAIN: u32 = 16;

    /// An lcore wants to rest, at this time, having seen so many packets in all: may it sleep?
    pub(crate) fn may_sleep(&mut self, now_ns: u64, packets: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) >= Self::WHILE_NS {
            (self.since_ns, self.in_vain) = (now_ns, 0);
        }
        if packets != self.packets {
            (self.packets, self.refused) = (packets, 0);
        } else if self.signalled {
            self.in_vain += 1;
        }
        self.signalled = false;
        self.in_vain < Self::MOST_IN_VAIN
    }

    /// It slept, and was woken like this.
    pub(crate) fn slept(&mut self, woken: Woken) {
        (self.signalled, self.refused) = (woken == Woken::ByInput, 0);
    }

    /// It could not sleep: not all receive halves could be armed. Whether to poll again at once, as there may be packets:
    /// the first time. If there were none, it waits for something that nobody signals.
    pub(crate) fn try_again(&mut self) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.refused == 1
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn k03_signals_in_vain_are_listened_to_a_few_times_in_each_while() {
        let mut patience = Patience::default();
        let mut slept = 0;
        for n in 0..10_000u64 {
            // A wake-up each 10 us, over ten whiles.
            if patience.may_sleep(n * 10_000, 7) {
                patience.slept(Woken::ByInput);
                slept += 1;
            }
        }
        assert!((160..=170).contains(&slept), "{slept}");
    }

    #[test]
    fn signals_with_packets_are_always_listened_to() {
        let mut patience = Patience::default();
        for n in 0..10_000u64 {
            assert!(patience.may_sleep(n, n));
            patience.slept(Woken::ByInput);
        }
    }

    #[test]
    fn what_cannot_be_armed_is_polled_once_more_and_then_for_naps() {
        let mut patience = Patience::default();
        for packets in 1..4 {
            assert!(patience.may_sleep(0, packets));
            assert!(patience.try_again());
            assert!(patience.may_sleep(0, packets));
            assert!(!patience.try_again());
            assert!(!patience.try_again());
        }
    }

    /// S1, S2: one fills a ring and rings, the other looks and sleeps; nothing lies there unseen. With time-outs as long as
    /// they are here, a lost ring would show as a round of [`LONGEST`].
    #[test]
    fn no_ring_is_lost() {
        const ROUNDS: u64 = 20_000;
        let bell = Arc::new(Doorbell::new().unwrap());
        let sleeper = Sleeper::new(Arc::clone(&bell)).unwrap();
        let (put, taken) = (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::AtomicU64::new(0));
        let late = std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=ROUNDS {
                    while taken.load(Ordering::Acquire) < n - 1 {
                        std::hint::spin_loop();
                    }
                    (0..n % 61).for_each(|_| std::hint::spin_loop());
                    put.store(n, Ordering::Release);
                    bell.ring_if_asleep();
                }
            });
            let mut late = 0;
            for n in 1..=ROUNDS {
                (0..n % 53).for_each(|_| std::hint::spin_loop());
                while put.load(Ordering::Acquire) < n {
                    let start = std::time::Instant::now();
                    sleeper.sleep(LONGEST, || put.load(Ordering::Relaxed) < n);
                    late += u64::from(start.elapsed() >= LONGEST && put.load(Ordering::Relaxed) >= n);
                }
                taken.store(n, Ordering::Release);
            }
            late
        });
        // The scheduler may keep the other thread from ringing for so long, a few times.
        assert!(late < ROUNDS / 100, "{late} of {ROUNDS}");
    }
}

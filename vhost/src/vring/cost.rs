//! What a guest's memory costs whoever touches it: a page fault may take as long as a front end likes.
//!
//! While a hole is punched, a fault waits until the kernel is done with all of it; a hole's page, or a hugepage, is made
//! when it is touched first; one that was swapped out is read from a disk. Nothing can be done about the one burst in which
//! that happens: the wait is in the kernel, and no signal ends it. What can be done is to end the session that causes it
//! again and again, and to keep its port closed until what it took is a hundredth of the time.
//!
//! # How it is measured
//! Two reads of the time stamp counter, of every [`SAMPLED`]th burst: they cost a packet of 60 bytes a cycle each. Which ones those
//! are no guest can tell, as polls that find nothing count, too. A burst that took [`LONG`] is *suspected*: maybe the thread was just not run.
//! For a while then, that queue is *watched*: the kernel tells, shortly before a burst ([`READ_AGAIN`]) and after a long one, how
//! many faults the thread took, how often it waited, and the processor time. A long burst with faults is charged; some without, in a
//! row, clear the queue. Processor time is charged, so that being preempted costs nobody anything; or the whole time, if the thread waited,
//! which in a burst it does in a fault alone.
//!
//! # Who is charged
//! A long frame's bytes go straight from the sender's memory to the receiver's, and a fault may be on either side. So a
//! receive queue that is watched makes its packets own their bytes at once: all its faults are then in its own burst. And a
//! transmit queue is not charged for a burst in which some packet has a tail: its sender is suspected by the same burst,
//! and sends none from then on.
#![expect(unsafe_code, reason = "asks the kernel for the thread's faults and time")]
// UNSAFETY: two system calls, which write structures of ours.

use core::mem::MaybeUninit;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mbuf::Burst;
use pmd::tsc;

/// A burst of so many cycles is looked at: a millisecond and more. 32 packets of 64 KiB take less, and so do 32 of 1,514 bytes under
/// Valgrind, by which instructions are counted.
const LONG: u64 = 1 << 22;
/// One burst of so many is timed while the queue is not watched.
const SAMPLED: u32 = 4;
/// Of a burst that is watched, what is charged from: less than [`LONG`] at any rate.
const LONG_NS: u64 = 800_000;
/// While a queue is watched, what the kernel knows of the thread is read again after so many cycles, before a burst: some 50 us,
/// of which the reading takes one. So a burst is charged for that much more than it cost at most.
const READ_AGAIN: u64 = 1 << 17;
/// A queue is watched for so many cycles at first, a second or two; twice as long each time that it is suspected anew, up to
/// a minute or two. So a long burst that nobody watched is a hundredth of the time at most.
const WATCHED: u64 = 1 << 32;
const WATCHED_MOST: u64 = 1 << 38;
/// Bytes of a burst of a receive queue that is watched, but for the first packet: they go into mbufs at once, 31 for 64 KiB.
const MOST_BYTES: u64 = 256 << 10;
/// Long bursts in a row that were not a queue's own doing, after which it is not watched any more.
const ENOUGH: u32 = 8;
/// A port's memory may cost a hundredth of the time ...
const SHARE: u64 = 100;
/// ... and so much at once.
const CREDIT_NS: u64 = 100_000_000;
/// What one burst is charged at most: the port is closed for ten minutes then.
const MOST_NS: u64 = 6_000_000_000;

/// How many packets of these lengths a receive queue takes while it is watched.
#[cold]
pub(super) fn few(lengths: impl Iterator<Item = u32>) -> usize {
    let mut sum = 0;
    let fit = |len: &u32| {
        sum += u64::from(*len);
        sum <= MOST_BYTES
    };
    lengths.take_while(fit).count().max(1)
}

/// Nanoseconds since the first call.
fn now_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

/// What a port's memory has cost. It outlives its sessions.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// When all that was charged will be [`SHARE`] times as long ago as it took.
    paid_at: AtomicU64,
}

impl Account {
    /// Charges so many nanoseconds; whether that was too much. Data plane.
    fn charge(&self, now: u64, cost: u64) -> bool {
        let more = cost.min(MOST_NS) * SHARE;
        let add = |paid_at: u64| Some(paid_at.max(now).saturating_add(more));
        let before = self.paid_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let paid_at = before.unwrap_or_default().max(now).saturating_add(more);
        paid_at > now + CREDIT_NS * SHARE
    }

    fn closed_at(&self, now: u64) -> Option<Duration> {
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        let over = paid_at.saturating_sub(now + CREDIT_NS * SHARE);
        (over > 0).then(|| Duration::from_nanos(over))
    }

    /// How long the port stays closed, if it does. Control plane.
    pub(crate) fn closed_for(&self) -> Option<Duration> {
        self.closed_at(now_ns())
    }
}

/// The processor time that this thread has had: time in which it was not run is nobody's fault.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut cpu = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Not rustix's: what that reads to find the vDSO is not there under Valgrind, which counts instructions for us.
    // SAFETY: writes a structure of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut cpu) };
    Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32)
}

/// What the kernel knows of this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    at_ns: u64,
    cpu_ns: u64,
    faults: u64,
    waits: u64,
}

impl Reading {
    #[cold]
    fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: all zero is a valid rusage, which the call writes over, and it takes nothing else.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init()
        };
        Self {
            at_ns: now_ns(),
            cpu_ns: thread_cpu_time().as_nanos() as u64,
            faults: (usage.ru_minflt as u64).wrapping_add(usage.ru_majflt as u64),
            waits: usage.ru_nvcsw as u64,
        }
    }

    /// What a burst cost that began at `self`: nothing if it took no fault.
    fn cost_until(&self, end: &Self) -> u64 {
        if end.faults == self.faults {
            0
        } else if end.waits == self.waits {
            end.cpu_ns.saturating_sub(self.cpu_ns)
        } else {
            end.at_ns.saturating_sub(self.at_ns)
        }
    }
}

/// One queue's measure.
#[derive(Debug)]
pub(super) struct Cost {
    /// When the burst at hand began, if it is timed.
    began: Option<NonZeroU64>,
    /// Bursts so far.
    bursts: u32,
    /// Watched until then, in cycles; 0: not.
    until: u64,
    /// For how long next time.
    span: u64,
    /// The thread's faults when it was looked at last, if it was.
    faults: Option<u64>,
    /// At the beginning of the burst at hand or shortly before, if it is watched, and when that was read.
    before: Reading,
    read_at: u64,
    /// Whether the burst at hand was charged.
    charged: bool,
    /// Long bursts in a row, while watched, that were not its own doing.
    innocent: u32,
}

impl Cost {
    pub(super) fn new() -> Self {
        Self {
            began: None,
            bursts: 0,
            until: 0,
            span: WATCHED,
            faults: None,
            before: Reading::default(),
            read_at: 0,
            charged: false,
            innocent: 0,
        }
    }

    /// A burst begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.bursts = self.bursts.wrapping_add(1);
        self.began = None;
        if self.bursts.is_multiple_of(SAMPLED) || self.until != 0 {
            self.begin_timed();
        }
    }

    #[inline]
    fn begin_timed(&mut self) {
        let now = tsc::now();
        self.began = NonZeroU64::new(now);
        if self.until != 0 {
            self.begin_watched(now);
        }
    }

    #[cold]
    fn begin_watched(&mut self, now: u64) {
        self.charged = false;
        if now >= self.until {
            self.until = 0;
        } else if now.wrapping_sub(self.read_at) > READ_AGAIN {
            (self.before, self.read_at) = (Reading::now(), now);
        }
    }

    /// Whether the queue is watched.
    #[inline(always)]
    pub(super) fn is_watched(&self) -> bool {
        self.until != 0
    }

    /// Whether the burst at hand took long.
    #[inline(always)]
    pub(super) fn is_long(&self) -> bool {
        self.took_longer_than(LONG)
    }

    #[inline(always)]
    fn took_longer_than(&self, cycles: u64) -> bool {
        self.began.is_some_and(|began| tsc::now().wrapping_sub(began.get()) > cycles)
    }

    /// A receive queue's burst that is watched has been read, and owns its bytes from here on. Returns how many packets there
    /// were no mbufs for, and whether the port's memory has cost too much.
    #[cold]
    pub(super) fn received(&mut self, burst: &mut Burst<'_>, account: &Account) -> (usize, bool) {
        let (owned, lost) = core::mem::take(burst).own();
        *burst = owned;
        // Half as long as what is looked at anyway is short of what is charged.
        (lost, self.took_longer_than(LONG / 2) && self.judge(account))
    }

    /// A receive queue's burst was long, with all that became of it.
    #[cold]
    pub(super) fn over(&mut self) {
        if !self.is_watched() {
            self.suspect();
        } else if !self.charged {
            self.acquit();
        }
    }

    /// A transmit queue's burst was long. Whether the port's memory has cost too much.
    #[cold]
    pub(super) fn sent(&mut self, burst: &Burst<'_>, account: &Account) -> bool {
        if !self.is_watched() {
            self.suspect();
            return false;
        }
        if burst.iter().any(mbuf::Mbuf::has_tail) {
            // Maybe it was its sender's memory.
            return false;
        }
        let too_much = self.judge(account);
        if !self.charged {
            self.acquit();
        }
        too_much
    }

    /// Charges what the burst at hand cost so far. Whether that was too much.
    fn judge(&mut self, account: &Account) -> bool {
        let now = Reading::now();
        let cost = self.before.cost_until(&now);
        (self.faults, self.before, self.read_at) = (Some(now.faults), now, tsc::now());
        if cost < LONG_NS {
            return false;
        }
        (self.charged, self.innocent) = (true, 0);
        self.until = tsc::now().saturating_add(self.span);
        account.charge(now.at_ns, cost)
    }

    /// Watches from now on, unless the thread took no fault since it was looked at last.
    fn suspect(&mut self) {
        let faults = Reading::now().faults;
        if self.faults.replace(faults).is_none_or(|before| before == faults) {
            return;
        }
        self.until = tsc::now().saturating_add(self.span);
        self.span = (self.span * 2).min(WATCHED_MOST);
    }

    /// A long burst without faults: the thread was not run, or it was somebody else's memory. Some of them in a row, and the
    /// queue is not watched any more.
    fn acquit(&mut self) {
        self.innocent += 1;
        if self.innocent >= ENOUGH {
            (self.until, self.span, self.innocent) = (0, WATCHED, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_hundredth_of_the_time_and_a_credit() {
        let account = Account::default();
        let now = 5_000 * MS;
        assert!(!account.charge(now, 60 * MS) && !account.charge(now, 40 * MS));
        assert_eq!(account.closed_at(now), None, "just the credit");
        assert!(account.charge(now, MS));
        assert_eq!(account.closed_at(now), Some(Duration::from_millis(100)));
        assert_eq!(account.closed_at(now + 100 * MS), None, "a hundred times as long later");
        assert!(account.charge(now + 100 * MS, MS), "and it has no credit then");
        let rested = now + 10_200 * MS;
        assert!(!account.charge(rested, 99 * MS));
    }

    #[test]
    fn ten_minutes_at_most() {
        let account = Account::default();
        assert!(account.charge(0, u64::MAX));
        assert_eq!(account.closed_at(0), Some(Duration::from_secs(590)));
    }

    #[test]
    fn who_was_preempted_pays_nothing_and_who_waited_pays_all() {
        let before = Reading { at_ns: 10 * MS, cpu_ns: 3 * MS, faults: 7, waits: 1 };
        let end = Reading { at_ns: 90 * MS, cpu_ns: 4 * MS, ..before };
        assert_eq!(before.cost_until(&end), 0, "no fault");
        assert_eq!(before.cost_until(&Reading { faults: 8, ..end }), MS, "the fault's own work");
        assert_eq!(before.cost_until(&Reading { faults: 8, waits: 2, ..end }), 80 * MS, "it waited");
    }

    #[test]
    fn few_packets_if_they_are_long() {
        assert_eq!(few([1500; 32].into_iter()), 32);
        assert_eq!(few([65_000; 32].into_iter()), 4);
        assert_eq!(few([u32::MAX; 32].into_iter()), 1);
    }

    #[test]
    fn every_burst_is_timed_of_a_queue_that_is_watched_and_some_of_any_other() {
        let mut cost = Cost::new();
        let timed = |cost: &mut Cost| {
            (0..40)
                .filter(|_| {
                    cost.begin();
                    cost.took_longer_than(0)
                })
                .count()
        };
        assert_eq!(timed(&mut cost), 40 / SAMPLED as usize);
        cost.until = u64::MAX;
        assert_eq!(timed(&mut cost), 40);
        cost.until = 1;
        timed(&mut cost);
        assert!(!cost.is_watched(), "its time is over");
    }

    #[test]
    fn a_long_burst_is_watched_and_cleared() {
        let mut cost = Cost::new();
        cost.begin();
        assert!(!cost.is_watched());
        cost.over();
        assert_eq!(cost.until, 0, "nobody knows yet whether there were faults");
        cost.faults = Some(u64::MAX);
        cost.over();
        assert!(cost.until > tsc::now() && cost.span == 2 * WATCHED, "suspected");
        cost.begin();
        assert!(cost.is_watched());
        for _ in 0..ENOUGH {
            assert!(cost.is_watched());
            cost.over();
        }
        assert_eq!((cost.until, cost.span), (0, WATCHED), "long, and not by its own doing");
        cost.begin();
        assert!(!cost.is_watched());
    }
}

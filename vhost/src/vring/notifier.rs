//! Who calls a port's guest: the data plane, or the port's control thread once a call takes long.
//!
//! Signalling an eventfd walks its wait queue with interrupts off, and the front end makes that queue as long as it likes: 0.1 us
//! for each entry, 40 ms with 400,000 epoll watches. Nothing tells how long it is but the time that a call takes. So each
//! call of the data plane is timed, and a port that costs too much loses the data plane's calls:
//!
//! | | by the data plane | by the control thread |
//! |---|---|---|
//! | begins | | slow calls took 1 ms at once, or a hundredth of the time for longer |
//! | costs | whoever shares the lcore | its own port, and a tenth of the CPU that the thread runs on |
//! | ends | | three quick calls in a row, unless one was slow in the last ten minutes |
//!
//! A data thread that lost its CPU in the middle of a call has a slow call, too, and the guest is innocent. The control
//! thread goes by the CPU time that its calls take, which tells the two apart: the innocent are back after three calls.
//!
//! # Orderings
//! B1: the data plane has published used buffers and says that a call is due (Release); B2: the control thread takes that up
//! (Acquire), and only then signals.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pmd::alarm::Alarm;
use pmd::{notify, tsc};

/// A call that takes longer is a slow one. Waking a guest's thread takes 1 to 10 us.
const SLOW: Duration = Duration::from_micros(100);
/// Fewer cycles than [`SLOW`] has on any processor: below them nobody looks at a clock.
const SURELY_QUICK_CYCLES: u64 = 80_000;
/// Slow calls may take one in so many parts of a data thread's time,
const SHARE: u32 = 100;
/// and so much at once.
const AT_ONCE: Duration = Duration::from_millis(1);
/// A port whose slow calls took more than that at once is not tried again before most of it is forgotten.
const FORGIVABLE: Duration = Duration::from_millis(20);
/// Quick calls in a row after which a port is tried again.
const QUICK_IN_A_ROW: u64 = 3;
/// For how long a call that was slow by CPU time counts against a port.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How the guest of one port is called; for all of its rings, which one front end has.
#[derive(Debug)]
pub(crate) struct PortNotifier {
    alarm: Arc<Alarm>,
    /// Calls are the control thread's.
    is_away: AtomicBool,
    /// When slow calls of data threads will have been made up for: nanoseconds of [`since_start`].
    owes_until_ns: AtomicU64,
    /// Until when slow calls of the control thread count.
    guilty_until_ns: AtomicU64,
    /// Quick calls of the control thread, one after the other.
    quick: AtomicU64,
    slow_calls: AtomicU64,
    handed_over: AtomicU64,
    longest_ns: AtomicU64,
}

/// What `polder port show` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallStats {
    /// Calls are made by the control thread.
    pub(crate) is_away: bool,
    /// Calls that took longer than 100 us, by whomever.
    pub(crate) slow: u64,
    /// Calls that a data thread left to the control thread. Several of one ring may have become one.
    pub(crate) handed_over: u64,
    /// The longest.
    pub(crate) longest: Duration,
}

impl PortNotifier {
    /// `alarm` is what the port's control thread waits for.
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        tsc::measure_rate();
        LazyLock::force(&START);
        Self {
            alarm,
            is_away: AtomicBool::new(false),
            owes_until_ns: AtomicU64::new(0),
            guilty_until_ns: AtomicU64::new(0),
            quick: AtomicU64::new(0),
            slow_calls: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
        }
    }

    /// Wakes the control thread.
    pub(super) fn raise_alarm(&self) {
        self.alarm.raise();
    }

    pub(crate) fn stats(&self) -> CallStats {
        CallStats {
            is_away: self.is_away(),
            slow: self.slow_calls.load(Ordering::Relaxed),
            handed_over: self.handed_over.load(Ordering::Relaxed),
            longest: Duration::from_nanos(self.longest_ns.load(Ordering::Relaxed)),
        }
    }

    /// Whether calls are the control thread's.
    pub(crate) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// A data thread's call took so long, by the clock on the wall.
    #[cold]
    fn took(&self, wall: Duration) {
        if wall <= SLOW {
            return;
        }
        self.count_slow(wall);
        let (now, costs) = (since_start(), nanoseconds(wall * SHARE));
        let owes = |until: u64| Some(until.max(now).saturating_add(costs));
        let before = self.owes_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, owes).unwrap_or(0);
        let owed = before.max(now).saturating_add(costs) - now;
        if owed > nanoseconds(AT_ONCE * SHARE) && !self.is_away.swap(true, Ordering::Relaxed) {
            self.quick.store(0, Ordering::Relaxed);
            // It has something to tell the operator.
            self.raise_alarm();
        }
    }

    /// A call of the control thread took so much of its CPU time.
    pub(crate) fn took_control_thread(&self, cpu: Duration) {
        let now = since_start();
        if cpu > SLOW {
            self.count_slow(cpu);
            self.quick.store(0, Ordering::Relaxed);
            self.guilty_until_ns.store(now.saturating_add(nanoseconds(REMEMBERED)), Ordering::Relaxed);
            return self.is_away.store(true, Ordering::Relaxed);
        }
        let quick = self.quick.fetch_add(1, Ordering::Relaxed) + 1;
        let is_guilty = now < self.guilty_until_ns.load(Ordering::Relaxed);
        let owed = self.owes_until_ns.load(Ordering::Relaxed).saturating_sub(now);
        if quick >= QUICK_IN_A_ROW && !is_guilty && owed <= nanoseconds(FORGIVABLE * SHARE) {
            self.is_away.store(false, Ordering::Relaxed);
        }
    }

    fn count_slow(&self, took: Duration) {
        self.slow_calls.fetch_add(1, Ordering::Relaxed);
        self.longest_ns.fetch_max(nanoseconds(took), Ordering::Relaxed);
    }
}

/// How the guest is called for one ring.
#[derive(Debug)]
pub(crate) struct RingNotifier {
    port: Arc<PortNotifier>,
    /// The control thread owes the guest a call.
    is_due: AtomicBool,
}

impl RingNotifier {
    pub(crate) fn new(port: Arc<PortNotifier>) -> Self {
        Self { port, is_due: AtomicBool::new(false) }
    }

    pub(crate) fn port(&self) -> &Arc<PortNotifier> {
        &self.port
    }

    /// Calls the guest, or has it called. Never waits for the front end; what the kernel refuses is left to the control thread.
    pub(super) fn call(&self, eventfd: BorrowedFd<'_>) {
        if self.port.is_away() {
            return self.hand_over();
        }
        let start = tsc::now();
        let done = notify::signal(eventfd);
        let cycles = tsc::now().saturating_sub(start);
        if done.is_err() {
            self.hand_over();
        }
        if cycles > SURELY_QUICK_CYCLES {
            self.port.took(tsc::to_duration(cycles));
        }
    }

    /// Has the control thread call. One system call, on an eventfd of our own; none while it has not taken up the last one.
    #[cold]
    fn hand_over(&self) {
        // ORDERING: B1 Release, pairs with B2: who takes this up has seen all that was published before.
        if !self.is_due.swap(true, Ordering::Release) {
            self.port.handed_over.fetch_add(1, Ordering::Relaxed);
            self.port.raise_alarm();
        }
    }

    /// Whether the guest is to be called: takes it up. Control thread, after it has cleared its alarm.
    pub(crate) fn take_due(&self) -> bool {
        // ORDERING: B2 Acquire, pairs with B1.
        self.is_due.load(Ordering::Relaxed) && self.is_due.swap(false, Ordering::Acquire)
    }

    /// Puts back what was taken up.
    pub(crate) fn is_still_due(&self) {
        // ORDERING: B1 Release, pairs with B2: passes on what this thread has seen by its own B2.
        self.is_due.store(true, Ordering::Release);
    }
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since_start() -> u64 {
    nanoseconds(START.elapsed())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const QUICK: Duration = Duration::from_micros(5);

    fn port() -> (Arc<PortNotifier>, Arc<Alarm>) {
        let alarm = Arc::new(Alarm::new().unwrap());
        (Arc::new(PortNotifier::new(Arc::clone(&alarm))), alarm)
    }

    #[test]
    fn quick_calls_and_few_slow_ones_stay_with_the_data_plane() {
        let (port, alarm) = port();
        (0..100_000).for_each(|_| port.took(QUICK));
        (0..5).for_each(|_| port.took(MS / 5));
        assert_eq!((port.stats().slow, port.is_away(), alarm.clear()), (5, false, false));
        assert_eq!(port.stats().longest, MS / 5);
    }

    #[test]
    fn a06_one_long_call_or_several_slow_ones_are_enough() {
        let (one, alarm) = port();
        one.took(2 * MS);
        assert!(one.is_away() && alarm.clear(), "and the control thread is told");
        let (several, _) = port();
        (0..10).for_each(|_| several.took(MS / 5));
        assert!(several.is_away());
    }

    #[test]
    fn who_lost_its_cpu_is_innocent() {
        let (port, _) = port();
        port.took(4 * MS);
        (0..2).for_each(|_| port.took_control_thread(QUICK));
        assert!(port.is_away());
        port.took_control_thread(QUICK);
        assert!(!port.is_away(), "three quick ones");
    }

    #[test]
    fn a06_slow_by_cpu_time_is_slow_for_good() {
        let (port, _) = port();
        port.took(2 * MS);
        port.took_control_thread(2 * MS);
        (0..100).for_each(|_| port.took_control_thread(QUICK));
        assert!(port.is_away(), "ten minutes");
    }

    /// Who takes its watches away before the control thread calls is not back at once for the next long one.
    #[test]
    fn a06_a_very_long_call_is_made_up_for_first() {
        let (port, _) = port();
        port.took(40 * MS);
        (0..100).for_each(|_| port.took_control_thread(QUICK));
        assert!(port.is_away(), "it owes four seconds");
    }

    #[test]
    fn a_call_that_is_not_made_is_handed_over_once() {
        let (port, alarm) = port();
        let (ring, other) = (RingNotifier::new(Arc::clone(&port)), RingNotifier::new(Arc::clone(&port)));
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        port.took(2 * MS);
        assert!(alarm.clear());
        (0..10).for_each(|_| ring.call(event.as_fd()));
        assert!(rustix::io::read(&event, &mut [0; 8]).is_err(), "nobody called");
        assert!(alarm.clear() && ring.take_due() && !ring.take_due() && !other.take_due());
        assert_eq!(port.stats().handed_over, 1);
        ring.call(event.as_fd());
        assert!(alarm.clear() && ring.take_due());
    }
}

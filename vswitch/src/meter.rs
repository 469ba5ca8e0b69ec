//! How long an lcore was busy and how long idle, with few looks at the clock.

use crate::Clock;
use crate::stats::LcoreTally;

/// The clock is read when a turn differs from the one before, or after so many alike.
const TURNS_A_LOOK: u32 = 64;

/// Adds up busy and idle time by real time; timers go by the switch's clock, which a test may turn by hand.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: Clock,
    last_ns: u64,
    busy: bool,
    turns: u32,
    /// Since when nothing came.
    idle_since_ns: u64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::default(), last_ns: 0, busy: false, turns: 0, idle_since_ns: 0 }
    }

    /// Notes a turn; whether it is time to look at the timers too.
    #[inline(always)]
    pub(crate) fn note(&mut self, busy: bool, tally: &LcoreTally) -> bool {
        self.turns += 1;
        let look = busy != self.busy || self.turns >= TURNS_A_LOOK;
        if look {
            self.look(busy, tally);
        }
        look
    }

    /// The time since the last look belongs to the turns before this one.
    #[inline(never)]
    pub(crate) fn look(&mut self, busy: bool, tally: &LcoreTally) {
        let now_ns = self.clock.now_ns();
        let spent = now_ns.saturating_sub(self.last_ns);
        let sum = if self.busy { &tally.busy_ns } else { &tally.idle_ns };
        sum.add(spent);
        if busy || self.busy {
            self.idle_since_ns = now_ns;
        }
        (self.last_ns, self.busy, self.turns) = (now_ns, busy, 0);
    }

    /// The time of the last look.
    pub(crate) fn now_ns(&self) -> u64 {
        self.last_ns
    }

    /// How long nothing has come, as of the last look.
    pub(crate) fn idle_for_ns(&self) -> u64 {
        self.last_ns - self.idle_since_ns
    }
}

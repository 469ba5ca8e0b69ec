//! Which receive queues an lcore visits in a turn: those that had something lately, the idle ones when it is time, and not those
//! that have had more than their share.
//!
//! Two clocks. How long a queue has had nothing is a time, by the time stamp counter: read once a turn, and between the pieces
//! of a long one. What a visit costs is counted in bytes that it had copied ([`weight`](crate::weight)), not in cycles: that
//! costs nothing where it is little, and a queue does not pay for the time in which another thread had the CPU.

use pmd::tsc;

use crate::cpu;

/// A receive queue that had nothing for this long is idle. A visit to it costs as much as a packet, and sixty idle guests shall
/// not cost two busy ones their time.
const IDLE_AFTER_US: u64 = 400;
/// As long as others have something, each idle queue is visited once in this time, also in the middle of a turn.
const IDLE_PERIOD_US: u64 = 50;
/// Cycles that a visit costs which finds nothing: idle queues get a quarter of the time at most. Beyond 300 of them or so they are
/// visited less often in proportion.
const EMPTY_VISIT: u64 = 100;
const IDLE_SHARE: u64 = 4;
/// In the middle of a long visit or turn, others are looked at after this time.
const LOOK_AFTER_US: u64 = 20;
/// A queue that overdrew its visits is not visited while another one is in the middle of its own, for this long: one such visit
/// cannot be interrupted.
const HEAVY_FOR_US: u64 = 1_000_000;
/// What a visit may cost, as [weight](crate::weight); some 25 us. What it overdraws it pays back by turns without a visit.
pub(crate) const BUDGET: u64 = 256 << 10;
/// The most that is remembered: as much as a burst of the longest packets costs that is flooded to a hundred ports.
const MOST_DEBT: u64 = 1000 * BUDGET;

/// What is known of a receive queue.
#[derive(Clone, Debug, Default)]
struct Known {
    /// When it last had something.
    since: u64,
    /// Until when it counts as one that overdraws.
    heavy_until: u64,
    /// What it has still to pay back.
    debt: u64,
    idle: bool,
}

/// Whom to visit, as positions in the lcore's list of receive queues.
#[derive(Debug)]
pub(crate) struct Roster {
    known: Vec<Known>,
    /// Those that are not idle and, during a turn, behind them the idle ones whose time it is.
    visits: Vec<u32>,
    awake: usize,
    idle: Vec<u32>,
    /// Where in `idle` and among the awake ones the next round goes on.
    next_idle: usize,
    next_look: usize,
    /// Whom the look in the middle of a visit goes to.
    looks: Vec<u32>,
    /// Whether one has become idle, or is so no more.
    stale: bool,
    debtors: usize,
    /// The time as last read; when others were last looked at; up to when idle ones have had their visits.
    now: u64,
    looked: u64,
    shared: u64,
    cycles_per_us: u64,
}

impl Roster {
    /// With room for so many.
    pub(crate) fn with_capacity(queues: usize) -> Self {
        Self {
            known: Vec::with_capacity(queues),
            visits: Vec::with_capacity(2 * queues),
            awake: 0,
            idle: Vec::with_capacity(queues),
            next_idle: 0,
            next_look: 0,
            looks: Vec::with_capacity(2 * queues),
            stale: false,
            debtors: 0,
            now: 0,
            looked: 0,
            shared: 0,
            cycles_per_us: cpu::cycles_per_us(),
        }
    }

    /// Begins anew with so many queues, none of which is idle or owes anything.
    pub(crate) fn reset(&mut self, queues: usize) {
        self.now = tsc::now();
        self.known.clear();
        self.known.resize(queues, Known { since: self.now, ..Known::default() });
        self.debtors = 0;
        self.renew();
    }

    /// Begins a turn and returns how many visits it takes: everybody's if nobody is `busy`. One queue alone is always visited,
    /// and no clock is read for it.
    #[inline(always)]
    pub(crate) fn begin(&mut self, busy: bool) -> usize {
        if self.known.len() > 1 {
            self.begin_at(tsc::now(), busy);
        }
        self.visits.len()
    }

    #[inline(always)]
    fn begin_at(&mut self, now: u64, busy: bool) {
        (self.now, self.looked) = (now, now);
        if !self.idle.is_empty() {
            self.add_idle(busy);
        }
    }

    #[inline(never)]
    fn add_idle(&mut self, busy: bool) {
        if busy {
            let (first, n) = self.due();
            self.visits.extend(self.idle.iter().cycle().skip(first).take(n));
        } else {
            self.visits.extend_from_slice(&self.idle);
            self.shared = self.now;
        }
    }

    /// Which of the idle ones are to be visited now: from where, and how many.
    fn due(&mut self) -> (usize, usize) {
        let (all, elapsed) = (self.idle.len() as u64, self.now.saturating_sub(self.shared));
        let (first, period) = (self.next_idle, IDLE_PERIOD_US * self.cycles_per_us);
        let want = all * elapsed / period;
        let n = want.min(elapsed / (IDLE_SHARE * EMPTY_VISIT)).min(all);
        if n > 0 {
            self.shared = if n == want { self.shared + n * period / all } else { self.now };
            self.next_idle = (first + n as usize) % self.idle.len();
        }
        (first, n as usize)
    }

    /// Whom the `i`-th visit goes to; none if its queue pays back instead.
    #[inline(always)]
    pub(crate) fn visit(&mut self, i: usize) -> Option<usize> {
        let at = self.visits[i] as usize;
        if self.debtors != 0 && self.pays_back(at) { None } else { Some(at) }
    }

    #[cold]
    fn pays_back(&mut self, at: usize) -> bool {
        let debt = &mut self.known[at].debt;
        if *debt == 0 {
            return false;
        }
        *debt = debt.saturating_sub(BUDGET);
        self.debtors -= usize::from(*debt == 0);
        true
    }

    /// Notes how many packets the visit to `at` found.
    #[inline(always)]
    pub(crate) fn note(&mut self, at: usize, packets: usize) {
        let (known, now) = (&mut self.known[at], self.now);
        if packets != 0 {
            known.since = now;
            self.stale |= known.idle;
            known.idle = false;
        } else if !known.idle && now.saturating_sub(known.since) > IDLE_AFTER_US * self.cycles_per_us {
            (known.idle, self.stale) = (true, true);
        }
    }

    /// Whether there is one queue alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.known.len() == 1
    }

    /// Notes that a visit to `at` cost more than [`BUDGET`].
    #[cold]
    pub(crate) fn overdraw(&mut self, at: usize, cost: u64) {
        let known = &mut self.known[at];
        known.heavy_until = self.now + HEAVY_FOR_US * self.cycles_per_us;
        if self.awake > 1 {
            self.debtors += usize::from(known.debt == 0);
            known.debt = (known.debt + cost - BUDGET).clamp(1, MOST_DEBT);
        }
    }

    /// Whether `at` is one that overdraws, as far as is known.
    pub(crate) fn is_heavy(&self, at: usize) -> bool {
        self.known[at].heavy_until > self.now
    }

    /// Whether some queues are idle, and the time has come to visit some of them in the middle of a turn.
    #[inline(always)]
    pub(crate) fn is_idle_due(&mut self) -> bool {
        !self.idle.is_empty() && self.is_look_due()
    }

    /// Whether it is time to look at others in the middle of a visit.
    #[inline]
    pub(crate) fn is_look_due(&mut self) -> bool {
        self.now = tsc::now();
        self.is_late(self.looked)
    }

    /// Whether a look that has begun has taken long enough.
    pub(crate) fn is_look_over(&self) -> bool {
        tsc::now().saturating_sub(self.looked) > LOOK_AFTER_US * self.cycles_per_us
    }

    fn is_late(&self, since: u64) -> bool {
        self.now.saturating_sub(since) > LOOK_AFTER_US * self.cycles_per_us
    }

    /// Begins a look at others than `visited`: at the idle ones whose time it is and, if `awake`, behind them at all that do not
    /// overdraw. Returns how many.
    pub(crate) fn begin_look(&mut self, visited: usize, awake: bool) -> usize {
        self.looked = self.now;
        self.looks.clear();
        if !self.idle.is_empty() {
            let (first, n) = self.due();
            self.looks.extend(self.idle.iter().cycle().skip(first).take(n));
        }
        if awake && self.awake > 0 {
            self.next_look %= self.awake;
            let (known, now) = (&self.known, self.now);
            let light = |at: &&u32| **at as usize != visited && known[**at as usize].heavy_until <= now;
            let round = self.visits[..self.awake].iter().cycle().skip(self.next_look).take(self.awake);
            self.looks.extend(round.filter(light));
        }
        self.looks.retain(|at| *at as usize != visited);
        self.looks.len()
    }

    /// Whom the `i`-th visit of a look goes to. The next look goes on behind it.
    pub(crate) fn look(&mut self, i: usize) -> usize {
        let at = self.looks[i];
        if !self.known[at as usize].idle {
            self.next_look = self.visits[..self.awake].partition_point(|v| *v <= at);
        }
        at as usize
    }

    /// Ends the turn. If nobody had anything, nobody waits for what somebody overdrew.
    #[inline(always)]
    pub(crate) fn end(&mut self, packets: usize) {
        if self.stale {
            self.renew();
        } else {
            self.visits.truncate(self.awake);
        }
        if packets == 0 && self.debtors != 0 {
            self.forgive();
        }
    }

    #[cold]
    fn forgive(&mut self) {
        self.known.iter_mut().for_each(|known| known.debt = 0);
        self.debtors = 0;
    }

    #[cold]
    fn renew(&mut self) {
        if self.idle.is_empty() {
            self.shared = self.now;
        }
        let (known, all) = (&self.known, 0..self.known.len() as u32);
        self.visits.clear();
        self.visits.extend(all.clone().filter(|at| !known[*at as usize].idle));
        self.idle.clear();
        self.idle.extend(all.filter(|at| known[*at as usize].idle));
        (self.awake, self.next_idle, self.stale) = (self.visits.len(), 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A microsecond.
    const US: u64 = 1000;

    fn roster(queues: usize) -> Roster {
        let mut roster = Roster { cycles_per_us: US, ..Roster::with_capacity(queues) };
        roster.reset(queues);
        roster.known.iter_mut().for_each(|known| known.since = 0);
        (roster.now, roster.shared) = (0, 0);
        roster
    }

    /// One turn at `now`, in which those of `talking` have something; who was visited.
    fn turn(roster: &mut Roster, now: u64, busy: bool, talking: &[usize]) -> Vec<usize> {
        roster.begin_at(now, busy);
        let visited: Vec<_> = (0..roster.visits.len()).filter_map(|i| roster.visit(i)).collect();
        visited.iter().for_each(|at| roster.note(*at, usize::from(talking.contains(at))));
        roster.end(talking.len());
        visited
    }

    /// Turns of so many us each, for 20 ms behind the 401 us after which the others are idle: the longest gap between two
    /// visits of each queue, in us.
    fn longest_gaps(queues: usize, turn_us: u64, talking: &[usize]) -> (Roster, Vec<u64>) {
        let mut roster = roster(queues);
        let (mut last, mut longest) = (vec![0; queues], vec![0; queues]);
        for n in 0..(20_000 + IDLE_AFTER_US) / turn_us {
            let now = n * turn_us * US;
            for at in turn(&mut roster, now, true, talking) {
                longest[at] = longest[at].max(now / US - last[at]);
                last[at] = now / US;
            }
        }
        (roster, longest)
    }

    #[test]
    fn idle_queues_are_visited_by_time_however_long_turns_are() {
        for (turn_us, most) in [(2, 56), (10, 60), (100, 100), (1000, 1000)] {
            let (roster, gaps) = longest_gaps(70, turn_us, &[3, 69]);
            assert_eq!(roster.idle.len(), 68);
            assert!(gaps.iter().all(|gap| *gap <= most), "turns of {turn_us} us: {gaps:?}");
            assert_eq!((gaps[3], gaps[69]), (turn_us, turn_us));
        }
    }

    #[test]
    fn a_thousand_idle_queues_take_a_quarter_of_the_time_at_most() {
        let mut roster = roster(1000);
        let visits: usize = (0..10_000).map(|n| turn(&mut roster, n * 2 * US, true, &[7]).len()).sum();
        let idle = visits as u64 - 10_000 - 1000 * (IDLE_AFTER_US / 2 + 1);
        assert!(idle * EMPTY_VISIT <= 10_000 * 2 * US / IDLE_SHARE, "{idle} visits");
        assert!(idle > 10_000, "{idle} visits");
    }

    #[test]
    fn who_speaks_again_is_visited_in_each_turn() {
        let mut roster = roster(2);
        (0..=401).for_each(|n| drop(turn(&mut roster, n * US, true, &[0])));
        assert_eq!(turn(&mut roster, 402 * US, true, &[0]), [0]);
        assert_eq!(turn(&mut roster, 460 * US, true, &[0, 1]), [0, 1], "its time");
        assert_eq!(turn(&mut roster, 461 * US, true, &[0]), [0, 1]);
    }

    #[test]
    fn if_nobody_has_anything_everybody_is_visited() {
        let mut roster = roster(40);
        (0..1000).for_each(|n| assert_eq!(turn(&mut roster, n * US, false, &[]).len(), 40));
        roster.reset(3);
        assert_eq!(roster.begin(true), 3);
    }

    #[test]
    fn what_was_overdrawn_is_paid_back_by_turns() {
        let mut roster = roster(3);
        roster.overdraw(1, 4 * BUDGET);
        let turns: Vec<_> = (0..5).map(|n| turn(&mut roster, n, true, &[0, 1]).len()).collect();
        assert_eq!(turns, [2, 2, 2, 3, 3]);
        roster.overdraw(1, 4 * BUDGET);
        assert_eq!(turn(&mut roster, 6, true, &[]).len(), 2);
        assert_eq!(turn(&mut roster, 7, true, &[]).len(), 3, "nobody had anything: it is forgiven");
        assert!(roster.is_heavy(1) && !roster.is_heavy(0));
    }

    /// In the middle of a visit: the idle ones whose time it is, and those awake that do not overdraw, in turn.
    #[test]
    fn others_are_looked_at_in_the_middle_of_a_visit() {
        let mut roster = roster(5);
        (0..=401).for_each(|n| drop(turn(&mut roster, n * US, true, &[0, 1, 2, 3])));
        roster.overdraw(3, BUDGET + 1);
        roster.now += 60 * US;
        let looks = |roster: &mut Roster, awake| {
            let n = roster.begin_look(0, awake);
            (0..n).map(|i| roster.looks[i]).collect::<Vec<_>>()
        };
        assert_eq!(looks(&mut roster, false), [4]);
        assert_eq!(looks(&mut roster, true), [1, 2]);
        assert_eq!(roster.look(0), 1);
        assert_eq!(looks(&mut roster, true), [2, 1], "goes on behind the last");
    }
}

//! Pauses in the middle of a long visit, in which others are looked at.

use crate::forward::{Forwarder, Input};
use crate::roster::{BUDGET, Roster};
use crate::stages::{Probe, Stage};

/// Is told between the pieces of what is forwarded.
pub(crate) trait Pause {
    fn pause(&mut self, forwarder: &mut Forwarder, probe: &mut impl Probe);
}

/// Goes on.
pub(crate) struct NoPause;

impl Pause for NoPause {
    #[inline(always)]
    fn pause(&mut self, _forwarder: &mut Forwarder, _probe: &mut impl Probe) {}
}

/// An lcore's receive queues but for the one that is being visited.
pub(crate) struct Others<'l> {
    before: &'l mut [Input],
    after: &'l mut [Input],
    roster: &'l mut Roster,
    /// Packets that came in by them.
    pub(crate) packets: usize,
}

impl<'l> Others<'l> {
    /// The one at `at`, and the others.
    #[inline(always)]
    pub(crate) fn than(
        at: usize,
        inputs: &'l mut [Input],
        roster: &'l mut Roster,
    ) -> Option<(&'l mut Input, Self)> {
        let (before, rest) = inputs.split_at_mut_checked(at)?;
        let (input, after) = rest.split_first_mut()?;
        Some((input, Self { before, after, roster, packets: 0 }))
    }

    /// All of them.
    pub(crate) fn all(inputs: &'l mut [Input], roster: &'l mut Roster) -> Self {
        Self { before: inputs, after: &mut [], roster, packets: 0 }
    }

    /// Notes what the visit to `at` found, and what it cost.
    #[inline(always)]
    pub(crate) fn account(&mut self, forwarder: &mut Forwarder, input: &mut Input, at: usize, count: usize) {
        account(self.roster, forwarder, input, at, count);
    }

    /// Behind a visit: looks at idle ones if it is time.
    #[inline(always)]
    pub(crate) fn visited(&mut self, forwarder: &mut Forwarder, probe: &mut impl Probe) {
        if self.roster.is_idle_due() {
            self.look(forwarder, probe, false);
        }
    }

    /// Visits some, and tells receivers. None of these visits is interrupted.
    #[inline(never)]
    fn look(&mut self, forwarder: &mut Forwarder, probe: &mut impl Probe, awake: bool) {
        probe.lap(Stage::Sort, 0);
        let (visited, mut found) = (self.before.len(), 0);
        for i in 0..self.roster.begin_look(visited, awake) {
            let at = self.roster.look(i);
            let place = at.checked_sub(visited + 1);
            let Some(input) = place.map_or_else(|| self.before.get_mut(at), |at| self.after.get_mut(at))
            else {
                continue;
            };
            let count = forwarder.poll_with(input, probe, &mut NoPause);
            account(self.roster, forwarder, input, at, count);
            found += count;
            if count != 0 && self.roster.is_look_over() {
                break;
            }
        }
        if found != 0 {
            forwarder.end_turn_with(probe);
            self.packets += found;
        }
    }
}

impl Pause for Others<'_> {
    fn pause(&mut self, forwarder: &mut Forwarder, probe: &mut impl Probe) {
        if self.roster.is_look_due() {
            let work = forwarder.take_work();
            self.look(forwarder, probe, true);
            forwarder.add_work(work);
        }
    }
}

/// From now on a visit takes no more packets than its budget is likely to do for.
#[cold]
fn limit(input: &mut Input, work: u64, count: usize) {
    let each = work / count.max(1) as u64;
    input.limit_bursts((BUDGET / each.max(1)).clamp(1, mbuf::MAX_BURST as u64) as usize);
}

/// Notes what a visit found, and what it cost.
#[inline(always)]
fn account(roster: &mut Roster, forwarder: &mut Forwarder, input: &mut Input, at: usize, count: usize) {
    roster.note(at, count);
    let work = forwarder.take_work();
    if work > BUDGET && !roster.is_alone() {
        roster.overdraw(at, work);
        limit(input, work, count);
    } else if input.is_limited() && !roster.is_heavy(at) {
        input.limit_bursts(mbuf::MAX_BURST);
    }
}

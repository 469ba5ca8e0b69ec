//! Which receive halves an lcore visits in a turn: those that had something lately, and a share of the silent ones.

/// A receive half that found nothing so many times in a row is silent: as long as others have something, it is visited in every
/// 32nd turn only. Sixty idle guests shall not cost two busy ones their time, and a visit costs as much as a packet. Whoever
/// was silent waits at most an eighth of the time that it was silent; a turn of two busy guests takes 2.5 us.
const SILENT: u32 = 256;
const SILENT_EVERY: u32 = 32;

/// Whom to visit, as positions in the lcore's list of receive halves.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Visits in a row that found nothing, of each half.
    silent: Vec<u32>,
    /// Those that are not silent and, during a turn, behind them the silent ones whose turn it is.
    visits: Vec<u32>,
    awake: usize,
    /// Whether one has fallen silent, or is silent no more.
    stale: bool,
}

impl Roster {
    /// With room for so many.
    pub(crate) fn with_capacity(halves: usize) -> Self {
        Self { silent: Vec::with_capacity(halves), visits: Vec::with_capacity(halves), ..Self::default() }
    }

    /// Begins anew with so many halves, none of which is silent.
    pub(crate) fn reset(&mut self, halves: usize) {
        self.silent.clear();
        self.silent.resize(halves, 0);
        self.renew();
    }

    /// Begins turn number `turn` and returns how many visits it takes: everybody's if nobody is `busy`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, turn: u32, busy: bool) -> usize {
        if self.awake < self.silent.len() {
            self.add_silent(turn, busy);
        }
        self.visits.len()
    }

    #[inline(never)]
    fn add_silent(&mut self, turn: u32, busy: bool) {
        let (first, step) = if busy { (turn % SILENT_EVERY, SILENT_EVERY as usize) } else { (0, 1) };
        let share = (0..).zip(&self.silent).skip(first as usize).step_by(step);
        self.visits.extend(share.filter(|(_, silent)| **silent > SILENT).map(|(at, _)| at));
    }

    /// Whom the `i`-th visit goes to.
    #[inline(always)]
    pub(crate) fn visit(&self, i: usize) -> usize {
        self.visits[i] as usize
    }

    /// Notes how many packets the visit to `at` found.
    #[inline(always)]
    pub(crate) fn note(&mut self, at: usize, packets: usize) {
        let silent = &mut self.silent[at];
        if packets == 0 {
            *silent = silent.saturating_add(1);
            self.stale |= *silent == SILENT + 1;
        } else {
            self.stale |= *silent > SILENT;
            *silent = 0;
        }
    }

    /// Ends the turn.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        if self.stale {
            self.renew();
        } else {
            self.visits.truncate(self.awake);
        }
    }

    #[cold]
    fn renew(&mut self) {
        self.visits.clear();
        self.visits
            .extend((0..).zip(&self.silent).filter(|(_, silent)| **silent <= SILENT).map(|(at, _)| at));
        (self.awake, self.stale) = (self.visits.len(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One turn in which those of `talking` have something; who was visited.
    fn turn(roster: &mut Roster, turn: u32, busy: bool, talking: &[usize]) -> Vec<usize> {
        let visited: Vec<_> = (0..roster.begin(turn, busy)).map(|i| roster.visit(i)).collect();
        visited.iter().for_each(|at| roster.note(*at, usize::from(talking.contains(at))));
        roster.end();
        visited
    }

    fn roster(halves: usize) -> Roster {
        let mut roster = Roster::with_capacity(halves);
        roster.reset(halves);
        roster
    }

    #[test]
    fn the_silent_are_visited_in_every_32nd_turn_each() {
        let mut roster = roster(70);
        for n in 0..=SILENT {
            assert_eq!(turn(&mut roster, n, true, &[3, 69]).len(), 70);
        }
        let mut visits = [0; 70];
        for n in 0..SILENT_EVERY * 10 {
            let visited = turn(&mut roster, n, true, &[3, 69]);
            assert!(visited.len() <= 2 + 3, "{visited:?}");
            visited.iter().for_each(|at| visits[*at] += 1);
        }
        let expected: Vec<_> = (0..70).map(|at| if at == 3 || at == 69 { 320 } else { 10 }).collect();
        assert_eq!(visits[..], expected);
    }

    #[test]
    fn who_speaks_again_is_visited_in_each_turn() {
        let mut roster = roster(2);
        (0..=SILENT).for_each(|n| drop(turn(&mut roster, n, true, &[0])));
        assert_eq!(turn(&mut roster, 0, true, &[0]), [0]);
        assert_eq!(turn(&mut roster, 1, true, &[0, 1]), [0, 1], "its turn");
        assert_eq!(turn(&mut roster, 0, true, &[0]), [0, 1]);
    }

    #[test]
    fn if_nobody_has_anything_everybody_is_visited() {
        let mut roster = roster(40);
        (0..SILENT * 2).for_each(|n| assert_eq!(turn(&mut roster, n, false, &[]).len(), 40));
        roster.reset(3);
        assert_eq!(turn(&mut roster, 7, true, &[]), [0, 1, 2]);
    }
}

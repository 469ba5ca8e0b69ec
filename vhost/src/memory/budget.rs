//! How much of the process's address space and of the kernel's table of mappings a port may have.
//!
//! A port has a *limit*: what its memory table may map, `memory=` in its specification. And the process has a *budget* over
//! all ports, in bytes and in mappings, which is asked before each mmap. Half of it is set aside: each of 1,024 ports has
//! an equal share that nothing else is ever taken from. The other half is common: a port that maps more than its share
//! takes the rest there, first come, first served. So whatever one front end maps, a neighbour's table that is within its
//! share is served, and so is a port that is yet to be made.
//!
//! | | the process | of them common | a port's share | a port's limit |
//! |---|---|---|---|---|
//! | bytes | 120 of the 128 TiB of a process | 60 TiB | 60 GiB | 1 TiB, or `memory=` |
//! | mappings | 7/8 of vm.max_map_count (65,530) | 28,669 | 27 | 509, and 8 more while a table is exchanged |
//!
//! A limit that the operator wrote down is a promise: with `memory=SIZE`, all of SIZE is set aside when the port is made.
//!
//! What is mapped is counted with the rounding to whole pages, from before mmap until after munmap, so that while one table
//! takes another's place both are counted. A region that stays keeps its mapping and is counted once.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::MemoryError;

/// What a port may map if nothing was said: a large virtual machine.
pub(crate) const DEFAULT_LIMIT: u64 = 1 << 40;
/// Most ports of a switch.
const PORTS: u64 = 1024;
/// Of the 128 TiB that a process has (x86-64 with four levels of page tables; others have no less), what ports may have.
const ADDRESS_SPACE: u64 = 120 << 40;
/// vm.max_map_count as the kernel comes.
const DEFAULT_MAP_COUNT: u64 = 65_530;

/// Some thing that ports use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of address space.
    Bytes,
    /// Mappings.
    Mappings,
}

/// One of them: half of `total` is set aside for ports' shares.
#[derive(Debug)]
struct Pool {
    total: u64,
    /// What was taken of the common half.
    common: u64,
}

impl Pool {
    const fn share(&self) -> u64 {
        self.total / 2 / PORTS
    }

    /// Takes `n` out of the common half, if it has so many.
    fn take(&mut self, n: u64) -> bool {
        let sum = self.common.saturating_add(n);
        let fits = n == 0 || sum <= self.total / 2;
        if fits {
            self.common = sum;
        }
        fits
    }
}

/// What all ports together may use.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<[Pool; 2]>);

impl Budget {
    const fn new(bytes: u64, mappings: u64) -> Self {
        Self(Mutex::new([Pool { total: bytes, common: 0 }, Pool { total: mappings, common: 0 }]))
    }

    /// The process's own.
    fn of_process() -> Arc<Self> {
        static PROCESS: LazyLock<Arc<Budget>> =
            LazyLock::new(|| Arc::new(Budget::new(address_space(), mappings())));
        Arc::clone(&PROCESS)
    }

    fn pools(&self) -> MutexGuard<'_, [Pool; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that ports may map: all but a part of what the process may have.
fn address_space() -> u64 {
    getrlimit(Resource::As).current.map_or(ADDRESS_SPACE, |limit| ADDRESS_SPACE.min(limit / 8 * 7))
}

/// Mappings that ports may have: what is left is for threads, packet memory, and for regions whose pages were replaced.
fn mappings() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_MAP_COUNT) / 8 * 7
}

/// What a port has of one kind.
#[derive(Debug)]
struct Holding {
    /// Set aside for it.
    share: u64,
    used: u64,
}

impl Holding {
    /// How much of `used` is of the common half.
    const fn beyond(&self, used: u64) -> u64 {
        used.saturating_sub(self.share)
    }
}

/// What one port may map, and what it has mapped.
#[derive(Debug)]
pub(crate) struct Allowance {
    budget: Arc<Budget>,
    limit: u64,
    /// What of `limit` is set aside out of the common half.
    promised: u64,
    holdings: Mutex<[Holding; 2]>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self::of(Budget::of_process(), DEFAULT_LIMIT, 0)
    }
}

impl Allowance {
    /// For a port of the process: the usual limit, or one that is wholly set aside. The error is how many bytes could still be.
    pub(crate) fn new(limit: Option<u64>) -> Result<Self, u64> {
        Self::within(Budget::of_process(), limit)
    }

    fn within(budget: Arc<Budget>, limit: Option<u64>) -> Result<Self, u64> {
        let Some(limit) = limit else { return Ok(Self::of(budget, DEFAULT_LIMIT, 0)) };
        let promised = {
            let [bytes, _] = &mut *budget.pools();
            let more = limit.saturating_sub(bytes.share());
            if !bytes.take(more) {
                return Err((bytes.total / 2).saturating_sub(bytes.common) + bytes.share());
            }
            more
        };
        Ok(Self::of(budget, limit, promised))
    }

    fn of(budget: Arc<Budget>, limit: u64, promised: u64) -> Self {
        let shares = budget.pools().each_ref().map(Pool::share);
        let holding = |share| Holding { share, used: 0 };
        let holdings = Mutex::new([holding(shares[0] + promised), holding(shares[1])]);
        Self { budget, limit, promised, holdings }
    }

    /// Most bytes that the port's memory table may map.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts one mapping of so many bytes, before it is made.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, MemoryError> {
        let wanted = [bytes, 1];
        let mut pools = self.budget.pools();
        let mut holdings = self.holdings();
        for kind in [Kind::Bytes, Kind::Mappings] {
            let i = kind as usize;
            let (holding, n) = (&mut holdings[i], wanted[i]);
            let more = holding.beyond(holding.used.saturating_add(n)) - holding.beyond(holding.used);
            if !pools[i].take(more) {
                if kind == Kind::Mappings {
                    Self::put_back(&mut pools, &mut holdings, Kind::Bytes, bytes);
                }
                return Err(MemoryError::Budget { kind, asked: n, used: holdings[i].used });
            }
            holding.used += n;
        }
        drop((pools, holdings));
        Ok(Charge { allowance: Arc::clone(self), bytes })
    }

    fn put_back(pools: &mut [Pool; 2], holdings: &mut [Holding; 2], kind: Kind, n: u64) {
        let (pool, holding) = (&mut pools[kind as usize], &mut holdings[kind as usize]);
        let less = holding.used - n;
        pool.common -= holding.beyond(holding.used) - holding.beyond(less);
        holding.used = less;
    }

    fn holdings(&self) -> MutexGuard<'_, [Holding; 2]> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Allowance {
    /// Nothing is charged any more: a charge keeps its allowance.
    fn drop(&mut self) {
        self.budget.pools()[Kind::Bytes as usize].common -= self.promised;
    }
}

/// A mapping that was counted, until dropped. Drop it after the mapping.
#[derive(Debug)]
pub(crate) struct Charge {
    allowance: Arc<Allowance>,
    bytes: u64,
}

impl Charge {
    /// Bytes that were counted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut pools = self.allowance.budget.pools();
        let mut holdings = self.allowance.holdings();
        for (kind, n) in [(Kind::Bytes, self.bytes), (Kind::Mappings, 1)] {
            Allowance::put_back(&mut pools, &mut holdings, kind, n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,024 shares of 10 bytes and 2 mappings, and as much in common.
    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(10 * 2 * PORTS, 2 * 2 * PORTS))
    }

    fn port(budget: &Arc<Budget>) -> Arc<Allowance> {
        Arc::new(Allowance::within(Arc::clone(budget), None).expect("a share"))
    }

    fn is_budget(outcome: &Result<Charge, MemoryError>, wanted: Kind) -> bool {
        matches!(outcome, Err(MemoryError::Budget { kind, .. }) if *kind == wanted)
    }

    #[test]
    fn one_takes_all_that_is_common_and_nobody_elses_share() {
        let budget = budget();
        let (greedy, neighbour) = (port(&budget), port(&budget));
        let all = greedy.charge(10 + 10 * PORTS).expect("its share and the common half");
        assert!(is_budget(&greedy.charge(1), Kind::Bytes));
        let own = neighbour.charge(10).expect("its share");
        assert!(is_budget(&neighbour.charge(1), Kind::Bytes));
        let late = port(&budget);
        drop(late.charge(10).expect("one that comes later has its share, too"));
        drop(all);
        drop(neighbour.charge(10 * PORTS).expect("all of the common half is back"));
        drop(own);
    }

    #[test]
    fn mappings_run_out_and_the_bytes_are_put_back() {
        let budget = budget();
        let (greedy, neighbour) = (port(&budget), port(&budget));
        let all: Vec<_> = (0..2 + 2 * PORTS).map(|_| greedy.charge(1).expect("there are more")).collect();
        assert!(is_budget(&greedy.charge(1), Kind::Mappings));
        assert_eq!(greedy.holdings()[0].used, all.len() as u64, "bytes of what was refused are not counted");
        drop([neighbour.charge(1).expect("one"), neighbour.charge(1).expect("two")]);
        drop(all);
        assert_eq!(budget.pools().each_ref().map(|pool| pool.common), [0, 0]);
    }

    #[test]
    fn what_the_operator_wrote_down_is_set_aside() {
        let budget = budget();
        let promised = Allowance::within(Arc::clone(&budget), Some(5 * 10 * 10)).expect("room");
        let promised = Arc::new(promised);
        let greedy = port(&budget);
        let rest = greedy.charge(10 + 10 * PORTS - 490).expect("all that is left");
        assert!(is_budget(&greedy.charge(1), Kind::Bytes));
        let kept = promised.charge(500).expect("as promised");
        let refused = Allowance::within(Arc::clone(&budget), Some(11)).expect_err("nothing is left");
        assert_eq!(refused, 10, "its share could be set aside");
        drop((kept, rest, promised));
        assert_eq!(budget.pools()[0].common, 0);
    }
}

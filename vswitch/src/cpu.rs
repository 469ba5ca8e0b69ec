//! Pinning threads, and what a nanosecond is in cycles.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::SwitchError;

/// Moves the calling thread to `cpu` for good.
pub(crate) fn pin(cpu: usize) -> Result<(), SwitchError> {
    let allowed = sched_getaffinity(None).map_err(|e| SwitchError::Affinity(e.into()))?;
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        return Err(SwitchError::CpuNotAllowed { cpu, allowed: list(&allowed) });
    }
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).map_err(|e| SwitchError::Affinity(e.into()))
}

/// A thread of this process, as the kernel knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadId(rustix::thread::Pid);

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        Self(rustix::thread::gettid())
    }

    /// Nanoseconds in which it could have run and did not, ever; as of the last time that it was given a CPU. `None` if the
    /// kernel does not tell.
    pub(crate) fn waited_ns(self) -> Option<u64> {
        let file = format!("/proc/self/task/{}/schedstat", self.0.as_raw_nonzero());
        waited_in(&std::fs::read_to_string(file).ok()?)
    }
}

/// Of the kernel's three numbers (Documentation/scheduler/sched-stats): nanoseconds on a CPU, nanoseconds waiting for one, and
/// how often it was given one. A kernel that does not keep them says 0 each time.
fn waited_in(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse);
    let (ran, waited): (u64, u64) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (ran != 0).then_some(waited)
}

/// A set as people write it: `0-3,8`.
fn list(set: &CpuSet) -> String {
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|c| set.is_set(*c)).collect();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let text = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Cycles a microsecond, to turn nanoseconds into the cycles that statistics show: the time stamp counter's rate as
/// /proc/cpuinfo tells it (half of x86's bogomips, which is set from that counter; else the clock in MHz), or 1000, with
/// which a cycle is a nanosecond.
#[must_use]
pub fn cycles_per_us() -> u64 {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|l| l.starts_with(name))?;
        line.split(':').nth(1)?.trim().parse::<f64>().ok().filter(|v| *v > 0.0)
    };
    let tsc = || if info.contains("constant_tsc") { field("bogomips").map(|b| b / 2.0) } else { None };
    tsc().or_else(|| field("cpu MHz")).map_or(1000, |mhz| mhz as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn sets_are_written_as_ranges() {
        let mut set = CpuSet::new();
        for cpu in [0, 1, 2, 5, 7, 8] {
            set.set(cpu);
        }
        assert_eq!(list(&set), "0-2,5,7-8");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_with_those_that_are() {
        for cpu in [1023, 1024, usize::MAX] {
            let error = pin(cpu).unwrap_err().to_string();
            assert!(error.contains(&cpu.to_string()) && error.contains("allowed"), "{error}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_told_apart_from_no_wait() {
        assert_eq!(waited_in("7712000 0 12\n"), Some(0));
        assert_eq!(waited_in("7712000 94000 12\n"), Some(94_000));
        for untold in ["0 0 0\n", "", "7712000", "x y z"] {
            assert_eq!(waited_in(untold), None, "{untold:?}");
        }
    }

    /// A CPU that this process may run on.
    fn some_cpu() -> usize {
        let allowed = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap()
    }

    #[test]
    fn of_two_threads_on_one_cpu_each_waits_for_the_other() {
        let (ended, cpu) = (AtomicBool::new(false), some_cpu());
        let (says, said) = channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (says, ended) = (says.clone(), &ended);
                scope.spawn(move || {
                    pin(cpu).unwrap();
                    says.send(ThreadId::current()).unwrap();
                    while !ended.load(Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let both = [said.recv().unwrap(), said.recv().unwrap()];
            let end = Instant::now() + Duration::from_secs(20);
            // A kernel that does not tell is none that this can be tried on.
            let waits = || both.map(|thread| thread.waited_ns().unwrap_or(u64::MAX));
            while waits().iter().any(|ns| *ns < 10_000_000) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            let waited = waits();
            ended.store(true, Relaxed);
            assert!(waited.iter().all(|ns| *ns >= 10_000_000), "{waited:?} ns");
        });
    }

    #[test]
    fn a_cycle_is_between_a_tenth_and_ten_nanoseconds() {
        assert!((100..10_000).contains(&cycles_per_us()));
    }
}

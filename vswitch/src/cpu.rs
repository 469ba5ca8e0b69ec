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

    /// Nanoseconds in which it could have run and did not, ever; as of the last time that it was given a CPU.
    pub(crate) fn waited_ns(self) -> Option<u64> {
        // Three numbers: time on a CPU, time waiting for one, and how often it was given one (proc(5)).
        let file = format!("/proc/self/task/{}/schedstat", self.0.as_raw_nonzero());
        std::fs::read_to_string(file).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }
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
    fn of_two_threads_on_one_cpu_each_waits() {
        let spin = || {
            pin(0).unwrap();
            let me = ThreadId::current();
            let end = std::time::Instant::now() + std::time::Duration::from_millis(100);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
            me.waited_ns()
        };
        let other = std::thread::spawn(spin);
        let both = [spin(), other.join().unwrap()];
        // A kernel that does not tell is none that this can be tried on.
        if let [Some(one), Some(other)] = both {
            assert!(one + other > 30_000_000, "{one} and {other} ns: they ran at the same time");
        }
    }

    #[test]
    fn a_cycle_is_between_a_tenth_and_ten_nanoseconds() {
        assert!((100..10_000).contains(&cycles_per_us()));
    }
}

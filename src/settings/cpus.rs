//! CPUs to poll on.

use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity};

/// CPU numbers from `--lcores`: distinct, in the order given, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(Vec<usize>);

/// What is wrong with a list of CPUs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadCpuList {
    #[error("{0:?} is no CPU number or range of CPU numbers below {max}; give a list like 0,2-3", max = CpuSet::MAX_CPU)]
    Item(String),
    #[error("CPU {0} is listed twice; an lcore needs a CPU of its own")]
    Twice(usize),
}

impl CpuList {
    /// The numbers.
    pub(crate) fn cpus(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = BadCpuList;

    fn from_str(text: &str) -> Result<Self, BadCpuList> {
        let mut cpus = Vec::new();
        for item in text.split(',') {
            for cpu in range(item).ok_or_else(|| BadCpuList::Item(item.to_owned()))? {
                if cpus.contains(&cpu) {
                    return Err(BadCpuList::Twice(cpu));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

/// `3` or `2-5`.
fn range(item: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (cpu(first)?, cpu(last)?);
    (first <= last).then_some(first..=last)
}

fn cpu(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|n| *n < CpuSet::MAX_CPU)
}

/// The CPUs that this process may run on, ascending. Empty if the system does not tell.
pub(crate) fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|n| set.is_set(*n)).collect()
}

/// Numbers as a list: `0-3,8`.
pub(crate) fn as_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let text = |run: &[usize]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!("0".parse::<CpuList>().unwrap().cpus(), [0]);
        assert_eq!("0,2-4, 9".parse::<CpuList>().unwrap().cpus(), [0, 2, 3, 4, 9]);
    }

    #[test]
    fn bad_lists() {
        for bad in ["", ",", "a", "-1", "3-2", "0,", "0-", "1024", "0-99999999999"] {
            assert!(matches!(bad.parse::<CpuList>(), Err(BadCpuList::Item(_))), "{bad}");
        }
        assert!(matches!("0-2,1".parse::<CpuList>(), Err(BadCpuList::Twice(1))));
    }

    #[test]
    fn written_as_a_list() {
        assert_eq!(as_list(&[0, 1, 2, 8]), "0-2,8");
        assert_eq!(as_list(&[]), "");
        assert!(!allowed().is_empty());
    }
}

//! Which CPUs threads run on that are no lcores.

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::settings::allowed_cpus;

/// Keeps the calling thread, and those that it starts from now on, off the CPUs of lcores: a control thread that a front
/// end keeps busy would take their time. False if there is no other CPU.
pub(super) fn keep_off(lcores: &[usize]) -> bool {
    let others: Vec<_> = allowed_cpus().into_iter().filter(|cpu| !lcores.contains(cpu)).collect();
    let mut set = CpuSet::new();
    others.iter().for_each(|cpu| set.set(*cpu));
    if others.is_empty() {
        return false;
    }
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!(%error, "a thread cannot be kept off the lcores' CPUs");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_off_if_it_can() {
        std::thread::spawn(|| {
            let all = allowed_cpus();
            assert!(!keep_off(&all), "nowhere else to go");
            assert_eq!(allowed_cpus(), all);
            let (first, rest) = all.split_first().expect("a CPU");
            assert_eq!(keep_off(&[*first]), !rest.is_empty());
            assert!(rest.is_empty() || allowed_cpus() == rest);
            let inherited = std::thread::spawn(allowed_cpus).join().expect("CPUs");
            assert!(rest.is_empty() || inherited == rest);
        })
        .join()
        .expect("a thread");
    }
}

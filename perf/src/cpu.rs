//! Where threads run.

use rustix::thread::{CpuSet, sched_setaffinity};

/// Pins the calling thread.
///
/// # Errors
/// If there is no such CPU for us.
pub fn pin(cpu: usize) -> Result<(), String> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("CPU {cpu}: no such CPU"));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("CPU {cpu}: {e}"))
}

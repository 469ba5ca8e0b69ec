//! What the process holds of a front end's: descriptors, and mappings of its memory.

use std::fs;

/// The counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Open descriptors, the one that this count took included.
    pub descriptors: usize,
    /// Mappings of memfds whose name was given.
    pub mappings: usize,
}

/// Counts them. `memfd` is the name under which the front end's memory was made.
#[must_use]
pub fn take(memfd: &str) -> Census {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    Census {
        descriptors: fs::read_dir("/proc/self/fd").expect("/proc is mounted").count(),
        mappings: maps.lines().filter(|line| line.contains(memfd)).count(),
    }
}

/// The descriptors by what they lead to, for the report of a leak.
#[must_use]
pub fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    entries.filter_map(|e| fs::read_link(e.ok()?.path()).ok()).map(|p| p.display().to_string()).collect()
}

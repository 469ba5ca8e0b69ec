//! CPUs and memory nodes.

use std::fs;

use super::Check;
use crate::settings::{allowed_cpus, as_list};

pub(super) fn allowed() -> Check {
    let cpus = allowed_cpus();
    match cpus.len() {
        0 => Check::bad(
            "cpus",
            "the system does not tell which CPUs are allowed",
            "allow sched_getaffinity in the sandbox",
        ),
        1 => Check::warn(
            "cpus",
            format!("only CPU {}: lcore, guests and everything else share it", as_list(&cpus)),
            "give this process a second CPU (cpuset, taskset)",
        ),
        n => Check::ok("cpus", format!("{n} allowed: {}", as_list(&cpus))),
    }
}

pub(super) fn isolated() -> Check {
    let list = fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let last = allowed_cpus().last().copied().unwrap_or(0);
    match list.trim() {
        "" => Check::warn(
            "isolated-cpus",
            "none: the kernel may run other work on an lcore's CPU, which shows as jitter",
            format!(
                "boot with isolcpus={last} nohz_full={last} rcu_nocbs={last}, and run with --lcores {last}"
            ),
        ),
        list => Check::ok("isolated-cpus", format!("{list}; give them to --lcores")),
    }
}

pub(super) fn numa() -> Check {
    let online = fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    match online.trim() {
        "" | "0" => Check::ok("numa", "one node"),
        nodes => Check::ok("numa", format!("nodes {nodes}: keep lcores and guests on the same one")),
    }
}

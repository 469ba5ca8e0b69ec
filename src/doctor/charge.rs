//! Who pays for guests' memory, and what happens when there is none left: docs/operations/memory.md has the reasons.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Check;

/// vm.max_map_count as the kernel comes: enough for some fifty ports of 509 regions.
const MAP_COUNT: u64 = 65_530;
/// Descriptors that a large switch needs: 1,024 ports of two queue pairs are 40,960.
const FILES: u64 = 65_536;
/// From here down the OOM killer takes nearly everybody else first.
const OOM_SCORE: i32 = -500;

/// All of them.
pub(super) fn checks(control: &Path) -> Vec<Check> {
    let pid = daemon(control);
    let read = |file: &str| fs::read_to_string(file).ok();
    vec![
        memory_max(pid, read),
        oom_score(pid, read),
        overcommit(&read("/proc/sys/vm/overcommit_memory").unwrap_or_default()),
        swap(&read("/proc/swaps").unwrap_or_default()),
        map_count(&read("/proc/sys/vm/max_map_count").unwrap_or_default()),
        open_files(getrlimit(Resource::Nofile).maximum),
    ]
}

/// The number of the process that answers at the control socket.
fn daemon(control: &Path) -> Option<u32> {
    let stream = UnixStream::connect(control).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    u32::try_from(peer.pid.as_raw_pid()).ok()
}

/// The smallest memory.max of the daemon's cgroup and those above it, and whose it is.
fn limit(pid: u32, read: impl Fn(&str) -> Option<String>) -> Option<(u64, String)> {
    let groups = read(&format!("/proc/{pid}/cgroup"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let above = Path::new(path).ancestors().map(|group| group.display().to_string());
    let max = |group: &String| read(&format!("/sys/fs/cgroup{group}/memory.max"))?.trim().parse::<u64>().ok();
    above.filter_map(|group| Some((max(&group)?, group))).min()
}

fn memory_max(pid: Option<u32>, read: impl Fn(&str) -> Option<String>) -> Check {
    const NAME: &str = "memory-cgroup";
    let Some(pid) = pid else {
        return Check::ok(NAME, "no polder runs; its cgroup is looked at when it does");
    };
    match limit(pid, read) {
        None => Check::ok(NAME, format!("no memory.max above process {pid}")),
        Some((bytes, group)) => Check::warn(
            NAME,
            format!(
                "memory.max of {group} is {} MiB: guests' pages that polder touches first count there, and at the limit the \
                 kernel ends polder",
                bytes >> 20
            ),
            "MemoryMax=infinity in the systemd unit; bound guests' memory by memory=SIZE of their ports instead",
        ),
    }
}

fn oom_score(pid: Option<u32>, read: impl Fn(&str) -> Option<String>) -> Check {
    const NAME: &str = "oom-score";
    let Some(pid) = pid else {
        return Check::ok(NAME, "no polder runs; its score is looked at when it does");
    };
    let score = read(&format!("/proc/{pid}/oom_score_adj")).and_then(|text| text.trim().parse::<i32>().ok());
    match score {
        Some(score) if score <= OOM_SCORE => Check::ok(NAME, format!("oom_score_adj is {score}")),
        Some(score) => Check::warn(
            NAME,
            format!(
                "oom_score_adj of process {pid} is {score}: out of memory, the kernel may end polder before a guest"
            ),
            format!(
                "echo -900 | sudo tee /proc/{pid}/oom_score_adj (OOMScoreAdjust=-900 in the systemd unit)"
            ),
        ),
        None => Check::ok(NAME, "not told by this kernel"),
    }
}

fn overcommit(mode: &str) -> Check {
    const NAME: &str = "overcommit";
    match mode.trim() {
        "2" => Check::warn(
            NAME,
            "vm.overcommit_memory is 2: a guest's memory that vanishes may end polder instead of the guest's session",
            "sudo sysctl -w vm.overcommit_memory=0",
        ),
        mode => Check::ok(NAME, format!("vm.overcommit_memory is {mode}")),
    }
}

fn swap(swaps: &str) -> Check {
    const NAME: &str = "swap";
    match swaps.lines().count().saturating_sub(1) {
        0 => Check::ok(NAME, "none"),
        n => Check::warn(
            NAME,
            format!("{n} in use: a guest's page that is swapped out makes its lcore wait for the disk"),
            "sudo systemctl set-property machine.slice MemorySwapMax=0 (or mem-lock=on for QEMU, or swapoff -a)",
        ),
    }
}

fn map_count(text: &str) -> Check {
    const NAME: &str = "map-count";
    match text.trim().parse::<u64>() {
        Ok(n) if n < MAP_COUNT => Check::warn(
            NAME,
            format!("vm.max_map_count is {n}: regions of guest memory, of all ports, may use 7/8 of it"),
            "sudo sysctl -w vm.max_map_count=1048576",
        ),
        Ok(n) => Check::ok(NAME, format!("vm.max_map_count is {n}")),
        Err(_) => Check::ok(NAME, "not told by this kernel"),
    }
}

fn open_files(hard: Option<u64>) -> Check {
    const NAME: &str = "open-files";
    match hard {
        Some(n) if n < FILES => Check::warn(
            NAME,
            format!(
                "the hard limit is {n}: enough for {} ports of one queue pair",
                n.saturating_sub(64) / 28
            ),
            format!("ulimit -Hn {FILES} (as root; LimitNOFILE={FILES} in a systemd unit)"),
        ),
        Some(n) => Check::ok(NAME, format!("the hard limit is {n}; polder raises its own to that")),
        None => Check::ok(NAME, "unlimited"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    /// A machine on which process 7 is in a slice that is limited, more than the unit itself.
    fn read(file: &str) -> Option<String> {
        let text = match file {
            "/proc/7/cgroup" => "0::/net.slice/polder.service\n",
            "/sys/fs/cgroup/net.slice/polder.service/memory.max" => "8589934592\n",
            "/sys/fs/cgroup/net.slice/memory.max" => "2147483648\n",
            "/sys/fs/cgroup/memory.max" => "max\n",
            "/proc/8/cgroup" => "0::/\n",
            "/proc/7/oom_score_adj" => "0\n",
            "/proc/8/oom_score_adj" => "-900\n",
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        assert_eq!(limit(7, read), Some((2 << 30, "/net.slice".to_owned())));
        let check = memory_max(Some(7), read);
        assert_eq!(check.state, State::Warn);
        assert!(check.found.contains("/net.slice is 2048 MiB"), "{}", check.found);
        assert_eq!(memory_max(Some(8), read).state, State::Ok);
        assert_eq!(memory_max(None, read).state, State::Ok);
    }

    #[test]
    fn whom_the_oom_killer_takes() {
        let check = oom_score(Some(7), read);
        assert!(check.mend.is_some_and(|mend| mend.contains("OOMScoreAdjust=-900")));
        assert_eq!(oom_score(Some(8), read).state, State::Ok);
        assert_eq!(oom_score(Some(9), read).state, State::Ok);
    }

    #[test]
    fn the_machine_itself() {
        assert_eq!((overcommit("0\n").state, overcommit("2\n").state), (State::Ok, State::Warn));
        let swaps = "Filename Type Size Used Priority\n";
        assert_eq!(swap(swaps).state, State::Ok);
        assert_eq!(swap(&format!("{swaps}/dev/sda2 partition 1 0 -2\n")).state, State::Warn);
        assert_eq!((map_count("65530\n").state, map_count("1000\n").state), (State::Ok, State::Warn));
        assert_eq!((open_files(Some(1024)).state, open_files(None).state), (State::Warn, State::Ok));
    }
}

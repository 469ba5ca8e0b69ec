//! Threads that are no lcores keep off the lcores' CPUs.

use std::collections::BTreeMap;
use std::fs;

use crate::daemon::Daemon;

/// Each thread's name, and the CPUs it may run on as the kernel lists them.
fn threads(daemon: &Daemon) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let line = |status: &str, key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches(':').trim().to_owned()
    };
    let status = |entry: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(entry.expect("an entry").path().join("status")).unwrap_or_default()
    };
    tasks.map(status).map(|s| (line(&s, "Name"), line(&s, "Cpus_allowed_list"))).collect()
}

/// The first and the last CPU that tests may run on; the same one if there is no other.
fn cpus() -> (usize, usize) {
    let set = rustix::thread::sched_getaffinity(None).expect("CPUs");
    let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|n| set.is_set(*n));
    let first = cpus.next().expect("a CPU");
    (first, cpus.next_back().unwrap_or(first))
}

#[test]
fn all_but_lcores_keep_off_their_cpus() {
    let (lcore, other) = cpus();
    assert_ne!(lcore, other, "this test needs two CPUs");
    let dir = tempfile::tempdir().expect("a folder");
    let vm = dir.path().join("vm.sock");
    let port = format!("vm=vhost-user:{}", vm.display());
    let daemon = Daemon::start_in(dir, &["--port", &port, "--lcores", &lcore.to_string()]);
    let _client = daemon.connect();
    daemon.order(&["port", "add", &format!("late=vhost-user:{}", daemon.dir().join("late.sock").display())]);
    let threads = threads(&daemon);
    for name in ["polder", "control", "vhost:vm", "vhost:late", "lcore0"] {
        assert!(threads.contains_key(name), "no thread {name} among {threads:?}");
    }
    for (name, allowed) in &threads {
        let first = allowed.split([',', '-']).next().and_then(|n| n.parse().ok());
        let on_it = first == Some(lcore);
        assert_eq!(on_it, name == "lcore0", "{name} may run on {allowed}; lcore0 has {lcore}");
    }
    assert!(daemon.stop().0.success());
}

#[test]
fn where_all_cpus_are_lcores_that_is_said_once() {
    let (first, last) = cpus();
    let set = rustix::thread::sched_getaffinity(None).expect("CPUs");
    let all: Vec<_> = (first..=last).filter(|n| set.is_set(*n)).map(|n| n.to_string()).collect();
    let daemon = Daemon::start(&["--lcores", &all.join(","), "--log", "info", "--port", "a=null"]);
    daemon.order(&["port", "add", "b=null"]);
    let (status, error, _dir) = daemon.stop();
    assert!(status.success());
    assert_eq!(error.matches("no CPU is left").count(), 1, "{error}");
}

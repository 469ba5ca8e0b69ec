//! A running daemon has given up its rights, and still does all that it promises.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use vhost::driver::{NetHdr, VirtioNet, VirtioNetConfig};

use crate::daemon::{Daemon, PATIENCE};

const NONE: &str = "0000000000000000";

/// Name and status of each thread.
fn threads(daemon: &Daemon) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let read = |task: &Path, file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    tasks
        .filter_map(Result::ok)
        .map(|task| (read(&task.path(), "comm").trim().to_owned(), read(&task.path(), "status")))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
    line.trim_start_matches(':').trim()
}

fn forwards(a: &Path, b: &Path) {
    let guest = |path| VirtioNet::connect(path, VirtioNetConfig::default()).expect("a guest");
    let (mut a, mut b) = (guest(a), guest(b));
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(64, 0x5a);
    let (end, mut got) = (Instant::now() + PATIENCE, Vec::new());
    while Instant::now() < end {
        a.send(&frame, NetHdr::default()).expect("send");
        // It sleeps until it is called.
        b.pairs()[0].rx.queue_mut().wait_used(Duration::from_millis(100)).expect("a wait");
        if b.recv_within(&mut got, Duration::from_millis(100)).expect("receive").is_some() {
            return assert_eq!(got, frame);
        }
    }
    panic!("nothing arrived");
}

fn works(daemon: &Daemon, sockets: &Path) {
    let path = |name: &str| sockets.join(name);
    for name in ["a", "b", "c"] {
        daemon.order(&["port", "add", &format!("{name}=vhost-user:{}", path(name).display())]);
    }
    let client = format!("d=vhost-user:{},client", path("d").display());
    let capture = format!("e=pcap:tx={}", path("e").display());
    for port in ["n=null", "l=loopback", &client, &capture] {
        daemon.order(&["port", "add", port]);
    }
    forwards(&path("a"), &path("b"));
    forwards(&path("b"), &path("c"));
    // Guests were called without waiting (decision 0008): by a context that a confined thread has, too.
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("its mappings");
    assert!(maps.contains("[aio]"), "calls to guests fall back on a write that may wait");
    daemon.ask_json(&["stats", "--stages", "--json"]);
    daemon.ask_json(&["port", "list", "--json"]);
    daemon.ask_json(&["fdb", "list", "--json"]);
    for name in ["a", "b", "c", "d", "e", "n", "l"] {
        daemon.order(&["port", "del", name]);
    }
    assert!(!path("a").exists());
}

fn is_confined(daemon: &Daemon, sessions: usize) {
    let all = threads(daemon);
    for (name, status) in &all {
        assert_eq!((field(status, "Seccomp"), field(status, "NoNewPrivs")), ("2", "1"), "{name}");
        if name.starts_with("lcore") || name.starts_with("vhost:") {
            assert_eq!((field(status, "CapEff"), field(status, "CapPrm")), (NONE, NONE), "{name}");
        }
    }
    assert_eq!(all.iter().filter(|(name, _)| name.starts_with("vhost:")).count(), sessions, "{all:?}");
}

#[test]
fn auto_keeps_what_ports_to_come_need_and_everything_works() {
    let sockets = tempfile::tempdir().expect("a folder");
    let first = format!("first=vhost-user:{}", sockets.path().join("first").display());
    let daemon = Daemon::start(&["--port", &first]);
    is_confined(&daemon, 1);
    let all = threads(&daemon);
    let kept = |status: &str| u64::from_str_radix(field(status, "CapPrm"), 16).expect("a number");
    // CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_BPF
    let most = 1 << 1 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 39;
    assert!(all.iter().all(|(_, status)| kept(status) & !most == 0), "{all:?}");
    works(&daemon, sockets.path());
    if geteuid().is_root() && Path::new("/dev/net/tun").exists() {
        daemon.order(&["port", "add", "t=tap:polder-sb0"]);
        daemon.order(&["port", "del", "t"]);
    }
    let (status, error, _) = daemon.stop();
    assert_eq!((status.code(), error.as_str()), (Some(0), ""));
}

#[test]
fn strict_keeps_no_capability_and_says_which_setting_is_in_the_way() {
    let sockets = tempfile::tempdir().expect("a folder");
    let first = format!("first=vhost-user:{}", sockets.path().join("first").display());
    let capture = format!("capture=pcap:tx={}", sockets.path().join("capture").display());
    let daemon = Daemon::start(&["--sandbox", "strict", "--port", &first, "--port", &capture]);
    is_confined(&daemon, 1);
    let all = threads(&daemon);
    assert!(all.iter().all(|(_, status)| field(status, "CapPrm") == NONE), "{all:?}");
    works(&daemon, sockets.path());
    let elsewhere = tempfile::tempdir().expect("a folder");
    let elsewhere = format!("z=vhost-user:{}", elsewhere.path().join("z").display());
    for port in ["p=af_packet:lo", &elsewhere] {
        let out = daemon.ask(&["port", "add", port]);
        let line = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && line.contains("sandbox"), "{line}");
    }
    let (status, error, _) = daemon.stop();
    assert_eq!((status.code(), error.as_str()), (Some(0), ""));
}

/// What `polder doctor` says of the daemon's rights, by name.
fn doctor(daemon: &Daemon, name: &str) -> Vec<String> {
    let out = daemon.ask(&["doctor", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let checks = said["checks"].as_array().expect("checks").iter().filter(|check| check["name"] == name);
    checks.map(|check| format!("{}: {} -> {}", check["state"], check["found"], check["mend"])).collect()
}

#[test]
fn doctor_names_what_is_left_over_and_what_is_missing() {
    let auto = Daemon::start(&["--port", "a=null"]);
    assert!(doctor(&auto, "sandbox")[0].contains("ok"), "{:?}", doctor(&auto, "sandbox"));
    let left = doctor(&auto, "capabilities");
    assert_eq!(left[0].contains("left over"), geteuid().is_root(), "{left:?}");
    assert_eq!(doctor(&auto, "user")[0].contains("root"), geteuid().is_root());
    let strict = Daemon::start(&["--sandbox", "strict", "--port", "a=null"]);
    assert!(doctor(&strict, "capabilities")[0].contains("none"), "{:?}", doctor(&strict, "capabilities"));
    let off = Daemon::start(&["--sandbox", "off", "--port", "a=null"]);
    let said = doctor(&off, "sandbox");
    assert!(said[0].contains("warn") && said[0].contains("--sandbox auto"), "{said:?}");
}

#[test]
fn off_gives_up_nothing() {
    let daemon = Daemon::start(&["--sandbox", "off", "--port", "a=null"]);
    for (name, status) in threads(&daemon) {
        assert_eq!(field(&status, "NoNewPrivs"), field(&own_status(), "NoNewPrivs"), "{name}");
        assert_eq!(field(&status, "CapPrm"), field(&own_status(), "CapPrm"), "{name}");
    }
    assert!(daemon.stop().0.success());
}

fn own_status() -> String {
    fs::read_to_string("/proc/self/status").expect("our status")
}

//! What rights a running daemon still has, and which it lacks.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Check;
use crate::control::Client;
use crate::report::PortShow;
use crate::settings::PortSpec;

const CAPABILITIES: &str = "capabilities";
const CONFINED: &str = "sandbox";
const USER: &str = "user";
const UNIT: &str = "run it as a user of its own, by the systemd unit in docs/quickstart";

/// Capabilities that matter here, by number (capabilities(7)), and which kinds of ports need them.
const NAMES: [(u32, &str, &[&str]); 5] = [
    (1, "CAP_DAC_OVERRIDE", &[]),
    (12, "CAP_NET_ADMIN", &["tap", "af_xdp"]),
    (13, "CAP_NET_RAW", &["af_packet", "af_xdp"]),
    (14, "CAP_IPC_LOCK", &[]),
    (39, "CAP_BPF", &["af_xdp"]),
];

/// What the daemon says of itself.
#[derive(Debug, Deserialize)]
struct Running {
    pid: u32,
    sandbox: String,
}

/// A thread, as the kernel shows it.
#[derive(Clone, Debug, Default)]
struct Thread {
    name: String,
    permitted: u64,
    no_new_privs: bool,
    filtered: bool,
    uid: u32,
}

/// The checks of the daemon that `client` talks to.
pub(super) fn checks(client: &mut Client) -> Vec<Check> {
    let Ok(running) = client.call::<Running>("version", &json!({})) else {
        let found = "the daemon does not tell its process: it is of another version than this program";
        return vec![Check::warn(CONFINED, found, "restart the daemon")];
    };
    let ports: Vec<PortShow> = client.call("port.list", &json!({})).unwrap_or_default();
    let kinds = ports.iter().filter_map(|port| Some(port.spec.parse::<PortSpec>().ok()?.kind().to_owned()));
    let threads = threads_of(running.pid);
    if threads.is_empty() {
        let found = format!("/proc/{} cannot be read: the daemon runs in another PID namespace", running.pid);
        return vec![Check::warn(CONFINED, found, "run polder doctor where the daemon runs")];
    }
    let kinds: Vec<_> = kinds.collect();
    let mut checks = vec![confined(&threads, &running.sandbox), user(&threads)];
    checks.extend(capabilities(&threads, &kinds, &running.sandbox));
    checks
}

fn threads_of(pid: u32) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks.filter_map(|task| read_thread(&task.ok()?.path())).collect()
}

fn read_thread(task: &Path) -> Option<Thread> {
    let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
    Some(Thread { name, ..parse_status(&fs::read_to_string(task.join("status")).ok()?)? })
}

fn parse_status(text: &str) -> Option<Thread> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some(Thread {
        name: String::new(),
        permitted: u64::from_str_radix(field("CapPrm")?.trim(), 16).ok()?,
        no_new_privs: field("NoNewPrivs")?.trim() == "1",
        filtered: field("Seccomp")?.trim() == "2",
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
    })
}

/// Whether every thread has its list of system calls, and nobody can gain rights.
fn confined(threads: &[Thread], sandbox: &str) -> Check {
    let bare: Vec<_> = threads.iter().filter(|t| !(t.filtered && t.no_new_privs)).collect();
    match bare.first() {
        None => {
            let found = format!("{sandbox}: all {} threads have lists of system calls", threads.len());
            Check::ok(CONFINED, found)
        }
        Some(_) if sandbox == "off" => Check::warn(
            CONFINED,
            "off: a guest that takes over an lcore has all of polder's rights",
            "sandbox = \"auto\" in the configuration (or --sandbox auto), then restart",
        ),
        Some(thread) => Check::warn(
            CONFINED,
            format!(
                "{} of {} threads have no list of system calls, {} for one",
                bare.len(),
                threads.len(),
                thread.name
            ),
            "use a kernel with CONFIG_SECCOMP_FILTER, and allow seccomp(2) where polder runs; its log says why it failed",
        ),
    }
}

fn user(threads: &[Thread]) -> Check {
    match threads.first().map(|t| t.uid) {
        Some(0) => Check::warn(USER, "the daemon runs as root: root's files and processes are its own", UNIT),
        Some(uid) => Check::ok(USER, format!("the daemon runs as uid {uid}")),
        None => Check::ok(USER, "not known"),
    }
}

/// Capabilities left over, and missing, for ports of these kinds.
fn capabilities(threads: &[Thread], kinds: &[String], sandbox: &str) -> Vec<Check> {
    let held = threads.iter().fold(0, |all, t| all | t.permitted);
    let exposed = threads.iter().find(|t| t.name.starts_with("lcore") && t.permitted != 0);
    if let Some(lcore) = exposed {
        let found = format!("{} has {}: guests reach that thread", lcore.name, names(lcore.permitted));
        return vec![Check::warn(
            CAPABILITIES,
            found,
            "sandbox = \"auto\" in the configuration, then restart",
        )];
    }
    let wanted = |needs: &[&str]| needs.iter().any(|kind| kinds.iter().any(|k| k == kind));
    let needed = NAMES.iter().filter(|(_, _, needs)| wanted(needs)).fold(0, |all, (bit, ..)| all | 1 << bit);
    let (left, missing) = (held & !needed, needed & !held);
    let mut checks = Vec::new();
    if missing != 0 {
        checks.push(Check::warn(
            CAPABILITIES,
            format!(
                "missing: {}: ports that are there work, but cannot be added or opened again",
                names(missing)
            ),
            format!("AmbientCapabilities={} in the unit; not sandbox = \"strict\"", names(missing)),
        ));
    }
    if left != 0 {
        let mend = if sandbox == "strict" {
            UNIT
        } else {
            "sandbox = \"strict\" in the configuration, or leave them out of the unit; then restart"
        };
        let found =
            format!("left over for ports that may still be added: {} (lcores have none)", names(left));
        checks.push(Check::warn(CAPABILITIES, found, mend));
    }
    if checks.is_empty() {
        let found = if held == 0 { "none".to_owned() } else { format!("{}, as its ports need", names(held)) };
        checks.push(Check::ok(CAPABILITIES, found));
    }
    checks
}

fn names(set: u64) -> String {
    let name = |bit: u32| match NAMES.iter().find(|(known, ..)| *known == bit) {
        Some((_, name, _)) => (*name).to_owned(),
        None => format!("capability {bit}"),
    };
    let all: Vec<_> = (0..u64::BITS).filter(|bit| set & (1 << bit) != 0).map(name).collect();
    if all.len() > NAMES.len() + 1 { format!("{} of root's capabilities", all.len()) } else { all.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn thread(name: &str, permitted: u64) -> Thread {
        Thread { name: name.into(), permitted, no_new_privs: true, filtered: true, uid: 990 }
    }

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tx\nUid:\t1\t990\t1\t1\nCapPrm:\t0000000000003000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let read = parse_status(text).unwrap();
        assert_eq!((read.permitted, read.uid, read.no_new_privs, read.filtered), (0x3000, 990, true, true));
        assert!(parse_status("Name:\tx\n").is_none());
    }

    #[test]
    fn each_right_left_over_or_missing_is_named_with_its_fix() {
        let said = |threads: &[Thread], kinds: &[&str]| {
            let kinds: Vec<_> = kinds.iter().map(|k| (*k).to_owned()).collect();
            capabilities(threads, &kinds, "auto").into_iter().map(|c| (c.state, c.found)).collect::<Vec<_>>()
        };
        let none = [thread("polder", 0), thread("lcore0", 0)];
        assert_eq!(said(&none, &["vhost-user"]), [(State::Ok, "none".to_owned())]);
        let missing = said(&none, &["tap", "af_packet"]);
        assert!(missing[0].1.contains("missing: CAP_NET_ADMIN CAP_NET_RAW"), "{missing:?}");
        let some = [thread("polder", 1 << 12 | 1 << 39), thread("lcore0", 0)];
        let left = said(&some, &["tap"]);
        assert!(
            left.len() == 1 && left[0].1.contains("left over") && left[0].1.contains("CAP_BPF"),
            "{left:?}"
        );
        assert!(!left[0].1.contains("CAP_NET_ADMIN"));
        let exposed = said(&[thread("lcore0", 1 << 21)], &[]);
        assert!(exposed[0].1.contains("capability 21"), "{exposed:?}");
    }

    #[test]
    fn threads_without_a_list_and_root_are_named() {
        let good = [thread("polder", 0), thread("lcore0", 0)];
        assert_eq!((confined(&good, "auto").state, user(&good).state), (State::Ok, State::Ok));
        let bare = [Thread { filtered: false, uid: 0, ..thread("lcore3", 0) }];
        assert!(confined(&bare, "auto").found.contains("lcore3"));
        assert!(confined(&bare, "off").mend.unwrap().contains("sandbox"));
        assert_eq!(user(&bare).state, State::Warn);
    }
}

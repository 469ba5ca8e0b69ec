//! A7: whatever a front end holds, its port can be removed, and SIGTERM ends the daemon within three seconds.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vhost::driver::FrontEnd;
use vhost::wire::message::{Header, MemoryRegion, MemoryTableHead, Request, flags};
use zerocopy::IntoBytes;

use crate::daemon::{Daemon, PATIENCE};
use crate::silent_file::SilentFile;

/// SIGTERM's limit, and as much again for a machine that is busy.
const END: Duration = Duration::from_secs(6);
const BYTES: u64 = 1 << 20;
/// What the attacker's process is to do.
const ATTACK: &str = "POLDER_TEST_ATTACK";

/// A daemon with a port `vm`, and its socket.
fn daemon() -> (Daemon, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let vm = dir.path().join("vm.sock");
    (Daemon::start_in(dir, &["--port", &format!("vm=vhost-user:{}", vm.display())]), vm)
}

/// A front end in a process of its own: one that starts others must not have a file that never answers, as each of them
/// would close its copy.
struct Attacker {
    child: Child,
    /// Open until it ends: it prints.
    _output: BufReader<ChildStdout>,
}

impl Attacker {
    /// Returns when the daemon has had time to get stuck.
    fn start(kind: &str, vm: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["stuck::attackers_process", "--exact", "--ignored", "--nocapture"])
            .env(ATTACK, format!("{kind} {}", vm.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start this program");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let said = output.by_ref().lines().map_while(Result::ok).any(|line| line.ends_with("attacking"));
        assert!(said, "the attacker ended");
        std::thread::sleep(Duration::from_millis(300));
        Self { child, _output: output }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "the attacker of other tests, a process of its own"]
fn attackers_process() {
    let plan = std::env::var(ATTACK).expect("started by another test");
    let (kind, path) = plan.split_once(' ').expect("a kind and a path");
    let mut silent = SilentFile::new();
    let memfd = (kind == "locked").then(|| silent.locked_memfd(BYTES));
    let fd = memfd.as_ref().map_or(silent.as_fd(), AsFd::as_fd);
    let mut front = FrontEnd::connect(path, PATIENCE).expect("connects");
    send_table(&mut front, fd);
    println!("attacking");
    let _ = std::io::stdin().read(&mut [0]);
    silent.abort();
}

/// A table whose one region lies in `file`.
fn send_table(front: &mut FrontEnd, file: BorrowedFd<'_>) {
    let region = MemoryRegion { gpa: 0, size: BYTES, va: 1 << 40, mmap_offset: 0 };
    let table = [MemoryTableHead { regions: 1, padding: 0 }.as_bytes(), region.as_bytes()].concat();
    let header =
        Header { request: Request::SetMemTable as u32, flags: flags::VERSION, size: table.len() as u32 };
    front.send_raw(&[header.as_bytes(), &table].concat(), &[file]).expect("sent");
}

/// SIGTERM ends it in time, with status 0, and its sockets are gone, before `attacker` lets go.
fn expect_end(daemon: Daemon, vm: &Path, attacker: Attacker) {
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    let mut daemon = daemon;
    while start.elapsed() < END && !daemon.has_ended() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (took, sockets) = (start.elapsed(), (vm.exists(), daemon.control().exists()));
    drop(attacker);
    let (status, error, _dir) = daemon.wait();
    assert_eq!(sockets, (false, false), "sockets are left: {error}");
    assert!(took < END, "ended after {took:?}: {error}");
    assert_eq!(status.code(), Some(0), "{error}");
}

#[test]
fn a07_sigterm_while_a_memfd_is_locked_needs_root_and_fuse() {
    let (daemon, vm) = daemon();
    let attacker = Attacker::start("locked", &vm);
    expect_end(daemon, &vm, attacker);
}

#[test]
fn a07_sigterm_while_a_file_never_answers_needs_root_and_fuse() {
    let (daemon, vm) = daemon();
    let attacker = Attacker::start("silent", &vm);
    expect_end(daemon, &vm, attacker);
}

/// Not even SIGKILL ends a thread in such a call: there is none.
#[test]
fn a07_sigkill_ends_it_at_once_needs_root_and_fuse() {
    for kind in ["locked", "silent"] {
        let (mut daemon, vm) = daemon();
        let attacker = Attacker::start(kind, &vm);
        daemon.signal(Signal::KILL);
        let start = Instant::now();
        while start.elapsed() < END && !daemon.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let took = start.elapsed();
        drop(attacker);
        assert!(took < END, "{kind}: not reaped after {took:?}");
    }
}

#[test]
fn a07_a_stuck_port_is_removed_and_made_anew_needs_root_and_fuse() {
    for kind in ["locked", "silent"] {
        let (daemon, vm) = daemon();
        let attacker = Attacker::start(kind, &vm);
        let spec = format!("vm=vhost-user:{}", vm.display());
        let removed = daemon.ask_within(END, &["port", "del", "vm"]);
        let added = removed && daemon.ask_within(END, &["port", "add", &spec]);
        let served = added && FrontEnd::connect(&vm, END).is_ok_and(|mut front| front.features().is_ok());
        drop(attacker);
        assert!(served, "{kind}: removed {removed}, added {added}, served {served}");
        assert!(daemon.stop().0.success());
    }
}

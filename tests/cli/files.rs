//! A14 at the control socket: who only reads its directory holds up nobody, who writes in it changes nothing outside.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Daemon, PATIENCE, polder};

#[test]
fn a14_a_flock_on_the_control_sockets_directory() {
    let dir = tempfile::tempdir().expect("a folder");
    let held = File::open(dir.path()).expect("a directory that anybody may read");
    flock(&held, FlockOperation::LockExclusive).expect("a lock");
    let daemon = Daemon::start_in(dir, &["--port", "a=null"]);
    let (status, error, dir) = daemon.stop();
    assert_eq!((status.code(), error.as_str()), (Some(0), ""));
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0, "nothing is left");
}

/// A start that must come to nothing: how it ended, what it said, and whether that was in time.
fn ends(control: &Path, signal: Option<Signal>) -> (Option<i32>, String) {
    let mut child = polder()
        .args(["run", "--memory", "8M", "--hugepages", "off", "--control"])
        .arg(control)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start polder");
    if let Some(signal) = signal {
        std::thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), signal).expect("signal a child");
    }
    let end = Instant::now() + PATIENCE / 2;
    while child.try_wait().expect("wait for a child").is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the start goes on for ever");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().expect("its end");
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn a14_a_lock_that_is_never_given_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = dir.path().join("control");
    let lock = File::create(dir.path().join(".control.lock")).expect("create");
    flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let (status, line) = ends(&control, None);
    assert!(status == Some(1) && line.contains(".control.lock"), "{status:?}: {line}");
    ends(&control, Some(Signal::TERM));
}

#[test]
fn a14_a_listener_that_takes_no_more_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = dir.path().join("control");
    let _listener = UnixListener::bind(&control).expect("bind");
    let address = SocketAddrUnix::new(&control).expect("an address");
    // Until its backlog is full: then a connect that may wait, waits.
    let connect_one = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None);
        let socket = socket.expect("a socket");
        connect(&socket, &address).ok().map(|()| socket)
    };
    let held: Vec<_> = std::iter::from_fn(connect_one).take(10_000).collect();
    assert!(held.len() < 10_000, "it has no limit");
    assert_eq!(ends(&control, None).0, Some(1), "it is refused, and soon");
}

#[test]
fn a14_a_symlink_in_place_of_the_control_socket() {
    let (theirs, ours) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let precious = ours.path().join("precious");
    fs::write(&precious, "secret").expect("write");
    fs::set_permissions(&precious, Permissions::from_mode(0o640)).expect("chmod");
    let (control, aside) = (theirs.path().join("control"), theirs.path().join("aside"));
    for _ in 0..20 {
        let mut child = polder()
            .args(["run", "--memory", "8M", "--hugepages", "off", "--control"])
            .arg(&control)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start polder");
        let end = Instant::now() + PATIENCE;
        while fs::rename(&control, &aside).is_err() && child.try_wait().expect("wait").is_none() {
            assert!(Instant::now() < end, "no socket");
        }
        let _ = std::os::unix::fs::symlink(&precious, &control);
        std::thread::sleep(Duration::from_millis(5));
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(&control);
        let mode = fs::metadata(&precious).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "the mode of somebody else's file was changed");
    }
}

//! `polder run`: begins with `ready`, ends clean.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{Daemon, PATIENCE, assert_refused, polder};

#[test]
fn ends_with_0_on_both_signals_and_leaves_no_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let sockets = tempfile::tempdir().expect("a folder");
        let vm = sockets.path().join("vm1.sock");
        let daemon =
            Daemon::start(&["--port", &format!("vm1=vhost-user:{}", vm.display()), "--port", "n=null"]);
        assert!(fs::metadata(&vm).expect("the port's socket").file_type().is_socket());
        let mode = fs::metadata(daemon.control()).expect("the control socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        daemon.signal(signal);
        let (status, error, dir) = daemon.wait();
        assert_eq!((status.code(), error.as_str()), (Some(0), ""));
        assert!(!vm.exists() && !dir.path().join("control").exists());
    }
}

#[test]
fn n11_small_pages_are_warned_of_once_with_the_command() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = dir.path().join("control");
    let notified = UnixDatagram::bind(dir.path().join("notify")).expect("a socket like systemd's");
    notified.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut child = polder()
        .args(["run", "--port", "a=null", "--memory", "8M", "--control"])
        .arg(&control)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start polder");
    let mut message = [0; 64];
    let length = notified.recv(&mut message).expect("a message to systemd");
    assert_eq!(message[..length].trim_ascii(), b"READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("signal a child");
    assert!(child.wait().expect("wait for a child").success());
    let mut error = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut error).expect("text");
    // A machine that has hugepages is not warned.
    assert!(error.is_empty() || (error.lines().count() == 1 && error.contains("nr_hugepages")), "{error}");
    assert!(!error.contains('\u{1b}'), "no colours into a file: {error:?}");
}

#[test]
fn a_port_that_cannot_be_had_stops_it_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let (control, vm) = (dir.path().join("control"), dir.path().join("vm"));
    let out = polder()
        .args(["run", "--hugepages", "off", "--port", &format!("vm=vhost-user:{}", vm.display())])
        .args(["--port", "p=pcap:rx=/no/such/file", "--control"])
        .arg(&control)
        .output()
        .expect("start polder");
    let line = assert_refused(&out, 1);
    assert!(line.contains("/no/such/file") && line.contains("port p"), "{line}");
    assert!(!control.exists() && !vm.exists(), "nothing is left half started");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let out = polder().args(["run", "--control"]).arg(daemon.control()).output().expect("start polder");
    assert!(assert_refused(&out, 1).contains("already"));
    assert_eq!(
        daemon.ask_json(&["port", "list", "--json"]).as_array().map(Vec::len),
        Some(1),
        "the first still answers"
    );
    assert!(daemon.stop().0.success());
}

#[test]
fn d12_what_a_dead_daemon_left_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = dir.path().join("control");
    drop(UnixListener::bind(&control).expect("a stale socket"));
    let daemon = Daemon::start_in(dir, &[]);
    assert!(UnixStream::connect(daemon.control()).is_ok());
    let (status, _, dir) = daemon.stop();
    assert!(status.success());
    fs::write(&control, "precious").expect("write a file");
    let out = polder()
        .args(["run", "--hugepages", "off", "--control"])
        .arg(&control)
        .output()
        .expect("start polder");
    assert_refused(&out, 1);
    assert_eq!(fs::read_to_string(dir.path().join("control")).expect("still there"), "precious");
}

#[test]
fn n11_hugepages_that_are_not_there_are_named_with_the_command() {
    // No machine that runs tests has half a terabyte of 1 GiB pages.
    let dir = tempfile::tempdir().expect("a folder");
    let out = polder()
        .args(["run", "--hugepages", "1g", "--memory", "400G", "--control"])
        .arg(dir.path().join("control"))
        .output()
        .expect("start polder");
    let line = assert_refused(&out, 1);
    assert!(line.contains("nr_hugepages") || line.contains("does not have"), "{line}");
    assert!(!dir.path().join("control").exists());
}

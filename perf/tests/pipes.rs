//! Who reads the programs' words may go at any time.

use std::process::{Command, Stdio};

/// Starts `program`, whose output nobody reads; how it ended, and what it said on standard error.
fn unread(program: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start it");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let pktgen = env!("CARGO_BIN_EXE_pktgen");
    let good = ["loopback", "--count", "100"];
    let lossy = ["null", "null", "--verify", "--count", "100"];
    for json in [&[][..], &["--json"]] {
        assert_eq!(unread(pktgen, &[&good[..], json].concat()), (Some(0), String::new()));
        // What it found is still told by the status.
        assert_eq!(unread(pktgen, &[&lossy[..], json].concat()), (Some(1), String::new()));
    }
    let idle = ["idle", "--seconds", "1", "--frames", "5"];
    let (status, told) = unread(env!("CARGO_BIN_EXE_polder-perf"), &idle);
    assert!(status == Some(0) && !told.contains("panicked"), "{status:?} {told}");
    assert_eq!(unread(env!("CARGO_BIN_EXE_polder-perf"), &["--help"]).0, Some(0));
}

/// `2>&1 | head`: standard error goes as well.
#[test]
fn neither_is_one_of_standard_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pktgen"))
        .args(["loopback", "--seconds", "1.2", "--warm-up", "0", "--live"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start it");
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}

//! The floor moves frames unchanged and in order, with one copy and with two.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn frames_come_through(floor: &[&str], pktgen: &[&str], queues: usize) {
    let dir = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| dir.path().join(name).display().to_string());
    let queues = queues.to_string();
    let child = Command::new(env!("CARGO_BIN_EXE_floor"))
        .args(floor)
        .args(["--queues", &queues])
        .args(&sockets)
        .spawn()
        .unwrap();
    let _running = Running(child);
    let end = Instant::now() + Duration::from_secs(10);
    while !sockets.iter().all(|socket| std::fs::exists(socket).unwrap()) {
        assert!(Instant::now() < end, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = Command::new(env!("CARGO_BIN_EXE_pktgen"))
        .args(sockets.map(|socket| format!("guest:{socket},queues={queues}")))
        .args(["--verify", "--count", "20000", "--window", "300", "--json"])
        .args(pktgen)
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{floor:?} {pktgen:?}: {told}");
}

#[test]
fn frames_come_through_unchanged_and_in_order() {
    frames_come_through(&["--burst", "32"], &["--size", "imix"], 1);
    frames_come_through(&["--burst", "256"], &["--size", "64", "--no-mergeable", "--macs", "100"], 1);
    frames_come_through(&["--burst", "64", "--copies", "2"], &["--size", "9014"], 1);
    frames_come_through(&["--burst", "1"], &["--size", "513"], 4);
}

//! The comparator does honestly what it is compared for.

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

#[test]
fn frames_come_through_unchanged_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = ["a", "b"].map(|name| dir.path().join(name).display().to_string());
    let child = Command::new(env!("CARGO_BIN_EXE_offtheshelf")).args(&sockets).spawn().unwrap();
    let _running = Running(child);
    let end = Instant::now() + Duration::from_secs(10);
    while !sockets.iter().all(|socket| std::fs::exists(socket).unwrap()) {
        assert!(Instant::now() < end, "it does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut pktgen = Command::new(env!("CARGO_BIN_EXE_pktgen"));
    pktgen
        .args(&sockets)
        .args(["--verify", "--size", "imix", "--count", "5000", "--window", "100", "--json"]);
    let output = pktgen.output().unwrap();
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

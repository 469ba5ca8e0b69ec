//! What this machine must have, by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program `name` is installed, or the test fails with its name.
pub(crate) fn needs_program(name: &str) {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null())
        .status()
        .expect("start sh");
    assert!(found.success(), "missing: {name}; run scripts/setup");
}

/// The test runs as root, or fails saying so.
pub(crate) fn needs_root() {
    assert!(rustix::process::geteuid().is_root(), "missing: root (a TAP and a network namespace are made)");
}

/// A file of the guest image that `scripts/setup` makes.
pub(crate) fn guest_file(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e").join(name);
    assert!(file.exists(), "missing: {}; run scripts/setup", file.display());
    file
}

/// The newest QEMU that `scripts/setup` leaves here: the NIC lab's, or the machine's own.
pub(crate) fn newest_qemu() -> PathBuf {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e/nic/qemu/usr/bin/qemu-system-x86_64");
    if lab.exists() { lab } else { PathBuf::from("qemu-system-x86_64") }
}

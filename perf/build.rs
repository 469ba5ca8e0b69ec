//! Which commit the programs are built from, for the heads of reports.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    println!("cargo::rustc-env=POLDER_COMMIT={commit}{}", if is_changed { " with changes" } else { "" });
    // Whatever the programs are made of: with it changes what this says of it.
    for part in ["perf", "ring", "mbuf", "pmd", "vhost", "vswitch", "src"] {
        println!("cargo::rerun-if-changed=../{part}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

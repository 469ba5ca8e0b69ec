//! Instructions per packet or element, counted by callgrind: a gate that other load on the machine cannot touch.
//!
//! A change that costs more than 3 % fails until the recorded figure is changed in the same commit, with a reason in its
//! message; so does one that saves more than 10 %, lest the gate stands open behind it. The figures are those of rustc 1.95's
//! release build on x86-64.

use std::collections::BTreeMap;
use std::process::Command;

const STEPS: u64 = 200;

/// Recorded: instructions per packet, or per element enqueued and dequeued, allocated and freed, looked up.
const RECORDED: &[(&str, f64)] = &[
    ("ring_spsc", 4.18),
    ("ring_mpmc", 4.46),
    ("mempool", 23.94),
    ("fdb", 62.64),
    ("fdb_64k", 74.70),
    ("vring_split", 386.0),
    ("vring_packed", 525.3),
    ("switch_split", 420.1),
    ("switch_packed", 559.3),
    ("switch_split_1514", 1942.7),
];

/// Counts one workload.
fn instructions_a_packet(workload: &str) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions::measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args([env!("CARGO_BIN_EXE_instructions"), workload, &STEPS.to_string()]);
    let output = valgrind.output().unwrap_or_else(|e| panic!("missing: valgrind ({e}); run scripts/setup"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{workload}: {told}{}", String::from_utf8_lossy(&output.stderr));
    let moved: f64 =
        told.trim().strip_prefix("moved ").and_then(|n| n.parse().ok()).expect("how many it moved");
    let counts = std::fs::read_to_string(out).unwrap();
    let total =
        counts.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total: f64 = total.and_then(|n| n.trim().parse().ok()).expect("callgrind's total");
    assert!(total > 0.0 && moved > 0.0, "{workload}: nothing was counted: {told}");
    total / moved
}

#[test]
#[ignore = "needs valgrind and the release build"]
fn no_piece_of_the_data_path_costs_more_than_recorded() {
    if cfg!(debug_assertions) {
        panic!("only the release build's instructions mean anything: cargo test --release");
    }
    let counted: BTreeMap<_, _> =
        RECORDED.iter().map(|(name, recorded)| (*name, (instructions_a_packet(name), *recorded))).collect();
    for (name, (counted, recorded)) in &counted {
        println!("{name}: {counted:.2} instructions, {recorded:.2} recorded");
    }
    let off = counted.iter().filter(|(_, (now, then))| *now > then * 1.03 || *now < then * 0.9);
    let off: Vec<_> =
        off.map(|(name, (now, then))| format!("{name}: {now:.2} instead of {then:.2}")).collect();
    assert!(off.is_empty(), "{}", off.join("; "));
}

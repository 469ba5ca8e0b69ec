//! l2fwd from one pcap file to another: every frame, in order, with the MACs that were asked for.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A classic pcap file, little-endian, microseconds, Ethernet.
fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for frame in frames {
        for word in [0, 0, frame.len() as u32, frame.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).unwrap();
}

/// The frames of a pcap file in this machine's byte order.
fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let (mut at, mut frames) = (24, Vec::new());
    while at < bytes.len() {
        let len = u32::from_ne_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        frames.push(bytes[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    frames
}

fn frames() -> Vec<Vec<u8>> {
    (0..500u16).map(|i| (0..60 + i % 1400).map(|b| (b ^ i) as u8).collect()).collect()
}

/// Runs l2fwd for a second over a file of `frames`; what came out.
fn forwarded(options: &[&str]) -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    write_pcap(&from, &frames());
    let output = Command::new(env!("CARGO_BIN_EXE_l2fwd"))
        .arg(format!("pcap:rx={}", from.display()))
        .arg(format!("pcap:tx={}", to.display()))
        .args(["--seconds", "1"])
        .args(options)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("rx 500") && text.contains("tx 500") && text.contains("+ 0 out"), "{text}");
    read_pcap(&to)
}

#[test]
fn every_frame_unchanged_and_in_order() {
    assert_eq!(forwarded(&[]), frames());
}

#[test]
fn macs_rewritten_and_nothing_else() {
    let mut want = frames();
    for frame in &mut want {
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1]);
    }
    assert_eq!(forwarded(&["--rewrite-macs"]), want);
}

#[test]
fn an_odd_number_of_ports_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_l2fwd")).arg("null").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("even number"));
}

//! `pktgen` as a whole, against devices that do right and devices that do not.

use std::process::{Command, Output};

use perf::dut::{Dut, DutConfig};
use serde_json::Value;

fn pktgen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pktgen")).args(args).output().expect("start pktgen")
}

fn json(args: &[&str]) -> (bool, Value) {
    let output = pktgen(&[args, &["--json"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    (output.status.success(), value)
}

/// Polder's switch with two vhost-user ports, and their sockets.
fn switch(queues: u16) -> (Dut, Vec<String>) {
    let dut = Dut::start(&DutConfig { queues, spin: false, ..DutConfig::default() }).unwrap();
    let guests = dut.guests().iter().map(|guest| format!("guest:{guest},queues={queues}")).collect();
    (dut, guests)
}

#[test]
fn every_frame_through_a_switch_comes_once_unchanged_and_in_order() {
    let (_dut, guests) = switch(2);
    let common = [&guests[0][..], &guests[1], "--verify", "--count", "20000", "--window", "400"];
    for more in [
        &["--size", "imix", "--macs", "16"][..],
        &["--size", "64", "--latency", "--macs", "5000"],
        &["--size", "9014", "--vlan", "5-9", "--no-mergeable"],
        &["--size", "1514", "--indirect", "--in-order"],
        &["--packed", "--size", "imix", "--macs", "16"],
        &["--packed", "--size", "9014", "--no-mergeable", "--queue-size", "999"],
        &["--packed", "--size", "1514", "--indirect", "--in-order"],
    ] {
        let (clean, value) = json(&[&common[..], more].concat());
        assert!(clean, "{more:?}: {value:#}");
        for way in value["ways"].as_array().unwrap() {
            assert!(way["whole_run"]["received"].as_u64() >= Some(20_000), "{way:#}");
            let measured = more.contains(&"--latency");
            assert_eq!(way["latency_ns"]["p50"].as_u64().is_some(), measured, "{way:#}");
        }
    }
}

#[test]
fn one_word_a_frame_is_counted_too_and_the_rate_is_not_exceeded() {
    let (_dut, guests) = switch(1);
    let args = [&guests[0][..], &guests[1], "--warm-up", "0.2", "--seconds", "0.5", "--rate", "20k"];
    let (ok, value) = json(&args);
    assert!(ok);
    for way in value["ways"].as_array().unwrap() {
        let sent = way["sent"].as_u64().unwrap() as f64 / value["seconds"].as_f64().unwrap();
        // How much less it is, is the machine's business.
        assert!(sent > 0.0 && sent <= 21_000.0, "{sent} a second instead of 20,000");
    }
    assert!(value["mpps"].as_f64() > Some(0.0));
}

#[test]
fn one_endpoint_alone_gets_its_own_frames_back() {
    let args = ["loopback", "--verify", "--latency", "--size", "200", "--count", "5000", "--window", "64"];
    let (clean, value) = json(&args);
    assert!(clean, "{value:#}");
    assert_eq!(value["ways"][0]["whole_run"]["received"], 5000);
    assert!(value["ways"][0]["latency_ns"]["max"].as_u64() > Some(0));
}

#[test]
fn what_is_lost_is_told_and_fails() {
    let (clean, value) = json(&["null", "null", "--verify", "--count", "1000"]);
    assert!(!clean);
    for way in value["ways"].as_array().unwrap() {
        assert_eq!((&way["whole_run"]["lost"], &way["whole_run"]["clean"]), (&1000.into(), &false.into()));
    }
}

#[test]
fn a_capture_is_replayed_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.pcap");
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for len in [60u32, 900] {
        for word in [0, 0, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((0..len).map(|i| i as u8));
    }
    std::fs::write(&file, bytes).unwrap();
    let (ok, value) = json(&["loopback", "--pcap", &file.display().to_string(), "--count", "100"]);
    assert!(ok);
    let way = &value["ways"][0];
    assert_eq!(way["received"], 100, "{way:#}");
    assert_eq!(way["bytes"], 50 * 960);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (args, told) in [
        (&["null", "null", "null"][..], "pairs"),
        (&["null", "null", "--latency", "--verify"], "62 bytes"),
        (&["/no/such/socket", "null"], "/no/such/socket"),
        (&["floppy:x", "null"], "floppy"),
        (&["null", "null", "--cpu", "5000"], "CPU 5000"),
    ] {
        let output = pktgen(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(told), "{args:?}: {error}");
    }
}

//! Frames of 64 KiB that guests leave to others to segment.

use std::process::Command;

use perf::dut::{Dut, DutConfig};
use serde_json::Value;

fn pktgen(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pktgen")).args(args).output().expect("start pktgen");
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), told)
}

#[test]
fn they_go_through_a_switch_whole_unchanged_and_with_their_headers() {
    let dut = Dut::start(&DutConfig { spin: false, ..DutConfig::default() }).unwrap();
    let sockets: Vec<_> = dut.sockets().iter().map(|socket| socket.display().to_string()).collect();
    let common =
        [&sockets[0][..], &sockets[1], "--size", "64k", "--window", "16", "--count", "500", "--json"];
    for more in
        [&[][..], &["--packed"], &["--indirect"], &["--no-mergeable"], &["--vlan", "7", "--macs", "5"]]
    {
        for verify in [&[][..], &["--verify"]] {
            let (ok, told) = pktgen(&[&common[..], more, verify].concat());
            assert!(ok, "{more:?}: {told}");
            let value: Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
            for way in value["ways"].as_array().unwrap() {
                // The first ones may come before the window's edge is seen.
                let (frames, bytes) = (way["whole_run"]["received"].as_u64(), way["bytes"].as_u64());
                assert!(frames >= Some(500) && way["whole_run"]["foreign"] == 0, "{more:?}: {way:#}");
                assert_eq!(bytes, way["received"].as_u64().map(|n| 65_226 * n), "{more:?}: {way:#}");
            }
        }
    }
}

#[test]
fn what_offers_no_segmentation_is_told_so() {
    let (ok, told) = pktgen(&["null", "null", "--size", "64k"]);
    assert!(!ok && told.contains("guests only"), "{told}");
}

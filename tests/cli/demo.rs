//! `polder demo`: the whole in one process, every packet checked.

use serde_json::Value;

use crate::daemon::run;

#[test]
fn no_packet_is_lost_changed_or_overtaken() {
    for size in ["60", "64", "1514"] {
        let out = run(&["demo", "--seconds", "2", "--size", size, "--json"]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{text} {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(text.lines().count(), 1, "{text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        for key in ["lost", "corrupted", "reordered", "duplicated", "unaccounted"] {
            assert_eq!(value[key], 0, "{key}: {value}");
        }
        assert!(value["ok"] == true && value["sent"] == value["received"], "{value}");
        assert!(value["received"].as_u64() > Some(1000), "{value}");
        assert_eq!(value["mempool"]["out"], 0, "{value}");
    }
}

#[test]
fn a_line_each_second_and_a_summary() {
    let out = run(&["demo", "--seconds", "2"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text} {}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("  1 s  a->b") && text.contains("every packet came"), "{text}");
    assert!(text.contains("Mpps") && text.contains("cycles/packet") && text.contains("lcore busy"), "{text}");
}

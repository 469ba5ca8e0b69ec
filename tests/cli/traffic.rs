//! Guests at a running daemon: what they send arrives, is learned, and is in the counters.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use vhost::driver::{NetHdr, VirtioNet, VirtioNetConfig};

use crate::daemon::{Daemon, PATIENCE};

const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &[0x88, 0xb5]].concat();
    frame.resize(64, 0x5a);
    frame
}

fn guest(socket: &Path) -> VirtioNet {
    VirtioNet::connect(socket, VirtioNetConfig::default()).expect("a guest")
}

/// Sends until it arrives: rings start on their own time.
fn send_until_heard(from: &mut VirtioNet, to: &mut VirtioNet, frame: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    let mut got = Vec::new();
    while Instant::now() < deadline {
        from.send(frame, NetHdr::default()).expect("send");
        if to.recv_within(&mut got, Duration::from_millis(100)).expect("receive").is_some() {
            assert_eq!(got, frame);
            return;
        }
    }
    panic!("nothing arrived");
}

fn unaccounted(stats: &Value) -> i64 {
    let ports = stats["ports"].as_array().expect("ports").iter().chain([&stats["removed"]]);
    ports
        .map(|p| {
            let count = |key: &str| p[key].as_i64().unwrap_or_else(|| panic!("no {key} in {p}"));
            let drops: i64 = p["drops"].as_object().expect("drops").values().filter_map(Value::as_i64).sum();
            count("rx_packets") + count("flood_copies") - count("tx_packets") - drops
        })
        .sum()
}

fn assert_accounted(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = daemon.ask_json(&["stats", "--json"]);
        if unaccounted(&stats) == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{stats}");
    }
}

#[test]
fn frames_are_forwarded_learned_and_counted() {
    let sockets = tempfile::tempdir().expect("a folder");
    let path = |name: &str| sockets.path().join(name);
    let spec = |name: &str| format!("{name}=vhost-user:{}", path(name).display());
    let daemon = Daemon::start(&["--port", &spec("a"), "--port", &spec("b")]);
    daemon.order(&["port", "add", &spec("c")]);
    let (mut a, mut b, mut c) = (guest(&path("a")), guest(&path("b")), guest(&path("c")));
    send_until_heard(&mut a, &mut b, &frame(BROADCAST, mac(1)));
    send_until_heard(&mut b, &mut a, &frame(mac(1), mac(2)));
    send_until_heard(&mut c, &mut a, &frame(mac(1), mac(3)));
    assert_accounted(&daemon);

    let list = daemon.ask_json(&["fdb", "list", "--json"]);
    let learned: Vec<_> =
        list.as_array().unwrap().iter().map(|e| (e["mac"].as_str(), e["port"].as_str())).collect();
    let expected = [("02:00:00:00:00:01", "a"), ("02:00:00:00:00:02", "b"), ("02:00:00:00:00:03", "c")];
    assert_eq!(learned, expected.map(|(mac, port)| (Some(mac), Some(port))));
    assert_eq!(daemon.ask_json(&["port", "show", "c", "--json"])["link"], "up");

    daemon.order(&["port", "del", "c"]);
    assert_accounted(&daemon);
    assert_eq!(daemon.ask_json(&["fdb", "list", "--json"]).as_array().map(Vec::len), Some(2));
    daemon.order(&["fdb", "flush"]);
    assert_eq!(daemon.ask_json(&["fdb", "list", "--json"]), serde_json::json!([]));
    send_until_heard(&mut a, &mut b, &frame(mac(2), mac(1)));
    assert_accounted(&daemon);
    let (status, _, _) = daemon.stop();
    assert!(status.success());
    assert!(!path("a").exists() && !path("b").exists() && !path("c").exists());
}

/// The stage's packets, of the only lcore, and that it cost cycles.
fn packets_of(stages: &Value, stage: &str, port: &Value) -> u64 {
    let all = stages["lcores"][0]["stages"].as_array().expect("stages");
    let found = all.iter().find(|s| s["stage"] == stage && s["port"] == *port);
    let found = found.unwrap_or_else(|| panic!("no {stage} of {port} in {stages}"));
    assert!(found["cycles"].as_u64() > Some(0) && found["times"].as_u64() > Some(0), "{found}");
    found["packets"].as_u64().expect("packets")
}

#[test]
fn cycles_are_shown_by_stage_while_somebody_measures() {
    let sockets = tempfile::tempdir().expect("a folder");
    let path = |name: &str| sockets.path().join(name);
    let spec = |name: &str| format!("{name}=vhost-user:{}", path(name).display());
    let daemon = Daemon::start(&["--port", &spec("a"), "--port", &spec("b")]);
    let (mut a, mut b) = (guest(&path("a")), guest(&path("b")));
    send_until_heard(&mut a, &mut b, &frame(BROADCAST, mac(1)));
    let quiet = daemon.ask_json(&["stats", "--stages", "--json"]);
    let nothing = quiet["lcores"][0]["stages"].as_array().expect("stages");
    assert!(nothing.iter().all(|s| s["stage"] == "empty"), "nothing flows: {quiet}");

    let stages = std::thread::scope(|scope| {
        let measured = scope.spawn(|| daemon.ask_json(&["stats", "--stages", "2", "--json"]));
        while !measured.is_finished() {
            send_until_heard(&mut b, &mut a, &frame(mac(1), mac(2)));
        }
        measured.join().expect("no panic")
    });
    assert!(stages["seconds"].as_f64() >= Some(2.0), "{stages}");
    let packets = packets_of(&stages, "dequeue", &"b".into());
    assert!(packets > 0);
    for (stage, port) in [("look_up", Value::Null), ("sort", Value::Null), ("enqueue", "a".into())] {
        assert!(packets_of(&stages, stage, &port).abs_diff(packets) <= 1, "{stage}: {stages}");
    }
    assert!(packets_of(&stages, "publish", &Value::Null) > 0);
    let table = String::from_utf8(daemon.ask(&["stats", "--stages"]).stdout).expect("text");
    assert!(table.contains("CYCLES/PACKET") && table.contains("all"), "{table}");
    assert!(daemon.stop().0.success());
}

#[test]
fn who_measures_disturbs_nobody_else_who_does() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let ask = |seconds: u32| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"stages","params":{{"seconds":{seconds}}}}}"#)
    };
    for seconds in [0, 61] {
        assert_eq!(daemon.connect().call(&ask(seconds))["error"]["code"], -32602, "{seconds} seconds");
    }
    let visits = |answer: &Value| answer["result"]["lcores"][0]["stages"][0]["times"].as_u64().unwrap_or(0);
    let mut longer = daemon.connect();
    longer.send(format!("{}\n", ask(4)).as_bytes()).expect("send");
    // One that is answered and one that goes away, within the longer one's time.
    daemon.connect().send(format!("{}\n", ask(1)).as_bytes()).expect("send");
    let shorter = visits(&daemon.connect().call(&ask(1)));
    let whole = visits(&longer.answer().expect("an answer"));
    assert!(shorter > 0 && whole > 2 * shorter, "{shorter} in one second, {whole} in four");
    assert!(daemon.stop().0.success());
}

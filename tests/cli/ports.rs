//! Ports of a running daemon: added, shown, counted, removed.

use crate::daemon::{Daemon, assert_refused};

#[test]
fn added_listed_shown_and_removed() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let vm = daemon.dir().join("vm.sock");
    daemon.order(&["port", "add", "b=loopback"]);
    daemon.order(&["port", "add", &format!("vm=vhost-user:{}", vm.display())]);
    assert!(vm.exists());
    let list = String::from_utf8(daemon.ask(&["port", "list"]).stdout).expect("text");
    assert_eq!(list.lines().count(), 4, "{list}");
    let shown = String::from_utf8(daemon.ask(&["port", "show", "vm"]).stdout).expect("text");
    assert!(shown.contains("vhost-user") && shown.contains("down"), "{shown}");
    daemon.order(&["port", "del", "vm"]);
    assert!(!vm.exists());
    daemon.order(&["port", "del", "b"]);
    daemon.order(&["port", "add", "b=null"]);
    assert_eq!(daemon.ask_json(&["port", "show", "b", "--json"])["kind"], "null");
    assert!(daemon.stop().0.success());
}

#[test]
fn what_cannot_be_done_is_said() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    assert!(assert_refused(&daemon.ask(&["port", "add", "a=null"]), 1).contains("already"));
    assert!(assert_refused(&daemon.ask(&["port", "del", "z"]), 1).contains("no port z"));
    assert!(assert_refused(&daemon.ask(&["port", "show", "z"]), 1).contains("no port z"));
    assert!(
        assert_refused(&daemon.ask(&["port", "add", "p=pcap:rx=/no/such/file"]), 1).contains("/no/such/file")
    );
    assert_eq!(daemon.ask_json(&["port", "list", "--json"]).as_array().map(Vec::len), Some(1));
    assert!(daemon.stop().0.success());
}

#[test]
fn many_times_added_and_removed() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut client = daemon.connect();
    for n in 0..200 {
        let add = format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"port.add","params":{{"name":"x","spec":"loopback"}}}}"#
        );
        let del = format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"port.del","params":{{"name":"x"}}}}"#);
        for line in [add, del] {
            let answer = client.call(&line);
            assert!(answer["error"].is_null(), "{n}: {answer}");
        }
    }
    let stats = daemon.ask_json(&["stats", "--json"]);
    assert_eq!(stats["ports"].as_array().map(Vec::len), Some(1));
    assert!(daemon.stop().0.success());
}

#[test]
fn stats_have_their_names() {
    let daemon = Daemon::start(&["--port", "a=null", "--port", "b=loopback", "--lcores", "0"]);
    let stats = daemon.ask_json(&["stats", "--json"]);
    let ports = stats["ports"].as_array().expect("ports");
    assert_eq!(ports.len(), 2);
    for port in ports {
        assert!(port["name"].is_string() && port["kind"].is_string() && port["drops"].is_object(), "{port}");
        assert!(["up", "down"].contains(&port["link"].as_str().expect("a link")), "{port}");
        for key in ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "flood_copies"] {
            assert!(port[key].is_u64(), "{key} of {port}");
        }
        assert!(port["rx_queues"].as_array().is_some_and(|q| !q.is_empty()), "{port}");
    }
    let lcore = &stats["lcores"][0];
    for key in ["id", "cpu", "polls", "packets", "busy_cycles", "idle_cycles"] {
        assert!(lcore[key].is_u64(), "{key} of {lcore}");
    }
    assert_eq!((&lcore["id"], &lcore["cpu"]), (&0.into(), &0.into()));
    for key in ["total", "free", "cached", "out"] {
        assert!(stats["mempool"][key].is_u64(), "{key}");
    }
    assert!(stats["fdb"]["entries"].is_u64() && stats["removed"]["rx_packets"].is_u64());
    let text = String::from_utf8(daemon.ask(&["stats"]).stdout).expect("text");
    assert!(text.contains("loopback") && text.contains("LCORE"), "{text}");
    let list = String::from_utf8(daemon.ask(&["fdb", "list"]).stdout).expect("text");
    assert_eq!(list.lines().count(), 1, "{list}");
    daemon.order(&["fdb", "flush"]);
    assert!(daemon.stop().0.success());
}

//! The control socket against clients that are no good (S19).

use serde_json::Value;

use crate::daemon::{Client, Daemon};

const GOOD: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"method":"port.list","params":{}}"#,
    r#"{"jsonrpc":"2.0","id":"x","method":"port.add","params":{"name":"n1","spec":"null"}}"#,
    r#"{"jsonrpc":"2.0","id":2,"method":"port.show","params":{"name":"a"}}"#,
    r#"{"jsonrpc":"2.0","id":3,"method":"port.del","params":{"name":"n1"}}"#,
    r#"{"jsonrpc":"2.0","id":4,"method":"fdb.list"}"#,
    r#"{"jsonrpc":"2.0","id":5,"method":"fdb.flush"}"#,
    r#"{"jsonrpc":"2.0","id":6,"method":"stats","params":{}}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"version"}"#,
];

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[test]
fn every_method_answers() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut client = daemon.connect();
    for line in GOOD {
        let answer = client.call(line);
        assert!(
            answer["jsonrpc"] == "2.0" && !answer["id"].is_null() && answer.get("result").is_some(),
            "{line}: {answer}"
        );
    }
    assert!(daemon.stop().0.success());
}

#[test]
fn errors_have_their_codes() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut client = daemon.connect();
    for (line, expected) in [
        ("garbage", -32700),
        ("\u{0}\u{1}", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"stats"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"reboot"}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"stats","params":{"x":1}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"q"}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"q","spec":"floppy"}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"a/b","spec":"null"}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"q","spec":"null","x":1}}"#, -32602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.del","params":{"name":"zz"}}"#, -32001),
        (r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"a","spec":"null"}}"#, -32002),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"port.add","params":{"name":"q","spec":"pcap:rx=/no/such"}}"#,
            -32003,
        ),
    ] {
        let answer = client.call(line);
        assert_eq!(code(&answer), expected, "{line}: {answer}");
    }
    assert!(daemon.stop().0.success());
}

/// Deterministic noise: xorshift.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn spoil(&mut self, line: &str) -> Vec<u8> {
        let mut bytes = line.as_bytes().to_vec();
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len());
            match self.next(4) {
                0 => bytes[at] = self.next(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, b"{}[]\",:0\\"[self.next(9)]),
                _ => drop(bytes.remove(at).to_string()),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        bytes.push(b'\n');
        bytes
    }
}

#[test]
fn s19_spoilt_requests_do_no_harm() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut noise = Noise(0x706f_6c64_6572);
    let mut client = daemon.connect();
    for round in 0..3000 {
        let line = noise.spoil(GOOD[round % GOOD.len()]);
        client.send(&line).expect("send");
        // A spoilt line may have become a notification, an empty line or two lines: ask something known, and read up to
        // its answer.
        let known = format!("known-{round}");
        client
            .send(format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{known}\",\"method\":\"version\"}}\n").as_bytes())
            .expect("send");
        while read(&mut client)["id"] != known.as_str() {}
    }
    assert!(daemon.stop().0.success());
}

fn read(client: &mut Client) -> Value {
    client.answer().expect("the connection stays")
}

#[test]
fn an_endless_line_is_cut_off_and_others_are_served() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut client = daemon.connect();
    // The daemon may hang up before all of it is sent.
    let _ = client.send(&vec![b'x'; 1 << 20]);
    if let Some(answer) = client.answer() {
        assert_eq!(code(&answer), -32600);
    }
    assert!(client.answer().is_none());
    assert!(daemon.connect().call(GOOD[0])["error"].is_null());
    assert!(daemon.stop().0.success());
}

#[test]
fn clients_are_limited_and_places_come_back() {
    let daemon = Daemon::start(&["--port", "a=null"]);
    let mut held: Vec<Client> = (0..64).map(|_| daemon.connect()).collect();
    for client in &mut held {
        assert!(client.call(GOOD[0])["error"].is_null());
    }
    assert_eq!(code(&daemon.connect().answer().expect("a reason")), -32004);
    drop(held);
    let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
    loop {
        let mut client = daemon.connect();
        let _ = client.send(format!("{}\n", GOOD[0]).as_bytes());
        if client.answer().is_some_and(|a| a["error"].is_null()) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "no place came back");
    }
    assert!(daemon.stop().0.success());
}

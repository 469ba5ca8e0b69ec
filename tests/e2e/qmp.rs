//! QEMU's machine protocol: one JSON object a line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deadline::{secs, wait_for};

pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = wait_for("QEMU's monitor socket", secs(10), || UnixStream::connect(path).ok());
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        qmp.read(Instant::now() + secs(30));
        qmp.run("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command; panics on an error answer.
    #[expect(clippy::needless_pass_by_value, reason = "json!() makes a value to give away")]
    pub(crate) fn run(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{line}").expect("write to QEMU's monitor");
        let end = Instant::now() + secs(30);
        loop {
            let mut answer = self.read(end);
            assert!(answer.get("error").is_none(), "{line}: {answer}");
            if let Some(value) = answer.get_mut("return") {
                return value.take();
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event that came since the last wait for it.
    pub(crate) fn wait_event(&mut self, name: &str, limit: Duration) -> Value {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|e| e["event"] == name) {
                return self.events.remove(at);
            }
            let event = self.read(end);
            self.events.push(event);
        }
    }

    fn read(&mut self, end: Instant) -> Value {
        let left = end.checked_duration_since(Instant::now()).expect("QEMU's monitor is silent");
        self.stream.get_ref().set_read_timeout(Some(left)).expect("set a time-out");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("QEMU's monitor is silent");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("QEMU's monitor said {line:?}: {e}"))
    }
}

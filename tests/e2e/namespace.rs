//! Network namespaces of the host: a machine with its own cards, as far as the network goes.

use std::process::Command;

use crate::undo::{Undo, next_number};

/// A network namespace of the test's own.
pub(crate) struct Namespace {
    name: String,
    _undo: Undo,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let name = format!("polder-e2e-{}-{}", std::process::id(), next_number());
        let status = Command::new("ip").args(["netns", "add", &name]).status().expect("start ip");
        assert!(status.success(), "ip netns add {name}");
        let undo = Undo::with(&format!("ip netns delete {name}"));
        let space = Self { name, _undo: undo };
        // Without IPv6 the host does not speak on its own either.
        space.run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
        space
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run `program` inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs one line of busybox's shell inside; it must succeed. Returns what it wrote.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.command("busybox").args(["sh", "-c", line]).output().expect("start ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

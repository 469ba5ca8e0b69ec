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
        self.inside(&Command::new(program))
    }

    /// The same command inside.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Runs iproute2's `ip ARGS` inside (busybox's cannot make all kinds of interfaces); returns what it wrote.
    pub(crate) fn ip(&self, args: &str) -> String {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.name]).args(args.split(' ')).output().expect("start ip");
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs one line of busybox's shell inside; it must succeed. Returns what it wrote.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.command("busybox").args(["sh", "-c", line]).output().expect("start ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

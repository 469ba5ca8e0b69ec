//! A TAP port: the host's own network stack talks with a guest.

use std::process::Command;

use crate::guest::{Guest, Spec, ip};
use crate::machine::{needs_program, needs_root};
use crate::polder::{Polder, Port, binary, socket_path, vhost_user};
use crate::traffic::{PingCount, ping_loses_nothing};
use crate::undo::Undo;

#[test]
#[ignore = "needs root and QEMU: run ./test"]
fn host_and_guest_ping_each_other() {
    needs_root();
    needs_program("ip");
    let space = Namespace::new(&format!("polder-e2e-{}", std::process::id()));
    let socket = socket_path("vm");
    let ports = [Port::new("tap0", "tap:ptap0".to_owned()), Port::new("vm", vhost_user(&socket, 1))];
    let polder = Polder::run_under(space.command(binary()), &ports);
    space.run("ip address add 10.77.0.100/24 dev ptap0");
    space.run("ip link set ptap0 up");

    let mut guest = Guest::boot(Spec::new("vm", 1, &socket));
    let pings = space.run(&format!("ping -q -c 20 -i 0.05 -W 5 {}", ip(1)));
    assert_eq!(PingCount::parse(&pings), PingCount { sent: 20, received: 20 });
    ping_loses_nothing(&mut guest, "10.77.0.100", 56);
    polder.assert_every_packet_counted();
    drop(guest);
    polder.stop();
}

/// A network namespace of the test's own.
struct Namespace {
    name: String,
    _undo: Undo,
}

impl Namespace {
    fn new(name: &str) -> Self {
        let status = Command::new("ip").args(["netns", "add", name]).status().expect("start ip");
        assert!(status.success(), "ip netns add {name}");
        let space = Self { name: name.to_owned(), _undo: Undo::with(&format!("ip netns delete {name}")) };
        // Without IPv6 the host does not speak on its own either.
        space.run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1");
        space
    }

    /// A command that will run `program` inside.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs one line of busybox's shell inside; it must succeed. Returns what it wrote.
    fn run(&self, line: &str) -> String {
        let output = self.command("busybox").args(["sh", "-c", line]).output().expect("start ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

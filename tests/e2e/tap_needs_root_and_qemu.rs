//! A TAP port: the host's own network stack talks with a guest.

use crate::guest::{Guest, Spec, ip};
use crate::machine::{needs_program, needs_root};
use crate::namespace::Namespace;
use crate::polder::{Polder, Port, binary, socket_path, vhost_user};
use crate::traffic::{PingCount, ping_loses_nothing};

#[test]
#[ignore = "needs root and QEMU: run ./test"]
fn host_and_guest_ping_each_other() {
    needs_root();
    needs_program("ip");
    let space = Namespace::new();
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

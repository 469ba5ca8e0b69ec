//! QEMU listens, Polder connects: the switch may die and come back under running guests.

use crate::guest::{Guest, Listener, Spec};
use crate::polder::{Polder, Port, socket_path};
use crate::traffic::{ping_comes_back, ping_loses_nothing, start_flood, stop_flood};

#[test]
#[ignore = "needs QEMU: run ./test"]
fn k01_k04_k05_guests_survive_a_killed_switch() {
    let sockets = [socket_path("a"), socket_path("b")];
    let ports = [client_port("a", &sockets[0]), client_port("b", &sockets[1])];
    let polder = Polder::run(&ports);
    let mut guests = Guest::boot_all(vec![listening("a", 1, &sockets[0]), listening("b", 2, &sockets[1])]);
    let [a, b] = &mut guests[..] else { panic!("two guests") };
    ping_loses_nothing(a, &b.ip(), 56);

    start_flood(a, b);
    polder.kill9();
    let polder = Polder::run(&ports);
    ping_comes_back(a, &b.ip());
    stop_flood(a);
    stop_flood(b);
    ping_loses_nothing(b, &a.ip(), 56);
    polder.assert_every_packet_counted();
    polder.stop();
}

fn client_port(name: &str, socket: &std::path::Path) -> Port {
    Port::new(name, format!("vhost-user:{},client", socket.display()))
}

fn listening(name: &'static str, number: u8, socket: &std::path::Path) -> Spec {
    Spec { listener: Listener::Qemu, ..Spec::new(name, number, socket) }
}

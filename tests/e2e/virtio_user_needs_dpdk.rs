//! DPDK's virtio driver on Polder: each of its paths on split rings, with counts on both sides compared.

use crate::deadline::{secs, wait_for};
use crate::polder::{Polder, Port, socket_path, vhost_user};
use crate::testpmd::{DriverPath, PortCount, Testpmd};

#[test]
#[ignore = "needs DPDK: run ./test"]
fn mergeable() {
    bounce(DriverPath {
        mergeable: true,
        in_order: false,
        vectorized: false,
        says: "mergeable buffer Rx path",
    });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn mergeable_in_order() {
    bounce(DriverPath { mergeable: true, in_order: true, vectorized: false, says: "inorder Rx path" });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn not_mergeable() {
    bounce(DriverPath { mergeable: false, in_order: false, vectorized: false, says: "standard Rx path" });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn not_mergeable_in_order() {
    bounce(DriverPath { mergeable: false, in_order: true, vectorized: false, says: "inorder Rx path" });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn vectorized() {
    bounce(DriverPath { mergeable: false, in_order: false, vectorized: true, says: "vectorized Rx path" });
}

/// Packets bounce between testpmd's two ports through the switch; afterwards both have counted the same.
fn bounce(path: DriverPath) {
    let sockets = [socket_path("p0"), socket_path("p1")];
    let ports = [Port::new("p0", vhost_user(&sockets[0], 1)), Port::new("p1", vhost_user(&sockets[1], 1))];
    let polder = Polder::run(&ports);
    let mut testpmd = Testpmd::start(path, [&sockets[0], &sockets[1]]);
    assert!(
        testpmd.output().contains(path.says),
        "testpmd takes another path than {path:?}: {}",
        testpmd.output()
    );

    wait_for("links up", secs(10), || polder.stats().ports.iter().all(|port| port.link_up).then_some(()));
    testpmd.bounce(4, 20_000);
    let counts = testpmd.counts();
    eprintln!("testpmd: {counts:?}");
    compare(&polder, counts);
    testpmd.quit();
    polder.assert_every_packet_counted();
    polder.stop();
}

/// What a port of testpmd sent, the switch received there, and the other way round.
fn compare(polder: &Polder, counts: [PortCount; 2]) {
    polder.assert_every_packet_counted();
    let stats = polder.stats();
    assert_eq!(counts[0].tx_packets, counts[1].rx_packets, "from p0 to p1");
    assert_eq!(counts[1].tx_packets, counts[0].rx_packets, "from p1 to p0");
    for (name, count) in ["p0", "p1"].into_iter().zip(counts) {
        let port = stats.port(name);
        let ours = PortCount { rx_packets: port.tx_packets, tx_packets: port.rx_packets };
        assert_eq!(ours, count, "{name}: the switch's counts and testpmd's");
        assert_eq!(port.dropped(), 0, "{name}: {:?}", port.drops);
    }
}

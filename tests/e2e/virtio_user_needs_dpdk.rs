//! DPDK's virtio driver on Polder: each of its paths on split and on packed rings, with counts on both sides compared.

use crate::deadline::{secs, wait_for};
use crate::polder::{Polder, Port, socket_path, vhost_user};
use crate::testpmd::{DriverPath, PortCount, Testpmd};

/// Nothing but the plainest split ring.
const SPLIT: DriverPath = DriverPath {
    packed: false,
    mergeable: false,
    in_order: false,
    vectorized: false,
    says: "using standard Rx path",
};
/// The same with a packed ring.
const PACKED: DriverPath = DriverPath { packed: true, says: "using packed ring standard Rx path", ..SPLIT };

#[test]
#[ignore = "needs DPDK: run ./test"]
fn mergeable() {
    bounce(DriverPath { mergeable: true, says: "using mergeable buffer Rx path", ..SPLIT });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn mergeable_in_order() {
    bounce(DriverPath { mergeable: true, in_order: true, says: "using inorder Rx path", ..SPLIT });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn not_mergeable() {
    bounce(SPLIT);
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn not_mergeable_in_order() {
    bounce(DriverPath { in_order: true, says: "using inorder Rx path", ..SPLIT });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn vectorized() {
    bounce(DriverPath { vectorized: true, says: "using vectorized Rx path", ..SPLIT });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn packed_mergeable() {
    let says = "using packed ring mergeable buffer Rx path";
    bounce(DriverPath { mergeable: true, says, ..PACKED });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn packed_mergeable_in_order() {
    let says = "using packed ring mergeable buffer Rx path";
    bounce(DriverPath { mergeable: true, in_order: true, says, ..PACKED });
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn packed_not_mergeable() {
    bounce(PACKED);
}

#[test]
#[ignore = "needs DPDK: run ./test"]
fn packed_not_mergeable_in_order() {
    bounce(DriverPath { in_order: true, ..PACKED });
}

/// On a processor without AVX-512 DPDK says that it can't, and takes the standard path.
#[test]
#[ignore = "needs DPDK: run ./test"]
fn packed_vectorized() {
    let has_vectors = std::arch::is_x86_feature_detected!("avx512f");
    let says = if has_vectors { "using packed ring vectorized Rx path" } else { PACKED.says };
    bounce(DriverPath { in_order: true, vectorized: true, says, ..PACKED });
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

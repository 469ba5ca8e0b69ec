use std::thread;
use std::time::{Duration, Instant};

use mbuf::Burst;
use pmd::offload::OffloadSet;
use pmd::vdev::af_packet::{AfPacketConfig, AfPacketPort};
use pmd::{DropReason, Link, Port, QueueEnv};

use crate::frames::{burst, bytes, numbered, numbers, pool};
use crate::namespace::Namespace;
use crate::traffic::{Seen, tcp_through};

/// A namespace with an interface `e0` of ours, whose other end `p0` is the port.
fn wired(addresses: &[&str], queues: usize) -> (Namespace, AfPacketPort) {
    let namespace = Namespace::new("afp");
    namespace.ip("link add e0 type veth peer name p0");
    namespace.ip("link set e0 up");
    for address in addresses {
        namespace.ip(&format!("addr add {address} dev e0"));
    }
    let config = AfPacketConfig { interface: "p0".into(), queues };
    let port = namespace.run(|| AfPacketPort::new(&config).unwrap());
    (namespace, port)
}

fn through(accepted: OffloadSet, queues: usize, tagged: bool) -> Seen {
    let (a, mut a_port) = wired(&["10.9.0.1/24"], queues);
    let (b, mut b_port) = wired(&["10.9.0.2/24"], queues);
    if tagged {
        for (namespace, n) in [(&a, 1), (&b, 2)] {
            namespace.ip("link add link e0 name e0.7 type vlan id 7");
            namespace.ip(&format!("addr add 10.7.0.{n}/24 dev e0.7"));
            namespace.ip("link set e0.7 up");
        }
    }
    let server = if tagged { "10.7.0.2:5000" } else { "10.9.0.2:5000" };
    let seen = tcp_through((&a, &mut a_port), (&b, &mut b_port), server.parse().unwrap(), accepted);
    for port in [&a_port, &b_port] {
        let counters = port.counters();
        let drops = |r: DropReason| {
            counters.tx.iter().chain(&counters.rx).map(|q| q.drops[r as usize].get()).sum::<u64>()
        };
        assert_eq!(
            drops(DropReason::TxError) + drops(DropReason::RxBadOffload) + drops(DropReason::TxTooLong),
            0
        );
    }
    seen
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_carries_tcp_with_all_offloads() {
    let seen = through(OffloadSet::ALL, 1, false);
    assert!(seen.to_be_cut > 50, "{seen:?}");
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_carries_tcp_cut_in_software() {
    let seen = through(OffloadSet::NONE, 1, false);
    assert!(seen.to_be_cut > 50, "{seen:?}");
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_puts_vlan_tags_back() {
    let seen = through(OffloadSet::ALL, 1, true);
    assert!(seen.tagged > 50 && seen.to_be_cut > 50, "{seen:?}");
    let seen = through(OffloadSet::NONE, 1, true);
    assert!(seen.tagged > 50 && seen.to_be_cut > 50, "{seen:?}");
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_carries_tcp_over_several_queues() {
    through(OffloadSet::ALL, 3, false);
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_gets_what_comes_in_and_not_what_it_sends() {
    let namespace = Namespace::new("afp");
    namespace.ip("link add p0 type veth peer name p1");
    let open = |interface: &str| {
        let config = AfPacketConfig { interface: interface.into(), queues: 1 };
        namespace.run(|| AfPacketPort::new(&config).unwrap())
    };
    let (mut a, mut b) = (open("p0"), open("p1"));
    let pool = pool(512);
    let mut aq = a.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut bq = b.open(QueueEnv { pool, port: 2 }).unwrap();
    assert_eq!((a.link(), a.max_frame()), (Link::Up, 1514));
    let mut sent = burst(pool, 20);
    assert_eq!(aq.tx[0].tx_burst(&mut sent), 20);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut got = Vec::new();
    while got.len() < 20 && Instant::now() < deadline {
        let mut burst = Burst::new();
        bq.rx[0].rx_burst(&mut burst);
        // The kernel's own frames (router solicitations ...) are broadcast by nobody here.
        got.extend(burst.iter().filter(|m| m.data()[..6] == [0xff; 6]).map(|m| m.data()[20]));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(got, (0..20).collect::<Vec<u8>>());
    let mut own = Burst::new();
    aq.rx[0].rx_burst(&mut own);
    assert!(own.iter().map(bytes).all(|f| f[..6] != [0xff; 6]), "{:?}", numbers(&own));
    drop(own);
    let mut long = Burst::new();
    for len in [1514, 1519, 1600] {
        long.push(numbered(pool, 1, len)).unwrap();
    }
    assert_eq!(aq.tx[0].tx_burst(&mut long), 3);
    assert_eq!(a.counters().tx[0].drops[DropReason::TxTooLong as usize].get(), 2);
    assert_eq!(a.counters().tx[0].packets.get(), 21);
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_on_an_interface_that_is_down_or_gone() {
    let namespace = Namespace::new("afp");
    namespace.ip("link add p0 type veth peer name p1");
    let config = AfPacketConfig { interface: "p0".into(), queues: 1 };
    let mut port = namespace.run(|| AfPacketPort::new(&config).unwrap());
    let pool = pool(128);
    let mut q = port.open(QueueEnv { pool, port: 1 }).unwrap();
    for args in ["link set p0 down", "link del p0"] {
        namespace.ip(args);
        assert_eq!(port.link(), Link::Down);
        let mut sent = burst(pool, 4);
        assert_eq!(q.tx[0].tx_burst(&mut sent), 4);
        let mut got = Burst::new();
        assert_eq!(q.rx[0].rx_burst(&mut got), 0);
    }
    assert_eq!(port.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), 8);
    let missing = AfPacketConfig { interface: "nosuch".into(), queues: 1 };
    let error = namespace.run(|| AfPacketPort::new(&missing).unwrap_err().to_string());
    assert!(error.contains("nosuch") && error.contains("ip link"), "{error}");
}

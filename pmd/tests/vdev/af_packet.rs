use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use mbuf::{Burst, Checksum, GsoKind, Mbuf, Offload};
use pmd::offload::OffloadSet;
use pmd::vdev::af_packet::{AfPacketConfig, AfPacketPort};
use pmd::{DropReason, Link, Port, QueueEnv, RxQueue};

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

fn through(accepted: OffloadSet, queues: usize) -> Seen {
    let (a, mut a_port) = wired(&["10.9.0.1/24"], queues);
    let (b, mut b_port) = wired(&["10.9.0.2/24"], queues);
    let seen = tcp_through((&a, &mut a_port), (&b, &mut b_port), "10.9.0.2:5000".parse().unwrap(), accepted);
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
    let seen = through(OffloadSet::ALL, 1);
    assert!(seen.to_be_cut > 50, "{seen:?}");
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_carries_tcp_cut_in_software() {
    let seen = through(OffloadSet::NONE, 1);
    assert!(seen.to_be_cut > 50, "{seen:?}");
}

/// A veth pair in one namespace, with a port on each end.
fn back_to_back() -> (Namespace, AfPacketPort, AfPacketPort) {
    let namespace = Namespace::new("afp");
    namespace.ip("link add p0 type veth peer name p1");
    let open = |interface: &str| {
        let config = AfPacketConfig { interface: interface.into(), queues: 1 };
        namespace.run(|| AfPacketPort::new(&config).unwrap())
    };
    let (a, b) = (open("p0"), open("p1"));
    (namespace, a, b)
}

/// Waits until `rx` gives `want` broadcasts; the kernel's own frames there are multicasts.
fn broadcasts(rx: &mut dyn RxQueue, want: usize) -> Vec<Mbuf<'static>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut got = Vec::new();
    while got.len() < want && Instant::now() < deadline {
        let mut burst = Burst::new();
        rx.rx_burst(&mut burst);
        got.extend(burst.drain().filter(|m| m.data()[..6] == [0xff; 6]).map(|m| m.own().unwrap()));
    }
    got
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_puts_vlan_tags_back() {
    let (_namespace, mut a, mut b) = back_to_back();
    let pool = pool(512);
    let mut aq = a.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut bq = b.open(QueueEnv { pool, port: 2 }).unwrap();
    let mut sent = Burst::new();
    for (tpid, tci) in [([0x81, 0], [0x60, 7]), ([0x88, 0xa8], [0, 9])] {
        let payload = vec![5; 4000];
        let builder =
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [0xff; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut frame = Vec::new();
        builder.tcp(1, 2, 3, 4).write(&mut frame, &payload).unwrap();
        frame.splice(12..12, [tpid[0], tpid[1], tci[0], tci[1]]);
        let mut mbuf = pool.alloc(0).unwrap();
        let (first, rest) = frame.split_at(2000);
        mbuf.append(2000).unwrap().copy_from_slice(first);
        for bytes in rest.chunks(2000) {
            let mut more = pool.alloc(0).unwrap();
            more.append(bytes.len()).unwrap().copy_from_slice(bytes);
            mbuf.chain(more).unwrap();
        }
        let mut offload = Offload::NONE;
        (offload.checksum, offload.csum_start, offload.csum_offset) = (Checksum::Partial, 38, 16);
        (offload.gso, offload.gso_size, offload.hdr_len) = (GsoKind::TcpV4, 1000, 58);
        mbuf.set_offload(offload);
        sent.push(mbuf).unwrap();
    }
    let before: Vec<_> = sent.iter().map(|m| (bytes(m), *m.offload())).collect();
    assert_eq!(aq.tx[0].tx_burst(&mut sent), 2);
    let got = broadcasts(bq.rx[0].as_mut(), 2);
    assert_eq!(got.iter().map(|m| (bytes(m), *m.offload())).collect::<Vec<_>>(), before);
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_carries_tcp_over_several_queues() {
    through(OffloadSet::ALL, 3);
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_packet_gets_what_comes_in_and_not_what_it_sends() {
    let (_namespace, mut a, mut b) = back_to_back();
    let pool = pool(512);
    let mut aq = a.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut bq = b.open(QueueEnv { pool, port: 2 }).unwrap();
    assert_eq!((a.link(), a.max_frame()), (Link::Up, 1514));
    let mut sent = burst(pool, 20);
    assert_eq!(aq.tx[0].tx_burst(&mut sent), 20);
    let got: Vec<u8> = broadcasts(bq.rx[0].as_mut(), 20).iter().map(|m| m.data()[20]).collect();
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
    namespace.ip("link set p0 down");
    namespace.ip("link set p0 up");
    let mut waiting = burst(pool, 4);
    assert_eq!(q.tx[0].tx_burst(&mut waiting), 0, "its peer is down: no carrier, no room");
    namespace.ip("link set p1 up");
    namespace.ip("link set p0 down");
    namespace.ip("link set p0 up");
    assert_eq!(q.tx[0].tx_burst(&mut waiting), 4, "what happened before does not matter");
    assert_eq!(port.counters().tx[0].packets.get(), 4);
    for args in ["link set p0 down", "link del p0"] {
        namespace.ip(args);
        assert_eq!(port.link(), Link::Down);
        let mut sent = burst(pool, 4);
        assert_eq!(q.tx[0].tx_burst(&mut sent), 4);
        let mut got = Burst::new();
        q.rx[0].rx_burst(&mut got);
    }
    assert_eq!(port.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), 8);
    let missing = AfPacketConfig { interface: "nosuch".into(), queues: 1 };
    let error = namespace.run(|| AfPacketPort::new(&missing).unwrap_err().to_string());
    assert!(error.contains("nosuch") && error.contains("ip link"), "{error}");
}

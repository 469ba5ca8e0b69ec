#![expect(unsafe_code, reason = "UDP_SEGMENT has no safe wrapper")]
// UNSAFETY: one setsockopt with an int of ours.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mbuf::Burst;
use pmd::offload::OffloadSet;
use pmd::vdev::tap::{TapConfig, TapPort};
use pmd::{DropReason, Link, Port, QueueEnv, Queues};

use crate::frames::{bytes, pool};
use crate::namespace::Namespace;
use crate::traffic::{joined, tcp_through};

fn tap(namespace: &Namespace, interface: &str, queues: usize) -> TapPort {
    namespace.run(|| TapPort::new(&TapConfig { interface: interface.into(), queues }).unwrap())
}

/// Sends `frame` and waits until a frame comes that `wanted` takes.
fn exchange(
    queues: &mut Queues,
    frame: &[u8],
    wanted: impl Fn(&[u8]) -> bool,
    pool: &'static mbuf::Mempool,
) -> Vec<u8> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut out = Burst::new();
    let mut mbuf = pool.alloc(0).unwrap();
    mbuf.append(frame.len()).unwrap().copy_from_slice(frame);
    out.push(mbuf).unwrap();
    assert_eq!(queues.tx[0].tx_burst(&mut out), 1);
    while Instant::now() < deadline {
        for rx in &mut queues.rx {
            let mut burst = Burst::new();
            rx.rx_burst(&mut burst);
            if let Some(found) = burst.iter().map(bytes).find(|f| wanted(f)) {
                return found;
            }
        }
    }
    panic!("no answer within 5 s");
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn arp_request() -> Vec<u8> {
    let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&head[..], &MAC, &fixed, &MAC, &[10, 9, 0, 2], &[0; 6], &[10, 9, 0, 1]].concat()
}

fn echo_request(to: [u8; 6]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(MAC, to).ipv4([10, 9, 0, 2], [10, 9, 0, 1], 64);
    let mut frame = Vec::new();
    builder.icmpv4_echo_request(77, 1).write(&mut frame, b"polder").unwrap();
    frame
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_answers_arp_and_ping() {
    let namespace = Namespace::new("tap");
    for queues in [1, 3] {
        let mut port = tap(&namespace, "t0", queues);
        namespace.ip("addr add 10.9.0.1/24 dev t0");
        let pool = pool(512);
        let mut q = port.open(QueueEnv { pool, port: 4 }).unwrap();
        assert_eq!((q.rx.len(), port.link()), (queues, Link::Up));
        let is_reply = |f: &[u8]| f[12..14] == [8, 6] && f[20..22] == [0, 2];
        let reply = exchange(&mut q, &arp_request(), is_reply, pool);
        let mac: [u8; 6] = reply[6..12].try_into().unwrap();
        let is_echo = |f: &[u8]| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 0;
        let echo = exchange(&mut q, &echo_request(mac), is_echo, pool);
        assert!(echo.ends_with(b"polder"));
        assert!(port.counters().tx[0].packets.get() >= 2);
        drop(q);
        assert_eq!(pool.balance().out, 0);
    }
}

/// Two namespaces with a TAP each, of the same network.
fn pair(queues: usize) -> [(Namespace, TapPort); 2] {
    ["1", "2"].map(|n| {
        let namespace = Namespace::new("tap");
        let port = tap(&namespace, "t0", queues);
        namespace.ip(&format!("addr add 10.9.0.{n}/24 dev t0"));
        namespace.ip(&format!("addr add fd00:9::{n}/64 dev t0 nodad"));
        (namespace, port)
    })
}

fn through_taps(queues: usize, server: &str, accepted: OffloadSet) {
    let [(a, mut a_port), (b, mut b_port)] = pair(queues);
    let seen = tcp_through((&a, &mut a_port), (&b, &mut b_port), server.parse().unwrap(), accepted);
    assert!(seen.to_be_cut > 100, "the kernel leaves segmentation to us: {seen:?}");
    for port in [&a_port, &b_port] {
        let counters = port.counters();
        let drops = |reason: DropReason| {
            counters.tx.iter().chain(&counters.rx).map(|q| q.drops[reason as usize].get()).sum::<u64>()
        };
        assert_eq!(
            drops(DropReason::TxError) + drops(DropReason::RxBadOffload) + drops(DropReason::TxOffload),
            0
        );
    }
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_carries_tcp_with_all_offloads() {
    through_taps(1, "10.9.0.2:5000", OffloadSet::ALL);
    through_taps(1, "[fd00:9::2]:5000", OffloadSet::ALL);
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_carries_tcp_cut_in_software() {
    through_taps(1, "10.9.0.2:5000", OffloadSet::NONE);
    through_taps(1, "[fd00:9::2]:5000", OffloadSet::NONE);
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_carries_tcp_over_several_queues() {
    through_taps(4, "10.9.0.2:5000", OffloadSet::ALL);
}

/// Has the kernel cut each datagram that is sent into such pieces.
fn set_udp_segment(socket: &UdpSocket, size: libc::c_int) {
    let len = size_of_val(&size) as libc::socklen_t;
    // SAFETY: an open socket; the kernel reads one int, lent to it for the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), len)
    };
    assert_eq!(done, 0);
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_carries_udp_segmentation() {
    for (server, accepted) in [
        ("10.9.0.2:5000", OffloadSet::ALL),
        ("10.9.0.2:5000", OffloadSet::NONE),
        ("[fd00:9::2]:5000", OffloadSet::ALL),
        ("[fd00:9::2]:5000", OffloadSet::NONE),
    ] {
        let [(a, mut a_port), (b, mut b_port)] = pair(1);
        let to = b.run(|| UdpSocket::bind(server).unwrap());
        to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let from =
            a.run(|| UdpSocket::bind(if server.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).unwrap());
        set_udp_segment(&from, 1000);
        let message: Vec<u8> = (0..20_300).map(|i: usize| (i / 1000) as u8).collect();
        let seen = joined(&mut a_port, &mut b_port, accepted, || {
            assert_eq!(from.send_to(&message, server).unwrap(), message.len());
            let mut got = [0; 3000];
            for piece in message.chunks(1000) {
                let n = to.recv(&mut got).unwrap();
                assert_eq!(got[..n], *piece);
            }
        });
        assert!(seen.to_be_cut == 1, "the kernel left it whole: {seen:?}");
    }
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_that_is_down_drops_and_says_so() {
    let namespace = Namespace::new("tap");
    let mut port = tap(&namespace, "t0", 1);
    let pool = pool(64);
    let mut q = port.open(QueueEnv { pool, port: 4 }).unwrap();
    namespace.ip("link set t0 down");
    assert_eq!(port.link(), Link::Down);
    assert_eq!(q.tx[0].tx_burst(&mut crate::frames::burst(pool, 3)), 3);
    assert_eq!(port.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), 3);
    namespace.ip("link set t0 up");
    assert_eq!(q.tx[0].tx_burst(&mut crate::frames::burst(pool, 3)), 3);
    assert_eq!(port.counters().tx[0].packets.get(), 3);
}

#[test]
#[ignore = "needs root"]
fn needs_root_tap_names_the_reason_why_not() {
    let namespace = Namespace::new("tap");
    namespace.ip("link add v0 type veth peer name v1");
    let refusal = |interface: &str, queues| {
        let config = TapConfig { interface: interface.into(), queues };
        namespace.run(|| TapPort::new(&config).unwrap_err().to_string())
    };
    assert!(refusal("v0", 1).contains("is no TAP"), "{}", refusal("v0", 1));
    let _first = tap(&namespace, "t0", 1);
    assert!(refusal("t0", 1).contains("another program"), "{}", refusal("t0", 1));
    assert!(refusal("t0", 2).contains("multi_queue"), "{}", refusal("t0", 2));
    namespace.ip("tuntap add t5 mode tap multi_queue");
    drop(tap(&namespace, "t5", 1));
    drop(tap(&namespace, "t5", 2));
}

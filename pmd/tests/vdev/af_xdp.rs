use std::thread;
use std::time::{Duration, Instant};

use mbuf::{Burst, Checksum, Mbuf, Mempool};
use pmd::offload::OffloadSet;
use pmd::vdev::af_xdp::{self, AfXdpConfig, Copying};
use pmd::{DropReason, Link, Port, QueueEnv, Queues};

use crate::frames::{bytes, pool};
use crate::namespace::Namespace;
use crate::traffic::{joined_queues, transfer};

fn config(interface: &str) -> AfXdpConfig {
    AfXdpConfig { interface: interface.into(), queues: 1, copying: None }
}

/// A port with its queues, made inside the namespace that its interface is in.
fn open(
    namespace: &Namespace,
    config: &AfXdpConfig,
    pool: &'static Mempool,
    number: u16,
) -> (Box<dyn Port>, Queues) {
    namespace.run(|| {
        let mut port = af_xdp::port(config).unwrap();
        let queues = port.open(QueueEnv { pool, port: number }).unwrap();
        wait_for("the link", || (port.link() == Link::Up).then_some(()));
        (port, queues)
    })
}

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A namespace with a veth pair `p0` and `p1`, both up, which speak of their own accord as little as can be.
fn pair(mtu: usize) -> Namespace {
    let namespace = Namespace::new("xdp");
    namespace.ip("link add p0 type veth peer name p1");
    for interface in ["p0", "p1"] {
        namespace.ip(&format!("link set {interface} mtu {mtu} addrgenmode none up"));
    }
    namespace
}

/// A broadcast of `len` bytes that tells its number and whose other bytes follow from it.
fn numbered(pool: &'static Mempool, number: u32, len: usize) -> Mbuf<'static> {
    let all: Vec<u8> = (0..len).map(|i| (i as u32 * 7 + number) as u8).collect();
    let mut packet: Option<Mbuf<'static>> = None;
    for piece in all.chunks(pool.data_room()) {
        let mut mbuf = pool.alloc(0).unwrap();
        mbuf.append(piece.len()).unwrap().copy_from_slice(piece);
        match &mut packet {
            None => packet = Some(mbuf),
            Some(head) => head.chain(mbuf).unwrap(),
        }
    }
    let mut packet = packet.unwrap();
    let head = packet.data_mut().unwrap();
    head[..6].fill(0xff);
    head[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    head[12..14].copy_from_slice(&[0x88, 0xb5]);
    head[14..18].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number of such a frame; none for what the host says.
fn number_of(frame: &[u8]) -> Option<u32> {
    let number = frame.get(14..18)?.try_into().ok().map(u32::from_be_bytes)?;
    (frame[12..14] == [0x88, 0xb5]).then_some(number)
}

/// Sends `count` frames, of lengths that `len_of` tells, from one port to the other, and compares every byte.
fn send_and_compare(
    from: &mut Queues,
    to: &mut Queues,
    count: u32,
    len_of: impl Fn(u32) -> usize,
    pool: &'static Mempool,
) {
    let (mut sent, mut came) = (0, 0);
    wait_for("all frames", || {
        let mut burst = Burst::new();
        while burst.room() > 0 && sent < count && sent < came + 200 {
            burst.push(numbered(pool, sent, len_of(sent))).unwrap();
            sent += 1;
        }
        let n = burst.len();
        assert_eq!(from.tx[0].tx_burst(&mut burst), n, "there is room for 200 frames");
        from.tx[0].flush();
        let mut burst = Burst::new();
        to.rx[0].rx_burst(&mut burst);
        for frame in burst.iter().map(bytes) {
            let Some(number) = number_of(&frame) else { continue };
            assert_eq!(number, came, "in order, none lost");
            assert_eq!(frame, bytes(&numbered(pool, number, len_of(number))));
            came += 1;
        }
        drop(burst);
        to.rx[0].complete();
        (came == count).then_some(())
    });
}

fn drops(port: &dyn Port) -> Vec<(&'static str, u64)> {
    let counters = port.counters();
    let queues = || counters.rx.iter().chain(&counters.tx);
    let count = |r: &DropReason| (r.name(), queues().map(|q| q.drops[*r as usize].get()).sum::<u64>());
    DropReason::ALL.iter().map(count).filter(|(_, n)| *n > 0).collect()
}

fn detail(port: &dyn Port, name: &str) -> String {
    port.details().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value).unwrap_or_default()
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_carries_every_byte_both_ways() {
    let namespace = pair(1500);
    let pool = pool(4096);
    let (a, mut aq) = open(&namespace, &config("p0"), pool, 1);
    let (b, mut bq) = open(&namespace, &config("p1"), pool, 2);
    assert_eq!((a.kind(), a.max_frame(), detail(a.as_ref(), "mode").as_str()), ("af_xdp", 1514, "copy"));
    assert_eq!(detail(a.as_ref(), "program"), "native");
    let len_of = |i: u32| 60 + (i as usize * 37) % (1514 - 60 + 1);
    send_and_compare(&mut aq, &mut bq, 5000, len_of, pool);
    send_and_compare(&mut bq, &mut aq, 5000, len_of, pool);
    assert_eq!((drops(a.as_ref()), drops(b.as_ref())), (vec![], vec![]));
    assert_eq!(a.counters().tx[0].packets.get(), 5000);
    drop((aq, bq, a, b));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_carries_jumbo_frames_in_several_buffers() {
    let namespace = pair(9000);
    let pool = pool(4096);
    let (a, mut aq) = open(&namespace, &config("p0"), pool, 1);
    let (b, mut bq) = open(&namespace, &config("p1"), pool, 2);
    assert_eq!(a.max_frame(), 9014);
    let len_of = |i: u32| 1000 + (i as usize * 101) % (9014 - 1000 + 1);
    send_and_compare(&mut aq, &mut bq, 2000, len_of, pool);
    send_and_compare(&mut bq, &mut aq, 2000, len_of, pool);
    let mut long = Burst::new();
    long.push(numbered(pool, 0, 9015)).unwrap();
    assert_eq!(aq.tx[0].tx_burst(&mut long), 1);
    assert_eq!(drops(a.as_ref()), [("tx_too_long", 1)]);
    assert_eq!(drops(b.as_ref()), []);
    drop((aq, bq, a, b));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
}

/// Packets that may not be lent as they are: shared twice, of another pool, in more pieces than the kernel takes.
#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_copies_what_it_cannot_lend() {
    let namespace = pair(9000);
    let (ours, theirs) = (pool(1024), pool(1024));
    let (a, mut aq) = open(&namespace, &config("p0"), ours, 1);
    let (b, mut bq) = open(&namespace, &config("p1"), ours, 2);
    let mut burst = Burst::new();
    let flooded = numbered(ours, 0, 700);
    burst.push(flooded.share()).unwrap();
    burst.push(flooded).unwrap();
    burst.push(numbered(theirs, 0, 700)).unwrap();
    burst.push(numbered(theirs, 0, 5000)).unwrap();
    let mut pieces = numbered(ours, 0, 700);
    for _ in 0..30 {
        let mut piece = ours.alloc(0).unwrap();
        piece.append(10).unwrap().fill(1);
        pieces.chain(piece).unwrap();
    }
    burst.push(pieces).unwrap();
    let want: Vec<_> = burst.iter().map(bytes).collect();
    assert_eq!(aq.tx[0].tx_burst(&mut burst), 5);
    aq.tx[0].flush();
    let mut got = Vec::new();
    wait_for("five frames", || {
        let mut burst = Burst::new();
        bq.rx[0].rx_burst(&mut burst);
        got.extend(burst.iter().map(bytes).filter(|f| number_of(f).is_some()));
        (got.len() == 5).then_some(())
    });
    assert_eq!(got, want);
    assert_eq!(theirs.balance().out, 0);
    drop((aq, bq, a, b));
    assert_eq!(ours.balance().out, 0, "{:?}", ours.balance());
}

/// Two hosts behind veths, joined by two ports.
fn tcp_through(queues: usize, mtu: usize) {
    let pool = pool(8192);
    let [(a, a_port, a_queues), (b, b_port, b_queues)] = ["1", "2"].map(|n| {
        let namespace = Namespace::new("xdp");
        let many = format!("numrxqueues {queues} numtxqueues {queues}");
        namespace.ip(&format!("link add e0 {many} type veth peer name p0 {many}"));
        namespace.ip(&format!("link set p0 mtu {mtu} addrgenmode none"));
        namespace.ip(&format!("link set e0 mtu {mtu} up"));
        namespace.ip(&format!("addr add 10.9.0.{n}/24 dev e0"));
        let config = AfXdpConfig { queues, ..config("p0") };
        let (port, queues) = open(&namespace, &config, pool, n.parse().unwrap());
        (namespace, port, queues)
    });
    assert_eq!(a_queues.rx.len(), queues);
    let seen = joined_queues(a_queues, b_queues, OffloadSet::ALL, || {
        transfer(&a, &b, "10.9.0.2:5000".parse().unwrap());
    });
    assert!(seen.packets > 2000 && seen.to_be_cut == 0, "{seen:?}");
    assert_eq!((drops(a_port.as_ref()), drops(b_port.as_ref())), (vec![], vec![]));
    drop((a_port, b_port));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_carries_tcp_with_the_offloads_that_a_veth_has() {
    tcp_through(1, 1500);
    tcp_through(1, 9000);
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_carries_tcp_over_several_queues() {
    tcp_through(3, 1500);
}

/// What a veth hands over has a checksum that nobody has worked out, and is marked so.
#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_knows_unfinished_checksums() {
    let namespace = Namespace::new("xdp");
    namespace.ip("link add e0 type veth peer name p0");
    namespace.ip("link set e0 up");
    namespace.ip("addr add 10.9.0.1/24 dev e0");
    namespace.ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev e0");
    let pool = pool(512);
    let (port, mut queues) = open(&namespace, &config("p0"), pool, 1);
    namespace.run(|| {
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        socket.send_to(b"a datagram", "10.9.0.2:77").unwrap();
    });
    let offload = wait_for("the datagram", || {
        let mut burst = Burst::new();
        queues.rx[0].rx_burst(&mut burst);
        burst.iter().find(|m| m.data().ends_with(b"a datagram")).map(|m| *m.offload())
    });
    assert_eq!((offload.checksum, offload.csum_start, offload.csum_offset), (Checksum::Partial, 34, 6));
    drop((queues, port));
    assert_eq!(pool.balance().out, 0);
}

/// The interface is deleted while frames go out by it and come in by it, and made again.
#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_survives_an_unplugged_veth_and_takes_it_back() {
    let namespace = pair(1500);
    let pool = pool(4096);
    let (port, mut queues) = open(&namespace, &config("p0"), pool, 1);
    let mut sent = 0;
    let mut send = |queues: &mut Queues| {
        let mut burst = Burst::new();
        while burst.room() > 0 {
            burst.push(numbered(pool, sent, 200)).unwrap();
            sent += 1;
        }
        queues.tx[0].tx_burst(&mut burst);
        queues.tx[0].drop_burst(&mut burst, DropReason::TxFull);
        queues.tx[0].flush();
        let mut burst = Burst::new();
        queues.rx[0].rx_burst(&mut burst);
    };
    for _ in 0..3 {
        (0..50).for_each(|_| send(&mut queues));
        thread::scope(|scope| {
            let unplugging = scope.spawn(|| namespace.ip("link del p0"));
            while !unplugging.is_finished() {
                send(&mut queues);
            }
        });
        wait_for("the port to see it", || {
            send(&mut queues);
            (port.link() == Link::Down && detail(port.as_ref(), "state") == "absent").then_some(())
        });
        assert!(!queues.tx[0].is_ready());
        let before = drops(port.as_ref());
        send(&mut queues);
        assert_ne!(drops(port.as_ref()), before, "counted: {before:?}");
        assert_eq!(pool.balance().out, 0, "the kernel has none any more: {:?}", pool.balance());
        namespace.ip("link add p0 type veth peer name p1");
        namespace.ip("link set p1 up");
        wait_for("the port to take it back", || (port.link() == Link::Up).then_some(()));
    }
    let (peer, mut peer_queues) = open(&namespace, &config("p1"), pool, 2);
    send_and_compare(&mut queues, &mut peer_queues, 1000, |i| 60 + i as usize % 1000, pool);
    let counters = port.counters();
    let all_drops: u64 = drops(port.as_ref()).iter().map(|(_, n)| n).sum();
    assert_eq!(counters.tx[0].packets.get() + all_drops, u64::from(sent) + 1000, "every frame is counted");
    drop((queues, peer_queues, peer, port));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
}

/// A bridge has no XDP of its own: the program runs in the stack.
#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_takes_an_interface_whose_driver_has_no_xdp() {
    let namespace = pair(1500);
    namespace.ip("link add br0 type bridge");
    namespace.ip("link set p0 master br0");
    namespace.ip("link set br0 addrgenmode none up");
    let pool = pool(2048);
    let (a, mut aq) = open(&namespace, &config("br0"), pool, 1);
    let (b, mut bq) = open(&namespace, &config("p1"), pool, 2);
    assert_eq!(detail(a.as_ref(), "program"), "generic");
    let len_of = |i: u32| 60 + (i as usize * 37) % (1514 - 60 + 1);
    send_and_compare(&mut aq, &mut bq, 1000, len_of, pool);
    send_and_compare(&mut bq, &mut aq, 1000, len_of, pool);
    assert_eq!((drops(a.as_ref()), drops(b.as_ref())), (vec![], vec![]));
    drop((aq, bq, a, b));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
}

#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_says_what_is_in_the_way() {
    let namespace = pair(1500);
    namespace
        .ip("link add q0 numrxqueues 4 numtxqueues 4 type veth peer name q1 numrxqueues 4 numtxqueues 4");
    let pool = pool(1024);
    let refusal = |config: &AfXdpConfig| {
        namespace.run(|| match af_xdp::port(config) {
            Err(error) => error.to_string(),
            Ok(mut port) => match port.open(QueueEnv { pool, port: 9 }) {
                Err(error) => error.to_string(),
                Ok(_) => String::new(),
            },
        })
    };
    let missing = refusal(&config("nosuch"));
    assert!(missing.contains("nosuch") && missing.contains("ip link"), "{missing}");
    let queues = refusal(&config("q0"));
    assert!(queues.contains("queues=4") && queues.contains("ethtool -L q0"), "{queues}");
    let zero_copy = refusal(&AfXdpConfig { copying: Some(Copying::ZeroCopy), ..config("p0") });
    assert!(zero_copy.contains("zero copy"), "{zero_copy}");
    let (port, queues) = open(&namespace, &config("p0"), pool, 1);
    let taken = refusal(&config("p0"));
    assert!(taken.contains("another XDP program"), "{taken}");
    drop((port, queues));
    assert_eq!(pool.balance().out, 0, "{:?}", pool.balance());
    assert_eq!(refusal(&config("p0")), "", "free again");
}

/// An lcore may sleep until a frame comes.
#[test]
#[ignore = "needs root"]
fn needs_root_af_xdp_wakes_who_sleeps() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let namespace = pair(1500);
    let pool = pool(1024);
    let (a, mut aq) = open(&namespace, &config("p0"), pool, 1);
    let (b, mut bq) = open(&namespace, &config("p1"), pool, 2);
    let sleep = |rx: &dyn pmd::RxQueue, ms: i64| {
        let fd = rx.wake_fd().unwrap();
        let timeout = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
    };
    // What the host says by itself is over, and so is the nudge that a new ring gives.
    wait_for("quiet", || {
        bq.rx[0].rx_burst(&mut Burst::new());
        bq.rx[0].disarm();
        (bq.rx[0].arm() && !sleep(bq.rx[0].as_ref(), 50)).then_some(())
    });
    send_and_compare(&mut aq, &mut bq, 1, |_| 60, pool);
    let mut burst = Burst::new();
    burst.push(numbered(pool, 0, 60)).unwrap();
    aq.tx[0].tx_burst(&mut burst);
    aq.tx[0].flush();
    assert!(sleep(bq.rx[0].as_ref(), 5000) && !bq.rx[0].arm());
    drop((aq, bq, a, b));
    assert_eq!(pool.balance().out, 0);
}

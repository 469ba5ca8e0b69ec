//! Front ends as they should be, and as slow, greedy or many as they can be: each costs its own connection.

mod session_raw;

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use pmd::{Link, Port};
use session_raw::{Fixture, RawFrontEnd, event, memfd, message, wait_until};
use vhost::wire::message::Request;
use vhost::{VhostUserPort, VhostUserSpec};

#[test]
fn a_front_end_comes_goes_and_comes_back() {
    let f = Fixture::server(2);
    assert_eq!(f.port.kind(), "vhost-user");
    for round in 1..=3 {
        assert_eq!(f.port.link(), Link::Down);
        let mut front_end = f.connect();
        front_end.handshake();
        assert_eq!(f.port.link(), Link::Up);
        assert_eq!(front_end.get(Request::GetQueueNum), 4);
        let rings = f.detail("rings").expect("rings");
        assert_eq!(rings, "rx0 running size 256, tx0 running size 256");
        let memory = f.detail("memory").expect("memory");
        assert_eq!(memory, "1 regions, 4 MiB, 1 not sealed against shrinking");
        let peer = f.detail("front end").expect("peer");
        assert!(peer.contains(&format!("pid {}", std::process::id())), "{peer}");
        assert!(f.detail("features").expect("features").starts_with("VERSION_1 MRG_RXBUF MQ"));
        assert_eq!(front_end.vring_base(0), 0);
        assert_eq!(front_end.vring_base(1), 0);
        assert_eq!(f.port.link(), Link::Down);
        drop(front_end);
        f.wait_for("closed_by_front_end", round);
    }
}

#[test]
fn a_message_byte_by_byte() {
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    for byte in message(Request::GetQueueNum as u32, 0, &[]) {
        assert_eq!(front_end.send_raw(&[byte], &[]), Ok(1));
    }
    assert_eq!(u64::from_ne_bytes(front_end.reply().1.try_into().expect("a u64")), 2);
}

#[test]
fn several_messages_at_once() {
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    let twice = message(Request::GetQueueNum as u32, 0, &[]).repeat(2);
    assert_eq!(front_end.send_raw(&twice, &[]), Ok(24));
    front_end.reply();
    front_end.reply();
}

#[test]
fn c01_back_end_requests_and_replies_end_the_session() {
    let f = Fixture::server(1);
    for (number, extra, name) in
        [(0, 0, "unknown_request"), (255, 0, "unknown_request"), (1, 4, "malformed_reply_flag")]
    {
        let mut front_end = f.connect();
        front_end.send_raw(&message(number, extra, &[]), &[]).expect("sent");
        assert!(front_end.is_closed(), "{number}");
        assert!(f.count(name) > 0, "{name}");
    }
}

#[test]
fn c02_a_payload_that_is_announced_and_never_comes() {
    let f = Fixture::server(1);
    for size in [513, 0x8000_0000, u32::MAX] {
        let mut front_end = f.connect();
        let mut bytes = message(Request::SetFeatures as u32, 0, &[]);
        bytes[8..12].copy_from_slice(&size.to_ne_bytes());
        front_end.send_raw(&bytes, &[]).expect("sent");
        assert!(front_end.is_closed(), "{size}");
    }
    assert_eq!(f.count("malformed_payload_size"), 3);
}

#[test]
fn c03_a_slow_front_end_delays_nobody_and_is_closed() {
    let (slow, fast) = (Fixture::server(1), Fixture::server(1));
    let mut lazy = slow.connect();
    lazy.send_raw(&[1, 0, 0], &[]).expect("sent");
    let start = Instant::now();
    fast.connect().handshake();
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    // A byte now and then, less than a header in all: they put nothing off.
    let mut drips = 0;
    while drips < 8 && lazy.send_raw(&[0], &[]).is_ok() {
        std::thread::sleep(Duration::from_millis(500));
        drips += 1;
    }
    assert!(drips >= 3 && lazy.is_closed(), "{drips} bytes more");
    let waited = start.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    assert_eq!(slow.count("slow_message"), 1);
}

#[test]
fn c04_requests_whose_replies_nobody_reads() {
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    let request = message(Request::GetFeatures as u32, 0, &[]);
    let start = Instant::now();
    while front_end.flood(&request, 100_000) && f.count("slow_message") == 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "never closed");
    }
    f.wait_for("slow_message", 1);
    f.connect().handshake();
}

#[test]
fn c05_a_second_front_end_is_closed_and_the_first_goes_on() {
    let f = Fixture::server(1);
    let mut first = f.connect();
    first.handshake();
    for _ in 0..100 {
        assert!(f.connect().is_closed());
    }
    assert_eq!(f.count("second_front_end"), 100);
    assert_eq!(first.get(Request::GetQueueNum), 2);
    assert_eq!(f.port.link(), Link::Up);
}

#[test]
fn c09_more_descriptors_than_a_message_can_have() {
    let f = Fixture::server(1);
    let fd = event();
    for n in [9, 64, 253] {
        let mut front_end = f.connect();
        let bytes = message(Request::SetOwner as u32, 0, &[]);
        front_end.send_raw(&bytes, &vec![fd.as_fd(); n]).expect("sent");
        assert!(front_end.is_closed(), "{n}");
    }
    let mut piecewise = f.connect();
    let bytes = message(Request::SetVringAddr as u32, 0, &[0; 40]);
    for byte in &bytes[..10] {
        // It may be closed before the last of them.
        let _ = piecewise.send_raw(std::slice::from_ref(byte), &[fd.as_fd()]);
    }
    assert!(piecewise.is_closed());
    assert_eq!(f.count("malformed_descriptors"), 4);
}

#[test]
fn c22_ring_states_are_told_as_they_are() {
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    front_end.negotiate(&memfd(session_raw::MEMORY), 0);
    front_end.start_ring(0);
    assert_eq!(front_end.state(Request::SetVringEnable, 0, 0), 0);
    assert_eq!(f.detail("rings").as_deref(), Some("rx0 disabled size 256"));
    assert_eq!(f.port.link(), Link::Down);
}

#[test]
fn c26_what_stands_in_the_socket_s_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| VhostUserSpec::new(directory.path().join(name));
    let refused = |name: &str| VhostUserPort::new(&at(name)).expect_err(name).to_string();
    std::fs::write(directory.path().join("file"), "precious").expect("write");
    std::os::unix::fs::symlink(directory.path().join("file"), directory.path().join("link"))
        .expect("symlink");
    std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).expect("symlink");
    std::fs::create_dir(directory.path().join("directory")).expect("mkdir");
    for name in ["file", "link", "dangling", "directory"] {
        assert!(refused(name).contains("is no socket"), "{}", refused(name));
    }
    assert_eq!(std::fs::read(directory.path().join("file")).expect("still there"), b"precious");
    let live = UnixListener::bind(directory.path().join("live")).expect("bind");
    assert!(refused("live").contains("another process listens"), "{}", refused("live"));
    drop(live);
    let port = VhostUserPort::new(&at("live")).expect("a stale socket is replaced");
    assert!(refused("live").contains("another process listens"));
    assert!(refused("absent/vm.sock").contains("mkdir"));
    drop(port);
    assert!(!directory.path().join("live").exists(), "removed with its port");
    assert!(VhostUserPort::new(&at(&"x".repeat(108))).is_err());
}

#[test]
fn c26_only_our_own_socket_is_removed() {
    let f = Fixture::server(1);
    let mode = std::fs::metadata(&f.path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    std::fs::remove_file(&f.path).expect("unlinked while up");
    let theirs = UnixListener::bind(&f.path).expect("bind");
    drop(f.port);
    assert!(f.path.exists(), "somebody else's");
    drop(theirs);
}

#[test]
fn c27_needs_root_a_peer_of_another_uid() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root, to act as another user");
    let f = Fixture::new(|path| VhostUserSpec { uids: vec![1234], ..VhostUserSpec::new(path) });
    let directory = f.path.parent().expect("a parent");
    for path in [directory, &f.path] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let as_uid = |uid| {
        let path = f.path.clone();
        let thread = std::thread::spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setresuid");
            UnixStream::connect(path).expect("connect")
        });
        RawFrontEnd::new(thread.join().expect("connected"))
    };
    assert!(as_uid(65_534).is_closed());
    assert_eq!(f.count("uid_refused"), 1);
    assert_eq!(as_uid(1234).get(Request::GetQueueNum), 2);
}

#[test]
fn k08_a_client_finds_its_front_end_within_100_ms_again_and_again() {
    let f = Fixture::new(|path| VhostUserSpec { client: true, ..VhostUserSpec::new(path) });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(120));
        let listener = UnixListener::bind(&f.path).expect("bind");
        let start = Instant::now();
        let (stream, _) = listener.accept().expect("accept");
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        let mut front_end = RawFrontEnd::new(stream);
        front_end.handshake();
        assert_eq!(f.port.link(), Link::Up);
        drop((front_end, listener));
        std::fs::remove_file(&f.path).expect("unlink");
        wait_until("link down", || f.port.link() == Link::Down);
    }
}

#[test]
fn a_port_ends_under_its_front_end() {
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    front_end.handshake();
    let start = Instant::now();
    drop(f.port);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(front_end.is_closed());
    assert!(!f.path.exists());
}

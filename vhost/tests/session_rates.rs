//! How often a front end may want something, and that others do not notice one that wants more.

mod session_raw;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use session_raw::{Fixture, MEMORY, RawFrontEnd, addr, event, memfd, message};
use vhost::wire::message::{Request, VringState};
use zerocopy::IntoBytes;

/// What an answer takes at most where nobody is in the way, on a machine that is busy.
const SOON: Duration = Duration::from_secs(2);

/// A whole handshake, and how long it took.
fn handshake(f: &Fixture) -> Duration {
    let start = Instant::now();
    f.connect().handshake();
    start.elapsed()
}

#[test]
fn c21_messages_beyond_the_rate_wait_and_nobody_else_does() {
    const MESSAGES: usize = 48_000;
    let (flooded, other) = (Fixture::server(1), Fixture::server(1));
    let mut front_end = flooded.connect();
    front_end.negotiate(&memfd(MEMORY), 0);
    let enable = message(Request::SetVringEnable as u32, 0, VringState { index: 0, num: 1 }.as_bytes());
    let batch = enable.repeat(100);
    let start = Instant::now();
    let slowest = std::thread::scope(|scope| {
        let meanwhile = scope.spawn(|| (0..5).map(|_| handshake(&other)).max());
        for _ in 0..MESSAGES / 100 {
            assert_eq!(front_end.send_raw(&batch, &[]), Ok(batch.len()));
        }
        front_end.get(Request::GetFeatures);
        meanwhile.join().expect("the other front end")
    });
    // The burst is 32,768, the rate 10,000 a second. A machine that is slower by itself delays none.
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1300), "{took:?}");
    assert!(flooded.count("messages_delayed") > 0 || took > Duration::from_secs(2), "{took:?}");
    assert!(slowest.is_some_and(|slowest| slowest < SOON), "{slowest:?}");
    assert_eq!(other.count("messages_delayed"), 0);
}

/// As QEMU sets up 128 queue pairs, three times at once: as at a start, and a guest's driver that begins anew.
#[test]
fn c21_an_honest_handshake_of_128_pairs_meets_no_limit() {
    let f = Fixture::server(128);
    let mut front_end = f.connect();
    front_end.negotiate(&memfd(MEMORY), 0);
    let (memory, call) = (memfd(MEMORY), event());
    for _ in 0..3 {
        for index in 0..256 {
            if index % 2 == 0 {
                // QEMU has a vhost device for each pair.
                front_end.get(Request::GetFeatures);
                front_end.ask(Request::SetMemTable, session_raw::table().as_slice(), &[&memory]);
            }
            assert_eq!(front_end.state(Request::SetVringNum, index, 16), 0);
            assert_eq!(front_end.state(Request::SetVringBase, index, 0), 0);
            assert_eq!(front_end.ask(Request::SetVringAddr, &addr(index % 32), &[]), 0);
            for request in [Request::SetVringKick, Request::SetVringCall, Request::SetVringErr] {
                assert_eq!(front_end.ask(request, &u64::from(index), &[&call]), 0);
            }
            assert_eq!(front_end.state(Request::SetVringEnable, index, 1), 0);
        }
    }
    assert_eq!(f.count("messages_delayed"), 0);
}

/// A port is free as soon as its front end has hung up, also while that had to wait.
#[test]
fn c21_who_hung_up_while_it_had_to_wait_is_gone() {
    let f = Fixture::server(1);
    let enable = message(Request::SetVringEnable as u32, 0, VringState { index: 0, num: 1 }.as_bytes());
    let batch = enable.repeat(100);
    let mut front_end = f.connect();
    front_end.negotiate(&memfd(MEMORY), 0);
    while f.count("messages_delayed") == 0 {
        assert_eq!(front_end.send_raw(&batch, &[]), Ok(batch.len()));
    }
    for _ in 0..20 {
        drop(front_end);
        front_end = f.connect();
        front_end.get(Request::GetFeatures);
        // In the middle of a wait, whatever it is.
        let _ = front_end.send_raw(&batch, &[]);
    }
    assert_eq!(f.count("second_front_end"), 0);
}

#[test]
fn c06_a_thousand_reconnects_a_second_delay_nobody() {
    const TIME: Duration = Duration::from_secs(3);
    let (hammered, other) = (Fixture::server(1), Fixture::server(1));
    let ended = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(UnixStream::connect(&hammered.path).expect("connect"));
                }
            });
        }
        let end = Instant::now() + TIME;
        let mut slowest = Duration::ZERO;
        while Instant::now() < end {
            slowest = slowest.max(handshake(&other));
            std::thread::sleep(Duration::from_millis(50));
        }
        ended.store(true, Ordering::Relaxed);
        slowest
    });
    let taken = hammered.count("sessions") + hammered.count("second_front_end");
    // 250 at once and 250 a second; what waits in the backlog besides.
    assert!((250..=250 + 250 * (TIME.as_secs() + 2)).contains(&taken), "{taken} connections");
    assert!(slowest < SOON, "{slowest:?}");
    let mut sane = RawFrontEnd::new(UnixStream::connect(&hammered.path).expect("connect"));
    sane.handshake();
}

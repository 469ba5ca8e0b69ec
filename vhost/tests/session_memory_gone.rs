//! A front end that takes its guest's memory away under running rings (M10).

mod session_raw;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mbuf::{Burst, Mempool, MempoolConfig};
use pmd::{Link, Port, QueueEnv};
use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
use session_raw::{Fixture, MEMORY, memfd};

/// Memory that nobody can seal against shrinking.
fn unsealable() -> OwnedFd {
    let memory = memfd(MEMORY);
    fcntl_add_seals(&memory, SealFlags::SEAL).expect("seal");
    memory
}

#[test]
fn m10_truncated_memory_ends_the_session_and_nothing_else() {
    let mut f = Fixture::server(1);
    let pool = Mempool::new(&MempoolConfig { mbufs: 512, ..MempoolConfig::default() }).expect("a pool");
    let mut queues = f.port.open(QueueEnv { pool, port: 1 }).expect("queues");
    let mut fastest = Duration::MAX;
    for round in 1..=3 {
        let memory = unsealable();
        let mut front_end = f.connect();
        front_end.negotiate(&memory, 0);
        front_end.start_ring(0);
        front_end.start_ring(1);
        assert_eq!(f.port.link(), Link::Up);
        assert!(f.detail("memory").expect("memory").ends_with("1 not sealed against shrinking"));
        assert_eq!(queues.rx[0].rx_burst(&mut Burst::new()), 0);
        ftruncate(&memory, 0).expect("nothing forbids it");
        let start = Instant::now();
        while f.port.link() == Link::Up {
            queues.rx[0].rx_burst(&mut Burst::new());
            assert!(start.elapsed() < Duration::from_secs(1), "nobody noticed");
        }
        fastest = fastest.min(start.elapsed());
        assert!(front_end.is_closed());
        f.wait_for("memory_gone", round);
    }
    // The fastest, because other tests share the processors.
    assert!(fastest < Duration::from_millis(10), "{fastest:?}");
    let mut sane = f.connect();
    sane.handshake();
    assert_eq!(f.port.link(), Link::Up, "the port works again");
    assert_eq!(queues.rx[0].rx_burst(&mut Burst::new()), 0);
}

//! What a front end costs is given back. One test alone in its program, because it counts the process's descriptors.

mod session_raw;

use std::os::fd::AsFd;

use session_raw::{Fixture, event, memfd, message};
use vhost::wire::message::{MAX_FDS, Request};

const ROUNDS: usize = 2000;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .expect("/proc")
        .lines()
        .filter(|l| l.contains("memfd:session"))
        .count()
}

#[test]
fn c06_c07_c09_c12_descriptors_and_mappings_return_to_the_baseline() {
    let f = Fixture::server(1);
    once(&f);
    let before = (open_descriptors(), mappings());
    repeated_messages(&f);
    surplus_descriptors(&f);
    connections(&f);
    let closed = f.count("closed_by_front_end");
    drop(f.connect());
    f.wait_for("closed_by_front_end", closed + 1);
    assert_eq!((open_descriptors(), mappings()), before);
}

/// A whole session: what is opened once for the process (the bell's file) is open from here on.
fn once(f: &Fixture) {
    let mut front_end = f.connect();
    front_end.negotiate(&memfd(session_raw::MEMORY), 0);
    front_end.start_ring(0);
    front_end.ask(Request::SetVringCall, &0u64, &[&event()]);
    drop(front_end);
    f.wait_for("closed_by_front_end", 1);
}

/// C12: each message again and again leaves no more than the first one.
fn repeated_messages(f: &Fixture) {
    let mut front_end = f.connect();
    let (memory, call) = (memfd(session_raw::MEMORY), event());
    front_end.negotiate(&memory, 0);
    front_end.start_ring(0);
    front_end.ask(Request::SetVringErr, &0u64, &[&call]);
    let during = (open_descriptors(), mappings());
    for _ in 0..ROUNDS {
        for request in [Request::SetVringKick, Request::SetVringCall, Request::SetVringErr] {
            assert_eq!(front_end.ask(request, &0u64, &[&call]), 0);
        }
        assert_eq!(front_end.ask(Request::SetMemTable, session_raw::table().as_slice(), &[&memory]), 0);
        assert_eq!(front_end.ask(Request::SetLogFd, &(), &[&call]), 0);
        assert_eq!(front_end.ask(Request::SetBackendReqFd, &(), &[&call]), 1);
    }
    assert_eq!((open_descriptors(), mappings()), during);
    drop((front_end, memory, call));
    f.wait_for("closed_by_front_end", 2);
}

/// C7, C9: whatever comes along is closed with the session.
fn surplus_descriptors(f: &Fixture) {
    let fd = event();
    for n in [1, MAX_FDS, MAX_FDS + 1, 253] {
        let mut front_end = f.connect();
        front_end.send_raw(&message(Request::SetOwner as u32, 0, &[]), &vec![fd.as_fd(); n]).expect("sent");
        assert!(front_end.is_closed());
    }
    // Half a message, and away.
    let front_end = f.connect();
    front_end.send_raw(&[1, 2, 3], &[fd.as_fd(); MAX_FDS]).expect("sent");
    drop(front_end);
    f.wait_for("closed_by_front_end", 3);
}

/// C6: connect and close, connect and do nothing.
fn connections(f: &Fixture) {
    let closed = f.count("closed_by_front_end") + f.count("second_front_end");
    for _ in 0..ROUNDS {
        drop(f.connect());
    }
    let ended = || f.count("closed_by_front_end") + f.count("second_front_end");
    session_raw::wait_until("all closed", || ended() >= closed + ROUNDS as u64);
}

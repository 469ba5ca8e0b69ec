//! The process runs out of descriptors (C11). Alone in its program, because it takes them all.

mod session_raw;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use pmd::{Link, Port};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use session_raw::{Fixture, RawFrontEnd, event};
use vhost::wire::message::Request;

/// Opens files until nothing is left but `spare`.
fn take_all_but(spare: usize) -> Vec<File> {
    let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.truncate(taken.len() - spare);
    taken
}

#[test]
fn c11_no_descriptor_left_and_numbers_beyond_1023() {
    let limits = getrlimit(Resource::Nofile);
    let current = limits.maximum.map_or(4096, |maximum| maximum.min(4096));
    assert!(current > 1100, "this test needs a hard limit of more than 1,100 descriptors (ulimit -Hn)");
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limits.maximum })
        .expect("setrlimit");
    let f = Fixture::server(1);
    let mut front_end = f.connect();
    front_end.handshake();
    let waiting = UnixStream::connect(&f.path).expect("connect");
    assert!(RawFrontEnd::new(waiting).is_closed(), "the second one");
    let call = event();

    // Room for nothing: the descriptor that comes along cannot be received.
    let taken = take_all_but(0);
    let payload = 0u64.to_ne_bytes();
    front_end.send(Request::SetVringCall, 0, &payload, &[std::os::fd::AsFd::as_fd(&call)]);
    assert!(front_end.is_closed());
    drop(taken);
    f.wait_for("malformed_descriptors", 1);
    drop(front_end);

    // No room to accept: the port waits, and takes the front end when there is.
    let mut taken = take_all_but(1);
    let mut late = f.connect();
    f.wait_for("socket_error", 1);
    assert!(taken.iter().any(|file| file.as_raw_fd() > 1023));
    taken.truncate(1200);
    late.handshake();
    assert_eq!(f.port.link(), Link::Up, "with descriptors of high numbers, too");
}

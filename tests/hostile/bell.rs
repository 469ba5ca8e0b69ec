//! Call and err eventfds that would make a write wait (C14), or that take long to signal (A6): their counters, flags and wait
//! queues belong to the front end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pmd::Port;
use rustix::event::epoll;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vhost::driver::NetHdr;
use vhost::wire::ring::Desc;
use vhost::{VhostUserPort, VhostUserSpec};
use vswitch::PortId;

use crate::attacker::{Attacker, Plan, Side, read};
use crate::frames;
use crate::races::racing;
use crate::scene::{Scene, attach, case, eventually};

/// Watches on one eventfd: [`SETS`] epoll sets, each with so many duplicates of the descriptor.
const SETS: usize = 250;
const DUPLICATES: usize = 400;
/// How long the victims are watched, alone and under attack.
const WHILE: Duration = Duration::from_millis(1500);

/// 10^5 epoll watches on one eventfd.
struct Watched {
    _duplicates: Vec<OwnedFd>,
    _sets: Vec<OwnedFd>,
}

impl Watched {
    fn new(fd: BorrowedFd<'_>) -> Self {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("our own limit");
        let duplicates: Vec<_> =
            (0..DUPLICATES).map(|_| fd.try_clone_to_owned().expect("a descriptor")).collect();
        let set = |_| {
            let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a set");
            for fd in &duplicates {
                epoll::add(&set, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("a watch");
            }
            set
        };
        Self { _sets: (0..SETS).map(set).collect(), _duplicates: duplicates }
    }
}

/// A port of its own, for as long as the case lasts: what it earns stays with it.
struct OwnPort {
    id: PortId,
    port: VhostUserPort,
    socket: PathBuf,
}

impl OwnPort {
    fn attach(scene: &mut Scene, name: &str) -> Self {
        let socket = scene.another_socket(name);
        let (id, port) = attach(&mut scene.switch, scene.pool, name, &VhostUserSpec::new(socket.clone()));
        Self { id, port, socket }
    }

    fn attacker(&self) -> Attacker {
        Attacker::negotiate_at(&self.socket, Plan::default())
    }

    fn detail(&self, name: &str) -> Option<String> {
        self.port.details().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn count(&self, name: &str) -> u64 {
        self.detail(name).map_or(0, |n| n.parse().expect("a number"))
    }

    fn detach(self, scene: &mut Scene) {
        scene.switch.remove_port(self.id).expect("removed");
    }
}

/// Frames that the victims exchange in a while, and the longest time without one.
fn victims_frames(scene: &Scene, mut meanwhile: impl FnMut()) -> u64 {
    let (start, before) = (Instant::now(), scene.victims_received());
    let (mut seen, mut last, mut gap) = (before, start, Duration::ZERO);
    while start.elapsed() < WHILE {
        meanwhile();
        let now = scene.victims_received();
        if now != seen {
            gap = gap.max(last.elapsed());
            (seen, last) = (now, Instant::now());
        }
    }
    println!("{} frames, the longest gap {gap:?}", seen - before);
    seen - before
}

/// Sends a frame to nobody, and waits until it is used.
fn send_one(attacker: &mut Attacker, buffer: Desc) {
    let sent = attacker.tx.used();
    attacker.tx.post(&[buffer]);
    eventually("used", || attacker.tx.used() != sent);
}

/// Breaks the TX ring and sets it up anew.
fn break_ring(port: &OwnPort, attacker: &mut Attacker) {
    // An index that jumped (V3).
    attacker.tx.ring().set_avail_idx(0x8000);
    eventually("it broke", || port.detail("rings").is_some_and(|r| !r.contains("running")));
    attacker.revive(Side::Tx, 0);
}

/// The front end fills the counters of call and err and makes both descriptors blocking, again and again: a write would wait
/// for ever, wherever it is made.
#[test]
fn c14_full_counters_on_blocking_descriptors() {
    case(|scene| {
        let port = OwnPort::attach(scene, "full");
        let mut attacker = port.attacker();
        let err = crate::raw::event();
        attacker.front.set_vring_err(1, Some(err.as_fd())).expect("ERR");
        attacker.start_ring(Side::Tx);
        let fds = [attacker.tx.call.try_clone().expect("a descriptor"), err];
        let fill = |_: &mut crate::numbers::Numbers| {
            for fd in &fds {
                let flags = fcntl_getfl(fd).expect("F_GETFL");
                fcntl_setfl(fd, flags | OFlags::NONBLOCK).expect("F_SETFL");
                // All that fits: a thousand times less each time, until 1 does not.
                for shift in [0, 10, 20, 30, 40, 50, 60, 63] {
                    while rustix::io::write(fd, &((u64::MAX - 1) >> shift).to_ne_bytes()).is_ok() {}
                }
                fcntl_setfl(fd, flags - OFlags::NONBLOCK).expect("F_SETFL");
            }
        };
        let frame = attacker.packet(NetHdr::default(), &frames::between(7, 7, 60, 14));
        let buffer = read(&attacker.place(&frame));
        racing(fill, || {
            for _ in 0..200 {
                send_one(&mut attacker, buffer);
                break_ring(&port, &mut attacker);
            }
        });
        drop(attacker);
        port.detach(scene);
    });
}

/// A call takes 10 ms with so many watches. The lcore makes one or two of them, then the port's own thread makes them: the
/// victims have most of what they have without.
#[test]
fn a06_a_call_that_takes_long() {
    case(|scene| {
        let port = OwnPort::attach(scene, "slow-call");
        let mut attacker = port.attacker();
        attacker.start_ring(Side::Tx);
        let frame = attacker.packet(NetHdr::default(), &frames::between(7, 7, 60, 6));
        let buffer = read(&attacker.place(&frame));
        let honest = victims_frames(scene, || send_one(&mut attacker, buffer));
        let call = attacker.tx.call.try_clone().expect("a descriptor");
        let watched = Watched::new(call.as_fd());
        let attacked = victims_frames(scene, || send_one(&mut attacker, buffer));
        assert!(attacked > honest / 4, "A6: {attacked} frames, of {honest} without the attack");
        eventually("it says so", || port.count("slow_calls") > 0);
        let calls = port.detail("calls").unwrap_or_default();
        assert!(calls.contains("control thread"), "{calls}");
        // They are made all the same.
        drop(watched);
        let mut bytes = [0; 8];
        rustix::io::read(&call, &mut bytes).expect("it was called");
        send_one(&mut attacker, buffer);
        eventually("it is called", || rustix::io::read(&call, &mut bytes).is_ok());
        drop(attacker);
        port.detach(scene);
    });
}

/// A ring that breaks again and again, with an err eventfd that takes as long.
#[test]
fn a06_an_err_eventfd_that_takes_long() {
    case(|scene| {
        let port = OwnPort::attach(scene, "slow-err");
        let mut attacker = port.attacker();
        let err = crate::raw::event();
        attacker.front.set_vring_err(1, Some(err.as_fd())).expect("ERR");
        attacker.start_ring(Side::Tx);
        let honest = victims_frames(scene, || break_ring(&port, &mut attacker));
        let mut bytes = [0; 8];
        eventually("it is told", || rustix::io::read(&err, &mut bytes).is_ok());
        let watched = Watched::new(err.as_fd());
        let attacked = victims_frames(scene, || break_ring(&port, &mut attacker));
        assert!(attacked > honest / 4, "A6: {attacked} frames, of {honest} without the attack");
        eventually("it is told", || rustix::io::read(&err, &mut bytes).is_ok());
        drop((watched, attacker));
        port.detach(scene);
    });
}

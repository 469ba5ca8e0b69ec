//! A7: a front end's descriptors make whoever touches them wait for ever. Its port's messages go on, the port can be
//! removed, and its path be used again at once.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use vhost::VhostUserSpec;
use vhost::driver::FrontEnd;
use vhost::wire::message::{Header, MemoryRegion, MemoryTableHead, Request, SingleRegion, flags, protocol};
use zerocopy::IntoBytes;

use crate::scene::{PATIENCE, Scene, attach, case};
use crate::silent_file::SilentFile;

/// Longest that a port's removal may take.
const REMOVAL: Duration = Duration::from_secs(2);
/// Longest that an answer may take on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(5);

const BYTES: u64 = 1 << 20;

/// A message with descriptors; the header's flags are those of one that wants an answer.
struct Sent {
    what: &'static str,
    request: u32,
    payload: Vec<u8>,
    fds: usize,
}

fn sent(what: &'static str, request: Request, payload: &[u8], fds: usize) -> Sent {
    Sent { what, request: request as u32, payload: payload.to_vec(), fds }
}

/// Every message that takes a descriptor, and some that take none.
fn messages() -> Vec<Sent> {
    let region = MemoryRegion { gpa: 0, size: BYTES, va: 1 << 40, mmap_offset: 0 };
    let table = [MemoryTableHead { regions: 1, padding: 0 }.as_bytes(), region.as_bytes()].concat();
    let single = SingleRegion { padding: 0, region };
    let ring = 1u64.to_ne_bytes();
    vec![
        sent("SET_MEM_TABLE", Request::SetMemTable, &table, 1),
        sent("ADD_MEM_REG", Request::AddMemReg, single.as_bytes(), 1),
        sent("REM_MEM_REG", Request::RemMemReg, single.as_bytes(), 1),
        sent("SET_VRING_KICK", Request::SetVringKick, &ring, 1),
        sent("SET_VRING_CALL", Request::SetVringCall, &ring, 1),
        sent("SET_VRING_ERR", Request::SetVringErr, &ring, 1),
        sent("SET_LOG_FD", Request::SetLogFd, &[], 1),
        sent("SET_LOG_BASE", Request::SetLogBase, &[0; 16], 1),
        sent("SET_OWNER, which takes none", Request::SetOwner, &[], 8),
        Sent { what: "an unknown request", request: 4711, payload: vec![0; 8], fds: 3 },
    ]
}

fn connect(path: &Path) -> FrontEnd {
    let mut front = FrontEnd::connect(path, ANSWER).expect("connects");
    let wanted = protocol::F_REPLY_ACK | protocol::F_CONFIGURE_MEM_SLOTS;
    front.set_protocol_features(wanted).expect("negotiated");
    front
}

fn say(front: &mut FrontEnd, message: &Sent, fd: BorrowedFd<'_>) {
    let size = message.payload.len() as u32;
    let header = Header { request: message.request, flags: flags::VERSION | flags::NEED_REPLY, size };
    let bytes = [header.as_bytes(), &message.payload].concat();
    front.send_raw(&bytes, &vec![fd; message.fds]).expect("sent");
}

/// What `work` returns, unless it takes longer than `limit`; then the rest of it goes on alone.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (says, said) = channel();
    std::thread::spawn(move || says.send(work()));
    said.recv_timeout(limit).ok()
}

/// Tries until a front end gets an answer: one that comes too early is one too many.
fn serves_the_next(path: &Path) {
    while !FrontEnd::connect(path, PATIENCE).is_ok_and(|mut front| front.features().is_ok()) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Plays `attack` at a port of its own, which then is removed and made anew under its path.
fn at_a_port_of_its_own(name: &str, scene: &mut Scene, attack: impl FnOnce(&Path), let_go: impl FnOnce()) {
    let path = scene.another_socket(name);
    let spec = VhostUserSpec::new(&path);
    let (id, port) = attach(&mut scene.switch, scene.pool, name, &spec);
    attack(&path);
    let start = Instant::now();
    let queues = scene.switch.remove_port(id).expect("its halves come home");
    drop(queues);
    let removed = within(REMOVAL, move || drop(port));
    let took = start.elapsed();
    let free = !path.exists();
    let again = removed.map(|()| attach(&mut scene.switch, scene.pool, name, &spec));
    if again.is_some() {
        drop(connect(&path));
    }
    let_go();
    if let Some((id, port)) = again {
        drop((scene.switch.remove_port(id).expect("its halves come home"), port));
    }
    assert!(removed.is_some(), "{name}: not removed after {took:?}");
    assert!(free, "{name}: the socket is still there");
}

/// Files that never answer, in every message: it is refused or done, and the next one answered.
#[test]
fn a07_files_that_never_answer_need_root_and_fuse() {
    case(|scene| {
        for (n, message) in messages().into_iter().enumerate() {
            println!("{}", message.what);
            let mut silent = SilentFile::new();
            let before = scene.victims_received();
            let mut answered = false;
            let attack = |path: &Path| {
                let mut front = connect(path);
                say(&mut front, &message, silent.as_fd());
                drop(front);
                let path = path.to_owned();
                answered = within(ANSWER, move || serves_the_next(&path)).is_some();
            };
            at_a_port_of_its_own(&format!("a7-{n}"), scene, attack, || {});
            silent.abort();
            assert!(answered, "{}: nobody was served after it", message.what);
            assert!(scene.victims_received() > before);
        }
    });
}

/// A memfd whose inode lock is held, so that sealing it would wait: it is taken as it is.
#[test]
fn a07_a_memfd_that_cannot_be_sealed_now_needs_root_and_fuse() {
    case(|scene| {
        for (n, message) in messages().into_iter().take(2).enumerate() {
            println!("{}", message.what);
            let mut silent = SilentFile::new();
            let memfd = silent.locked_memfd(BYTES);
            let mut answer = None;
            let attack = |path: &Path| {
                let mut front = connect(path);
                say(&mut front, &message, memfd.as_fd());
                answer = within(ANSWER, move || front.recv_reply().map(|reply| reply.payload).ok());
            };
            at_a_port_of_its_own(&format!("a7-lock-{n}"), scene, attack, || {});
            silent.abort();
            assert_eq!(answer, Some(Some(0u64.to_ne_bytes().to_vec())), "{}", message.what);
        }
    });
}

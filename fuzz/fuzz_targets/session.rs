//! Any front end behind a port's socket: messages legal and illegal in any order, with descriptors of every kind, while lcores
//! work on the rings and its memory is written and cut. The session ends with its connection, and then nothing is left of it: not
//! a descriptor, not a mapping, not an mbuf.
#![no_main]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mbuf::{Burst, Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{Port, QueueEnv, RxQueue, TxQueue};
use polder_fuzz::census::{self, Census};
use polder_fuzz::connect::connect;
use polder_fuzz::conversation::{Kind, MEMORY, MOST, Message, Step};
use polder_fuzz::input::Input;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open};
use rustix::pipe::pipe;
use vhost::driver::{FrontEnd, FrontEndError};
use vhost::wire::message::{Header, Request, flags};
use vhost::{VhostUserPort, VhostUserSpec};
use zerocopy::IntoBytes;

/// A memfd's name, as /proc/self/maps shows it.
const NAME: &str = "fuzz-guest";
/// Far more than a message takes.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a front end can put into a message.
struct Descriptors {
    /// By [`Kind`], but for the socket of the connection.
    all: Vec<OwnedFd>,
}

impl Descriptors {
    /// Fresh ones, but for those of a file system, which carry no state from one run to the next.
    fn new() -> Self {
        let memory = memfd(MEMORY);
        let reopen = |flags| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
            open(path, flags | OFlags::CLOEXEC, Mode::empty()).expect("our own memory")
        };
        let (reader, writer) = pipe().expect("a pipe");
        let sealed = memfd(MEMORY);
        fcntl_add_seals(&sealed, SealFlags::WRITE).expect("a memfd that takes seals");
        let full = event();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).expect("it counts so far");
        let others = vec![
            memfd(MEMORY),
            event(),
            memfd(5000),
            memfd(0),
            sealed,
            reopen(OFlags::RDONLY),
            reopen(OFlags::PATH),
            full,
            reader,
            writer,
            UnixStream::pair().expect("sockets").0.into(),
            event(),
            open("/", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("a folder"),
            open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("a device"),
            epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll set"),
        ];
        Self { all: std::iter::once(memory).chain(others).collect() }
    }

    fn get<'a>(&'a self, number: u8, socket: &'a UnixStream) -> BorrowedFd<'a> {
        match Kind::from_byte(number) {
            Kind::OwnSocket => socket.as_fd(),
            kind => self.all[kind as usize].as_fd(),
        }
    }
}

fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create(NAME, MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, size).expect("ftruncate");
    fd
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

/// A port, and what an lcore has of it.
struct Rig {
    socket: PathBuf,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
    pool: &'static Mempool,
    /// As it is with a front end connected that has said nothing.
    baseline: Option<Census>,
    next: Option<Peer>,
    _port: VhostUserPort,
    _folder: tempfile::TempDir,
}

/// A connection: one handle to speak by, and one to pass on.
struct Peer {
    front: FrontEnd,
    socket: UnixStream,
}

impl Peer {
    fn new(socket: UnixStream) -> Self {
        let copy = socket.try_clone().expect("a descriptor more");
        Self { front: FrontEnd::over(copy, PATIENCE), socket }
    }

    /// Waits until everything that was sent was dealt with; false if the port hung up.
    fn settle(&mut self) -> bool {
        let header = Header { request: Request::GetProtocolFeatures as u32, flags: flags::VERSION, size: 0 };
        let mut step = || {
            self.front.send_raw(header.as_bytes(), &[])?;
            while self.front.recv_reply()?.header.request != header.request {}
            Ok(())
        };
        match step() {
            Ok(()) => true,
            Err(FrontEndError::Timeout(_)) => panic!("the port answers no more"),
            Err(_) => false,
        }
    }

    /// False if the port hung up.
    fn send(&mut self, message: &Message, descriptors: &Descriptors) -> bool {
        let size = message.size.unwrap_or(message.payload.len() as u32);
        let header = Header { request: message.request, flags: message.flags, size };
        let bytes = [header.as_bytes(), &message.payload].concat();
        let fds: Vec<_> = message.descriptors.iter().map(|n| descriptors.get(*n, &self.socket)).collect();
        self.front.send_raw(&bytes, &fds).is_ok()
    }
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let spec = VhostUserSpec { queues: 2, ..VhostUserSpec::new(&socket) };
        let mut port = VhostUserPort::new(&spec).expect("a port");
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        let config = MempoolConfig { mbufs: 512, cache: 0, zone, ..MempoolConfig::default() };
        let pool = Mempool::new(&config).expect("a pool");
        let queues = port.open(QueueEnv { pool, port: 1 }).expect("halves");
        let (rx, tx) = (queues.rx, queues.tx);
        Self { socket, rx, tx, pool, baseline: None, next: None, _port: port, _folder: folder }
    }

    fn connect(&self) -> Peer {
        Peer::new(connect(&self.socket))
    }

    fn run(&mut self, input: &mut Input<'_>) {
        let mut peer = self.next.take().unwrap_or_else(|| self.connect());
        let descriptors = Descriptors::new();
        for _ in 0..MOST {
            let Some(step) = Step::read(input) else { break };
            if !self.act(step, &mut peer, &descriptors) {
                break;
            }
        }
        drop((peer, descriptors));
        self.expect_nothing_left();
    }

    /// False if the port hung up.
    fn act(&mut self, step: Step, peer: &mut Peer, descriptors: &Descriptors) -> bool {
        let memory = descriptors.all[0].as_fd();
        match step {
            Step::Message(message) => return peer.send(&message, descriptors),
            Step::Raw(bytes) => return peer.front.send_raw(&bytes, &[]).is_ok(),
            Step::Barrier => return peer.settle(),
            Step::Receive => self.receive(),
            Step::Send(count) => self.send(count),
            Step::Sleep => self.rx.iter_mut().for_each(|rx| {
                rx.arm();
                rx.disarm();
            }),
            Step::Write { at, value } => {
                // It may be cut shorter than that, and grow again; it may be sealed.
                let _ = rustix::io::pwrite(memory, &value.to_le_bytes(), at.into());
            }
            Step::Truncate { pages } => {
                let _ = ftruncate(memory, u64::from(pages % 1024) * 4096);
            }
            Step::Reconnect => *peer = self.connect(),
        }
        true
    }

    fn receive(&mut self) {
        for rx in &mut self.rx {
            let mut burst = Burst::new();
            rx.rx_burst(&mut burst);
            for mbuf in burst.iter() {
                let mut bytes = vec![0; mbuf.len()];
                assert_eq!(mbuf.copy_to(0, &mut bytes), mbuf.len());
            }
            drop(burst);
            rx.complete();
        }
    }

    fn send(&mut self, count: u8) {
        for tx in &mut self.tx {
            let mut burst = Burst::new();
            for n in 0..count % 33 {
                let mut mbuf = self.pool.alloc(1).expect("an mbuf");
                mbuf.append(60 + usize::from(n) * 40).expect("room").fill(n);
                assert!(burst.push(mbuf).is_ok());
            }
            tx.tx_burst(&mut burst);
            drop(burst);
            tx.flush();
        }
    }

    /// Once the next front end is served, the one before is gone: with all that it brought.
    fn expect_nothing_left(&mut self) {
        let mut next = self.connect();
        assert!(next.settle(), "the next front end is not served");
        let balance = self.pool.balance();
        assert_eq!(balance.out, 0, "{balance:?}");
        let baseline = *self.baseline.get_or_insert_with(|| census::take(NAME));
        let end = Instant::now() + PATIENCE;
        // What a descriptor in flight held is let go of by the system a moment later.
        while census::take(NAME) != baseline {
            let (now, fds) = (census::take(NAME), census::descriptors());
            assert!(Instant::now() < end, "{baseline:?} was, now {now:?}: {fds:#?}");
            std::thread::yield_now();
        }
        self.next = Some(next);
    }
}

fuzz_target!(|input: &[u8]| {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    let rig = RIG.get_or_init(|| {
        let mut rig = Rig::new();
        // What is made once, at the first ring or the first call, belongs to no session.
        rig.run(&mut Input(include_bytes!("../corpus/session/two-pairs")));
        rig.baseline = None;
        Mutex::new(rig)
    });
    rig.lock().expect("no run before this one failed").run(&mut Input(input));
});

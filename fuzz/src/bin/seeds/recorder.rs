//! Front ends recorded at their sockets: every message that passes between one of ours and a port, and what its descriptors are.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use mbuf::{Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{Port, QueueEnv};
use polder_fuzz::conversation::{Kind, Message, Step};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost::driver::{BufferConfig, Cut, FrontEnd, VirtioNet, VirtioNetConfig};
use vhost::wire::message::{Header, Request, protocol};
use vhost::wire::net::{F_CSUM, F_EVENT_IDX, F_GUEST_CSUM, F_HOST_TSO4, F_RING_PACKED};
use vhost::{VhostUserPort, VhostUserSpec};
use zerocopy::IntoBytes;

use crate::Seeds;

const PATIENCE: Duration = Duration::from_secs(10);

/// What was recorded so far.
type Tape = Arc<Mutex<Vec<u8>>>;

fn note(tape: &Tape, step: &Step) {
    step.write(&mut tape.lock().expect("nobody panicked"));
}

/// Receives exactly `bytes`, and the descriptors that come with their first; false at the end.
fn receive(socket: &UnixStream, mut bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> bool {
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let Ok(got) = got else { return false };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if got.bytes == 0 {
            return false;
        }
        bytes = &mut bytes[got.bytes..];
    }
    true
}

fn kind_of(fd: &OwnedFd) -> u8 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("/proc is mounted");
    let link = link.display().to_string();
    let kind = if link.starts_with("/memfd:") { Kind::Memory } else { Kind::Event };
    kind as u8
}

/// Passes messages on from a front end to a port, and notes them, until the front end hangs up.
fn pass_on(from: &UnixStream, to: UnixStream, tape: &Tape) {
    let mut to = FrontEnd::over(to, PATIENCE);
    let (mut header, mut fds) = (Header::default(), Vec::new());
    while receive(from, header.as_mut_bytes(), &mut fds) {
        let mut payload = vec![0; header.size as usize];
        receive(from, &mut payload, &mut fds);
        let descriptors = fds.iter().map(kind_of).collect();
        let (request, flags) = (header.request, header.flags);
        let message = Message { request, flags, size: None, descriptors, payload: payload.clone() };
        note(tape, &Step::Message(message));
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        to.send_raw(&[header.as_bytes(), &payload].concat(), &borrowed).expect("the port takes it");
        fds.clear();
    }
}

/// The front end's end of a connection to a port of `queues`, every message of which is noted.
fn recorded(queues: u16) -> (UnixStream, Tape, VhostUserPort, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let mut port =
        VhostUserPort::new(&VhostUserSpec { queues, ..VhostUserSpec::new(&path) }).expect("a port");
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    let config = MempoolConfig { mbufs: 64, cache: 0, zone, ..MempoolConfig::default() };
    let pool = Mempool::new(&config).expect("a pool");
    drop(port.open(QueueEnv { pool, port: 1 }).expect("halves"));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let there = UnixStream::connect(&path).expect("it listens");
    let tape = Tape::default();
    let (back, mut front) = (there.try_clone().expect("a copy"), theirs.try_clone().expect("a copy"));
    thread::spawn(move || std::io::copy(&mut &back, &mut front));
    let noted = Arc::clone(&tape);
    thread::spawn(move || pass_on(&theirs, there, &noted));
    (ours, tape, port, folder)
}

/// A driver comes up, works, and goes.
fn driver(queues: u16, config: VirtioNetConfig) -> Vec<u8> {
    let (socket, tape, _port, _folder) = recorded(queues);
    let net = VirtioNet::over(FrontEnd::over(socket, PATIENCE), config).expect("a device");
    for step in [Step::Barrier, Step::Receive, Step::Send(4), Step::Sleep] {
        note(&tape, &step);
    }
    net.disconnect().expect("the rings stop");
    note(&tape, &Step::Barrier);
    tape.lock().expect("nobody panicked").clone()
}

/// A VMM that plugs memory in and out, announces a guest, and resets the device.
fn hot_plug() -> Vec<u8> {
    let (socket, tape, _port, _folder) = recorded(1);
    let mut front = FrontEnd::over(socket, PATIENCE);
    let offered = front.features().expect("features");
    front.protocol_features().expect("protocol features");
    let wanted = protocol::F_REPLY_ACK
        | protocol::F_CONFIGURE_MEM_SLOTS
        | protocol::F_RARP
        | protocol::F_MTU
        | protocol::F_STATUS
        | protocol::F_RESET_DEVICE;
    front.set_protocol_features(wanted).expect("accepted");
    front.set_owner().expect("accepted");
    front.set_features(offered).expect("accepted");
    front.max_mem_slots().expect("a number");
    let ram = vhost::driver::GuestRam::new(vhost::driver::RamConfig {
        bytes: 2 << 20,
        ..vhost::driver::RamConfig::default()
    });
    let ram = ram.expect("RAM");
    let region = ram.region();
    front.add_mem_reg(region, ram.as_fd()).expect("accepted");
    front.add_mem_reg(region, ram.as_fd()).expect("once for each pair");
    front.set_mtu(1500).expect("accepted");
    front.send_rarp([0x52, 0x54, 0, 0, 0, 1]).expect("accepted");
    front.set_status(0xf).expect("accepted");
    front.status().expect("a number");
    front.rem_mem_reg(region).expect("there");
    front.rem_mem_reg(region).expect("there");
    front.reset_device().expect("accepted");
    let _: u64 = front.ask(Request::GetQueueNum, &[]).expect("a number");
    note(&tape, &Step::Barrier);
    tape.lock().expect("nobody panicked").clone()
}

pub(crate) fn all() -> Seeds {
    let small = VirtioNetConfig { queue_size: 16, ..VirtioNetConfig::default() };
    let more = small.features | F_EVENT_IDX | F_CSUM | F_GUEST_CSUM | F_HOST_TSO4;
    let indirect = BufferConfig { cut: Cut::Whole, indirect: true, ..BufferConfig::default() };
    vec![
        ("split", driver(1, small)),
        ("split-offloads", driver(1, VirtioNetConfig { features: more, tx: indirect, ..small })),
        ("packed", driver(1, VirtioNetConfig { features: more | F_RING_PACKED, queue_size: 12, ..small })),
        ("two-pairs", driver(2, VirtioNetConfig { queue_pairs: 2, ..small })),
        ("hot-plug", hot_plug()),
    ]
}

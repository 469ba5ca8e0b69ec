//! A front end that sends whatever a test wants, byte by byte if need be.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pmd::Port;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::wire::message::{
    Header, MemoryRegion, MemoryTableHead, Request, VringAddr, VringState, flags, protocol,
};
use vhost::{VhostUserPort, VhostUserSpec};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) const MEMORY: u64 = 4 << 20;
pub(crate) const VA: u64 = 0x7f00_0000_0000;

/// A port in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) port: VhostUserPort,
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn server(queues: u16) -> Self {
        Self::new(|path| VhostUserSpec { queues, ..VhostUserSpec::new(path) })
    }

    pub(crate) fn new(spec: impl FnOnce(&Path) -> VhostUserSpec) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vm.sock");
        let port = VhostUserPort::new(&spec(&path)).expect("a port");
        Self { port, path, _directory: directory }
    }

    pub(crate) fn connect(&self) -> RawFrontEnd {
        RawFrontEnd::new(UnixStream::connect(&self.path).expect("connect"))
    }

    /// The value of one line of the port's details.
    pub(crate) fn detail(&self, name: &str) -> Option<String> {
        self.port.details().into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.detail(name).map_or(0, |n| n.parse().expect("a number"))
    }

    /// Waits until a counter stands at `n` or more.
    pub(crate) fn wait_for(&self, name: &str, n: u64) {
        wait_until(name, || self.count(name) >= n);
    }
}

/// Waits up to five seconds for something to come true.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) struct RawFrontEnd {
    pub(crate) stream: UnixStream,
}

impl RawFrontEnd {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        Self { stream }
    }

    /// Sends bytes with descriptors on their first.
    pub(crate) fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)), "room for {}", fds.len());
        }
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    }

    pub(crate) fn send(&self, request: Request, extra: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let bytes = message(request as u32, extra, payload);
        assert_eq!(self.send_raw(&bytes, fds), Ok(bytes.len()));
    }

    pub(crate) fn reply(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header).expect("a reply");
        let header = Header::read_from_bytes(&header).expect("12 bytes");
        let mut payload = vec![0; header.size as usize];
        self.stream.read_exact(&mut payload).expect("its payload");
        (header, payload)
    }

    fn u64_reply(&mut self) -> u64 {
        u64::read_from_bytes(&self.reply().1).expect("a u64")
    }

    pub(crate) fn get(&mut self, request: Request) -> u64 {
        self.send(request, 0, &[], &[]);
        self.u64_reply()
    }

    /// Sends a message and waits until it was dealt with.
    pub(crate) fn ask<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        request: Request,
        payload: &T,
        fds: &[&OwnedFd],
    ) -> u64 {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.send(request, flags::NEED_REPLY, payload.as_bytes(), &fds);
        self.u64_reply()
    }

    pub(crate) fn state(&mut self, request: Request, index: u32, num: u32) -> u64 {
        self.ask(request, &VringState { index, num }, &[])
    }

    pub(crate) fn vring_base(&mut self, index: u32) -> u32 {
        self.send(Request::GetVringBase, 0, VringState { index, num: 0 }.as_bytes(), &[]);
        VringState::read_from_bytes(&self.reply().1).expect("a state").num
    }

    /// Whether the port hung up, within five seconds.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Writes until nothing more goes in or the port hangs up; false if it hung up.
    pub(crate) fn flood(&mut self, bytes: &[u8], times: usize) -> bool {
        self.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("timeout");
        match (0..times).try_for_each(|_| self.stream.write_all(bytes)) {
            Ok(()) => true,
            Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// From the first message to the memory table, in QEMU's order. `features` are struck out of those offered.
    pub(crate) fn negotiate(&mut self, memory: &OwnedFd, without: u64) {
        let offered = self.get(Request::GetFeatures);
        let protocol_features = self.get(Request::GetProtocolFeatures);
        self.send(Request::SetProtocolFeatures, 0, &protocol_features.to_ne_bytes(), &[]);
        assert_ne!(protocol_features & protocol::F_REPLY_ACK, 0);
        self.get(Request::GetQueueNum);
        self.get(Request::GetMaxMemSlots);
        assert_eq!(self.ask(Request::SetOwner, &(), &[]), 0);
        assert_eq!(self.get(Request::GetFeatures), offered);
        assert_eq!(self.ask(Request::SetVringCall, &0u64, &[&event()]), 0);
        assert_eq!(self.ask(Request::SetVringCall, &1u64, &[&event()]), 0);
        assert_eq!(self.state(Request::SetVringEnable, 0, 1), 0);
        assert_eq!(self.state(Request::SetVringEnable, 1, 1), 0);
        assert_eq!(self.ask(Request::SetFeatures, &(offered & !without), &[]), 0);
        assert_eq!(self.ask(Request::SetMemTable, table().as_slice(), &[memory]), 0);
    }

    /// One ring of 256 descriptors.
    pub(crate) fn start_ring(&mut self, index: u32) {
        assert_eq!(self.state(Request::SetVringNum, index, 256), 0);
        assert_eq!(self.state(Request::SetVringBase, index, 0), 0);
        assert_eq!(self.ask(Request::SetVringAddr, &addr(index), &[]), 0);
        assert_eq!(self.ask(Request::SetVringKick, &u64::from(index), &[&event()]), 0);
        assert_eq!(self.ask(Request::SetVringCall, &u64::from(index), &[&event()]), 0);
    }

    /// All of it: two rings run.
    pub(crate) fn handshake(&mut self) {
        self.negotiate(&memfd(MEMORY), 0);
        self.start_ring(0);
        self.start_ring(1);
    }
}

pub(crate) fn message(request: u32, extra: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { request, flags: flags::VERSION | extra, size: payload.len() as u32 };
    [header.as_bytes(), payload].concat()
}

/// One region of [`MEMORY`] bytes at guest address 0.
pub(crate) fn table() -> Vec<u8> {
    let head = MemoryTableHead { regions: 1, padding: 0 };
    let region = MemoryRegion { gpa: 0, size: MEMORY, va: VA, mmap_offset: 0 };
    [head.as_bytes(), region.as_bytes()].concat()
}

pub(crate) fn addr(index: u32) -> VringAddr {
    let start = VA + 0x1_0000 * u64::from(index);
    VringAddr { index, flags: 0, desc: start, avail: start + 0x4000, used: start + 0x8000, log: 0 }
}

pub(crate) fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create("session-test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, size).expect("ftruncate");
    fd
}

pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

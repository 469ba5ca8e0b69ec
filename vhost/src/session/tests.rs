//! Messages as a hostile front end sends them, straight to [`Session::handle`]. Names begin with numbers of docs/hostile.md.

mod calls;
mod device;
mod memory;
mod rings;
mod shapes;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::vring::{PortNotifier, RingNotifier};
use crate::wire::message::{MemoryRegion, MemoryTableHead, SingleRegion, VringAddr, VringState, vring_fd};
use crate::wire::net;
use pmd::alarm::Alarm;

/// Guest memory in these tests: one region at 0, in the front end's space at [`VA`].
const MEMORY: u64 = 4 << 20;
const VA: u64 = 0x7f00_0000_0000;

fn session(pairs: u16) -> Session {
    let alarm = Arc::new(Alarm::new().expect("eventfd"));
    let notifier = Arc::new(PortNotifier::new(alarm));
    let slot = |_| Arc::new(VringSlot::new(RingNotifier::new(Arc::clone(&notifier)), None));
    let slots = (0..2 * pairs).map(slot).collect();
    let offer = Offer { name: "test".into(), pairs, max_mtu: 9000 };
    let mut session = Session::new(offer, slots, Arc::default());
    session.begin(Peer { pid: 1, uid: 0 });
    session
}

/// A session that negotiated all it could, REPLY_ACK included, with split rings, and has memory.
fn negotiated(pairs: u16) -> Session {
    negotiated_without(pairs, net::F_RING_PACKED)
}

/// The same with packed rings.
fn negotiated_packed(pairs: u16) -> Session {
    negotiated_without(pairs, 0)
}

fn negotiated_without(pairs: u16, left_out: u64) -> Session {
    let mut s = session(pairs);
    let features = s.get(Request::GetFeatures) & !left_out;
    let protocol_features = s.get(Request::GetProtocolFeatures);
    assert_eq!(s.ask(Request::SetProtocolFeatures, &protocol_features, vec![]), Ok(0));
    assert_eq!(s.ask(Request::SetFeatures, &features, vec![]), Ok(0));
    assert_eq!(
        s.ask(Request::SetMemTable, table(&[region(0, MEMORY, VA)]).as_slice(), vec![memfd(MEMORY)]),
        Ok(0)
    );
    s
}

/// A session whose ring 0 runs.
fn running() -> Session {
    let mut s = negotiated(1);
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(s.slots[0].is_running());
    s
}

/// The session ended, for a reason of this name.
type Ended = &'static str;

impl Session {
    /// Sends a message; the reply's payload, or why the session ended.
    fn send(
        &mut self,
        request: u32,
        extra_flags: u32,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Vec<u8>>, Ended> {
        let header = Header { request, flags: flags::VERSION | extra_flags, size: payload.len() as u32 };
        let closer = closer::Closer::default();
        let fds = fds.into_iter().map(|fd| received::Received::new(fd, &closer)).collect();
        match self.handle(Message { header, payload: payload.to_vec(), fds }) {
            Step::Quiet => Ok(None),
            Step::Answer(bytes) => {
                let (reply, rest) = Header::read_from_prefix(&bytes).expect("a header");
                assert_eq!((reply.request, reply.flags), (request, flags::VERSION | flags::REPLY));
                assert_eq!(reply.size as usize, rest.len());
                Ok(Some(rest.to_vec()))
            }
            Step::End(trouble) => Err(trouble.name()),
        }
    }

    /// Sends a message that wants an answer, and takes a `u64` for it.
    fn ask<T: IntoBytes + zerocopy::Immutable + ?Sized>(
        &mut self,
        request: Request,
        payload: &T,
        fds: Vec<OwnedFd>,
    ) -> Result<u64, Ended> {
        let reply = self.send(request as u32, flags::NEED_REPLY, payload.as_bytes(), fds)?;
        // Before REPLY_ACK is negotiated there is none.
        Ok(reply.map_or(0, |bytes| u64::read_from_bytes(&bytes).expect("a u64")))
    }

    fn get(&mut self, request: Request) -> u64 {
        self.ask(request, &(), vec![]).expect("an answer")
    }

    fn state(&mut self, request: Request, index: u32, num: u32) -> Result<u64, Ended> {
        self.ask(request, &VringState { index, num }, vec![])
    }

    fn vring_base(&mut self, index: u32) -> Result<VringState, Ended> {
        let state = VringState { index, num: 0 };
        let reply = self.send(Request::GetVringBase as u32, 0, state.as_bytes(), vec![])?;
        Ok(VringState::read_from_bytes(&reply.expect("its own reply")).expect("a state"))
    }

    /// The set-up of one ring of 256 as QEMU sends it; the answer to its last message.
    fn set_up_ring(&mut self, index: u32) -> Result<u64, Ended> {
        assert_eq!(self.state(Request::SetVringNum, index, 256), Ok(0));
        assert_eq!(self.state(Request::SetVringBase, index, 7), Ok(0));
        assert_eq!(self.ask(Request::SetVringAddr, &addr(index), vec![]), Ok(0));
        assert_eq!(self.ask(Request::SetVringCall, &u64::from(index), vec![event()]), Ok(0));
        self.ask(Request::SetVringKick, &u64::from(index), vec![event()])
    }

    fn times(&self, name: &str) -> u64 {
        self.tally.get(name).copied().unwrap_or(0)
    }
}

/// Where ring `index` lies: 64 KiB for each.
fn addr(index: u32) -> VringAddr {
    let start = VA + 0x1_0000 * u64::from(index);
    VringAddr { index, flags: 0, desc: start, avail: start + 0x4000, used: start + 0x8000, log: 0 }
}

fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create("session-test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, size).expect("ftruncate");
    fd
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")
}

fn region(gpa: u64, size: u64, va: u64) -> MemoryRegion {
    MemoryRegion { gpa, size, va, mmap_offset: 0 }
}

fn table(regions: &[MemoryRegion]) -> Vec<u8> {
    let head = MemoryTableHead { regions: regions.len() as u32, padding: 0 };
    [head.as_bytes(), regions.as_bytes()].concat()
}

//! SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR, SET_VRING_ENABLE and
//! GET_VRING_BASE.
//!
//! A ring starts as soon as its size, its addresses, its kick and the memory they lie in are there, in whatever order they
//! came, and stops by GET_VRING_BASE. What changes a running ring stops it, changes it, and starts it again where it
//! stood: the data plane only ever sees whole set-ups.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Session;
use super::message::{Message, Reply};
use super::received::Received;
use super::trouble::{Refusal, Trouble};
use crate::memory::{FrontendVa, Window};
use crate::vring::{Fault, HungKick, VringSetup};
use crate::wire::message::{VringAddr, VringState};
use crate::wire::net::{F_PROTOCOL_FEATURES, F_RING_PACKED};
use crate::wire::packed::{self, Position};
use crate::wire::ring::{MAX_SIZE, avail_bytes, desc_bytes, used_bytes};

/// How the guest's driver notifies us. That it is set says that the ring may start.
#[derive(Debug)]
pub(super) enum Kick {
    /// The front end asked to be polled.
    Poll,
    /// It wakes an lcore that sleeps.
    Event { _hung: HungKick },
}

/// What the front end said of one ring.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) size: Option<u16>,
    addr: Option<VringAddr>,
    /// As set, or where the ring stood when it stopped; without, where rings of its format start.
    base: Option<u32>,
    kick: Option<Kick>,
    pub(super) call: Option<Arc<OwnedFd>>,
    pub(super) err: Option<Arc<OwnedFd>>,
    enabled: bool,
    /// The slot has it.
    pub(super) running: bool,
    /// The fault that was reported already.
    pub(super) seen_fault: Option<Fault>,
    /// It broke, and the front end is not told yet.
    pub(super) err_due: bool,
}

impl Session {
    pub(super) fn set_vring_num(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let state: VringState = m.payload()?;
        let i = self.ring_index(state.index.into())?;
        let size = u16::try_from(state.num).map_err(|_| Refusal::RingSize(state.num))?;
        self.check_size(size)?;
        self.change_ring(i, |ring| ring.size = Some(size))
    }

    pub(super) fn set_vring_addr(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let addr: VringAddr = m.payload()?;
        let i = self.ring_index(addr.index.into())?;
        if addr.flags != 0 {
            return Err(Refusal::NotNegotiated("LOG_ALL").into());
        }
        self.check_addresses(&addr)?;
        self.change_ring(i, |ring| ring.addr = Some(addr))
    }

    pub(super) fn set_vring_base(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let state: VringState = m.payload()?;
        let i = self.ring_index(state.index.into())?;
        self.check_base(state.num)?;
        self.change_ring(i, |ring| ring.base = Some(state.num))
    }

    /// Stops the ring for good: it needs new addresses and a new kick to run again.
    pub(super) fn get_vring_base(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let state: VringState = m.payload()?;
        let i = self.ring_index(state.index.into())?;
        self.clear_ring(i);
        Ok(Reply::State(VringState { index: state.index, num: self.base(i) }))
    }

    pub(super) fn set_vring_kick(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        let (i, fd) = self.ring_and_eventfd(m)?;
        let slot = || Arc::clone(&self.slots[i]);
        let kick = fd.map_or(Kick::Poll, |fd| Kick::Event { _hung: HungKick::new(fd, slot()) });
        self.change_ring(i, |ring| ring.kick = Some(kick))
    }

    pub(super) fn set_vring_call(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        let (i, fd) = self.ring_and_eventfd(m)?;
        let fd = fd.map(Arc::new);
        self.slots[i].set_call(fd.clone());
        self.rings[i].call = fd;
        Ok(Reply::Done)
    }

    pub(super) fn set_vring_err(&mut self, m: &mut Message) -> Result<Reply, Trouble> {
        let (i, fd) = self.ring_and_eventfd(m)?;
        self.rings[i].err = fd.map(Arc::new);
        Ok(Reply::Done)
    }

    /// QEMU sends it before SET_FEATURES, too.
    pub(super) fn set_vring_enable(&mut self, m: &Message) -> Result<Reply, Trouble> {
        let state: VringState = m.payload()?;
        let i = self.ring_index(state.index.into())?;
        if self.features.is_some_and(|f| f & F_PROTOCOL_FEATURES == 0) {
            return Err(Refusal::NotNegotiated("PROTOCOL_FEATURES").into());
        }
        let enabled = match state.num {
            0 => false,
            1 => true,
            n => return Err(Refusal::Value(n.into()).into()),
        };
        let before = self.ring_is_enabled(i);
        self.rings[i].enabled = enabled;
        if self.ring_is_enabled(i) != before {
            self.slots[i].set_enabled(!before);
        }
        Ok(Reply::Done)
    }

    /// A ring's number as an index, checked before it is narrowed.
    fn ring_index(&self, index: u64) -> Result<usize, Refusal> {
        let rings = self.rings.len();
        usize::try_from(index).ok().filter(|i| *i < rings).ok_or(Refusal::RingIndex { index, rings })
    }

    fn ring_and_eventfd(&self, m: &mut Message) -> Result<(usize, Option<OwnedFd>), Trouble> {
        let (index, fd) = m.vring_fd()?;
        let i = self.ring_index(index)?;
        Ok((i, fd.map(Received::into_eventfd).transpose()?))
    }

    /// Without PROTOCOL_FEATURES there is no message to enable a ring: it is, from the start.
    pub(super) fn ring_is_enabled(&self, i: usize) -> bool {
        self.rings[i].enabled || self.features() & F_PROTOCOL_FEATURES == 0
    }

    fn change_ring(&mut self, i: usize, change: impl FnOnce(&mut Ring)) -> Result<Reply, Trouble> {
        self.stop_ring(i);
        change(&mut self.rings[i]);
        self.start_ring(i)?;
        Ok(Reply::Done)
    }

    /// Stops a ring if it runs, and remembers where it stood. When it returns, the data plane is out of it.
    pub(super) fn stop_ring(&mut self, i: usize) {
        if let Some(next) = self.slots[i].stop() {
            self.rings[i].base = Some(next);
        }
        self.rings[i].running = false;
    }

    pub(super) fn stop_rings(&mut self) {
        (0..self.rings.len()).for_each(|i| self.stop_ring(i));
    }

    /// Stops a ring, and forgets what would start it again.
    pub(super) fn clear_ring(&mut self, i: usize) {
        self.stop_ring(i);
        let ring = &mut self.rings[i];
        (ring.addr, ring.kick, ring.call) = (None, None, None);
    }

    /// Starts all rings that are set up. One that cannot be is counted, and stays stopped.
    pub(super) fn start_rings(&mut self) {
        for i in 0..self.rings.len() {
            if let Err(refusal) = self.start_ring(i) {
                self.note(&format!("ring {i}"), refusal.name(), &refusal);
            }
        }
    }

    /// Starts a ring if nothing is missing.
    fn start_ring(&mut self, i: usize) -> Result<(), Refusal> {
        let ring = &self.rings[i];
        let (Some(size), Some(addr), Some(_)) = (ring.size, ring.addr, &ring.kick) else { return Ok(()) };
        if self.memory.is_empty() {
            return Ok(());
        }
        let base = self.base(i);
        // Once more: what they are depends on the features, which may have changed.
        self.check_size(size)?;
        self.check_base(base)?;
        self.check_addresses(&addr)?;
        if self.is_packed() && !Position::is_base_within(base, size) {
            return Err(Refusal::PackedBase { base, size });
        }
        let parts = self.parts(size);
        let setup = VringSetup {
            size,
            desc: self.window(&parts[0], addr.desc)?,
            avail: self.window(&parts[1], addr.avail)?,
            used: self.window(&parts[2], addr.used)?,
            base,
            features: self.features(),
            memory: Arc::clone(&self.memory),
            call: ring.call.clone(),
            enabled: self.ring_is_enabled(i),
        };
        self.slots[i].start(setup).map_err(|_| Refusal::NoMemory(size))?;
        self.rings[i].running = true;
        self.rings[i].seen_fault = None;
        Ok(())
    }

    /// Where a ring stands, or starts if nobody said where.
    fn base(&self, i: usize) -> u32 {
        let start = if self.is_packed() { Position::base(Position::START) } else { 0 };
        self.rings[i].base.unwrap_or(start)
    }

    /// Forgets where the rings stand: it means nothing in another format.
    pub(super) fn forget_bases(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.base = None);
    }

    /// Whether rings are packed ones.
    pub(super) fn is_packed(&self) -> bool {
        self.features() & F_RING_PACKED != 0
    }

    /// §2.7, §2.8.10.1: only packed rings may have sizes that are no power of two.
    fn check_size(&self, size: u16) -> Result<(), Refusal> {
        match size {
            1..=MAX_SIZE if self.is_packed() || size.is_power_of_two() => Ok(()),
            _ => Err(Refusal::RingSize(size.into())),
        }
    }

    fn check_base(&self, base: u32) -> Result<(), Refusal> {
        if self.is_packed() || base <= u16::MAX.into() { Ok(()) } else { Err(Refusal::RingBase(base)) }
    }

    fn check_addresses(&self, addr: &VringAddr) -> Result<(), Refusal> {
        let addresses = [addr.desc, addr.avail, addr.used];
        for (Part { what, align, .. }, address) in self.parts(0).into_iter().zip(addresses) {
            if !address.is_multiple_of(align) {
                return Err(Refusal::RingAlignment { what, address, align });
            }
        }
        Ok(())
    }

    /// The three parts of a ring of `size`.
    fn parts(&self, size: u16) -> [Part; 3] {
        let part = |what, len: usize, align| Part { what, len: len as u64, align };
        if self.is_packed() {
            [
                part("descriptor ring", packed::desc_bytes(size), 16),
                part("driver event suppression", packed::EVENT_SIZE, 4),
                part("device event suppression", packed::EVENT_SIZE, 4),
            ]
        } else {
            [
                part("descriptor table", desc_bytes(size), 16),
                part("available ring", avail_bytes(size), 2),
                part("used ring", used_bytes(size), 4),
            ]
        }
    }

    fn window(&self, part: &Part, address: u64) -> Result<Window, Refusal> {
        let Part { what, len, .. } = *part;
        let window = self.memory.translate_va(FrontendVa(address), len);
        window.ok_or(Refusal::RingOutside { what, address, len })
    }
}

/// A part of a ring, as its format has it (§2.7, §2.8): its name, its bytes, and what its address is a multiple of.
struct Part {
    what: &'static str,
    len: u64,
    align: u64,
}

//! A card with virtual functions, in memory: what the driver sees through [`PciDevice`] and [`Registers`], so that the
//! unmodified driver runs in ordinary tests.
//!
//! It does what it is told at once, in the thread that rings a doorbell: a test is over in milliseconds, and repeatable. It reads and
//! writes only memory that was mapped for it, and records each try to do otherwise ([`Vf::dma_faults`]) and each descriptor
//! that a real card would take amiss ([`Vf::offences`]). Faults are set on a [`Vf`] while it runs ([`Card::with`]).
//!
//! A VF's frames go to the VF that it is joined with ([`Card::join`]), or are kept for the test ([`Card::sent`]).

mod dma;
mod pf;
mod receive;
mod registers;
mod transmit;
mod vf;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mbuf::Zone;

use super::regs::{BAR_SIZE, VECTORS};
use crate::alarm::Alarm;
use crate::bus::{BusError, DmaMapping, PciDevice, PciIds, Registers};

pub use pf::{Mood, Pf};
pub use vf::{RxLie, Vf};

/// A card.
#[derive(Clone, Debug)]
pub struct Card {
    vfs: Arc<Mutex<Vec<Vf>>>,
}

impl Card {
    /// One with so many VFs of an 82576. Each has a MAC from its PF, 02:00:00:00:00:n, and its link is up.
    #[must_use]
    pub fn new(vfs: u8) -> Self {
        Self { vfs: Arc::new(Mutex::new((0..vfs).map(Vf::new).collect())) }
    }

    /// Does something with VF `n`.
    ///
    /// # Panics
    /// If there is no such VF: a bug of the test.
    pub fn with<A>(&self, n: usize, what: impl FnOnce(&mut Vf) -> A) -> A {
        what(&mut self.lock()[n])
    }

    /// What VF `a` sends arrives at `b`, and the other way round.
    pub fn join(&self, a: usize, b: usize) {
        let mut vfs = self.lock();
        (vfs[a].peer, vfs[b].peer) = (Some(b), Some(a));
    }

    /// What VF `n` sends is kept for the test from now on.
    pub fn part(&self, n: usize) {
        self.with(n, |vf| vf.peer = None);
    }

    /// Brings VF `n`'s link up or down; the PF pings. What waits in its transmit rings goes out when it comes up.
    pub fn set_link(&self, n: usize, up: bool) {
        self.with(n, |vf| vf.set_link(up));
        if up {
            self.ring(n);
        }
    }

    /// Pauses VF `n`'s wire, as the link partner's PAUSE frames do, or lets it go on: then what waits goes out.
    pub fn set_paused(&self, n: usize, paused: bool) {
        self.with(n, |vf| vf.set_paused(paused));
        if !paused {
            self.ring(n);
        }
    }

    /// Has VF `n` look at its transmit rings, as at a doorbell.
    pub fn ring(&self, n: usize) {
        let frames = self.with(n, |vf| [vf.transmit(0), vf.transmit(1)].concat());
        self.carry(n, frames);
    }

    /// Frames that VF `n` sent to nobody, oldest first; they are taken out.
    #[must_use]
    pub fn sent(&self, n: usize) -> Vec<Vec<u8>> {
        self.with(n, |vf| core::mem::take(&mut vf.sent))
    }

    /// A frame arrives at VF `n`; whether it had room.
    pub fn receive(&self, n: usize, frame: &[u8]) -> bool {
        self.with(n, |vf| vf.receive(frame))
    }

    /// Pulls VF `n` out: registers read all ones, nothing touches memory any more.
    pub fn unplug(&self, n: usize) {
        self.with(n, |vf| vf.is_plugged = false);
    }

    /// Puts a new one in the place of a VF that was pulled out. Who has the old one open has it no more.
    pub fn plug(&self, n: usize) {
        self.with(n, Vf::replace);
    }

    /// Asks the driver to let go of VF `n`.
    pub fn ask_back(&self, n: usize) {
        self.with(n, |vf| vf.removal.raise());
    }

    /// Opens VF `n`.
    ///
    /// # Errors
    /// [`BusError::Gone`] if it is pulled out.
    pub fn open(&self, n: usize) -> Result<ModelVf, BusError> {
        let name = format!("0000:00:10.{n}");
        let vfs = self.lock();
        if !vfs[n].is_plugged {
            return Err(BusError::Gone(name));
        }
        let removal = Arc::clone(&vfs[n].removal);
        let at = Place { card: self.clone(), n, generation: vfs[n].generation };
        drop(vfs);
        Ok(ModelVf { name, removal, bar: Arc::new(ModelBar { at: at.clone() }), at })
    }

    /// Brings frames that VF `n` sent where they go.
    fn carry(&self, n: usize, frames: Vec<Vec<u8>>) {
        if frames.is_empty() {
            return;
        }
        let mut vfs = self.lock();
        match vfs[n].peer {
            None => vfs[n].sent.extend(frames),
            Some(peer) => frames.iter().for_each(|frame| {
                vfs[peer].receive(frame);
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vf>> {
        self.vfs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A VF as long as it is plugged in.
#[derive(Clone, Debug)]
struct Place {
    card: Card,
    n: usize,
    generation: u64,
}

impl Place {
    /// Does something with it, unless it is gone.
    fn with<A>(&self, what: impl FnOnce(&mut Vf) -> A) -> Option<A> {
        let mut vfs = self.card.lock();
        let vf = &mut vfs[self.n];
        (vf.is_plugged && vf.generation == self.generation).then(|| what(vf))
    }
}

/// A VF that was opened.
#[derive(Debug)]
pub struct ModelVf {
    name: String,
    removal: Arc<Alarm>,
    at: Place,
    bar: Arc<ModelBar>,
}

impl ModelVf {
    fn there<A>(&self, what: impl FnOnce(&mut Vf) -> A) -> Result<A, BusError> {
        self.at.with(what).ok_or_else(|| BusError::Gone(self.name.clone()))
    }
}

impl PciDevice for ModelVf {
    type Bar = ModelBar;

    fn name(&self) -> &str {
        &self.name
    }

    fn ids(&self) -> PciIds {
        let device = self.at.with(|vf| vf.device_id).unwrap_or(u16::MAX);
        PciIds { vendor: 0x8086, device, ..PciIds::default() }
    }

    fn read_config(&self, offset: u16, bytes: &mut [u8]) -> Result<(), BusError> {
        bytes.fill(0xff);
        self.there(|vf| bytes.copy_from_slice(&vf.config[usize::from(offset)..][..bytes.len()]))
    }

    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError> {
        self.there(|vf| vf.config[usize::from(offset)..][..bytes.len()].copy_from_slice(bytes))
    }

    fn bar(&self, index: u8) -> Result<Arc<ModelBar>, BusError> {
        if index == 0 {
            return Ok(Arc::clone(&self.bar));
        }
        Err(BusError::Lacks { device: self.name.clone(), what: format!("no BAR {index}") })
    }

    fn map(&self, zone: &Zone) -> Result<DmaMapping, BusError> {
        let (start, len) = (zone.base().addr().get() as u64, zone.len() as u64);
        let page = zone.page_size().bytes() as u64;
        self.there(|vf| vf.memory.map(start, len, page))?;
        Ok(DmaMapping::new(Mapped { card: self.at.card.clone(), n: self.at.n, start }, 0))
    }

    fn has_iommu(&self) -> bool {
        true
    }

    fn reset(&self) -> Result<(), BusError> {
        self.there(Vf::reset)
    }

    fn vectors(&self) -> usize {
        VECTORS
    }

    fn set_interrupts(&self, events: &[OwnedFd]) -> Result<(), BusError> {
        let copies: Result<Vec<_>, _> = events.iter().map(OwnedFd::try_clone).collect();
        let copies = copies.map_err(BusError::os("dup of an eventfd"))?;
        self.there(|vf| vf.events = copies)
    }

    fn removal(&self) -> Option<BorrowedFd<'_>> {
        Some(self.removal.as_fd())
    }
}

/// Ends a mapping, whether the VF is there or not.
struct Mapped {
    card: Card,
    n: usize,
    start: u64,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.card.with(self.n, |vf| vf.memory.unmap(self.start));
    }
}

/// A VF's registers.
#[derive(Debug)]
pub struct ModelBar {
    at: Place,
}

impl Registers for ModelBar {
    fn size(&self) -> usize {
        BAR_SIZE
    }

    fn read8(&self, offset: usize) -> u8 {
        (self.read32(offset & !3) >> (8 * (offset & 3))) as u8
    }

    fn read16(&self, offset: usize) -> u16 {
        (self.read32(offset & !3) >> (8 * (offset & 2))) as u16
    }

    fn read32(&self, offset: usize) -> u32 {
        self.at.with(|vf| if vf.is_there() { vf.read(offset) } else { u32::MAX }).unwrap_or(u32::MAX)
    }

    fn write8(&self, _: usize, _: u8) {
        self.at.with(|vf| vf.offend("a register was written by the byte"));
    }

    fn write16(&self, _: usize, _: u16) {
        self.at.with(|vf| vf.offend("a register was written by the word"));
    }

    fn write32(&self, offset: usize, value: u32) {
        let frames = self.at.with(|vf| if vf.is_there() { vf.write(offset, value) } else { Vec::new() });
        self.at.card.carry(self.at.n, frames.unwrap_or_default());
    }
}

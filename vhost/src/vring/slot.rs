//! One vring as both halves of the program see it.
#![expect(unsafe_code, reason = "hands on the gate's contract")]
// UNSAFETY: one call of `Gate::resume`, under its own contract.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::memory::{GuestMemory, Window};
use crate::vring::{Fault, Vring};
use pmd::alarm::Alarm;
use pmd::gate::{Gate, Inside};

/// Everything a ring needs to run: a frozen snapshot, checked by the control plane. Changing any of it means stop, new
/// setup, start (I7).
#[derive(Debug)]
pub(crate) struct VringSetup {
    /// Descriptors: a power of two, 1 to 32,768.
    pub(crate) size: u16,
    /// The table: `desc_bytes(size)`, aligned to 16.
    pub(crate) desc: Window,
    /// The available ring: `avail_bytes(size)`, aligned to 2.
    pub(crate) avail: Window,
    /// The used ring: `used_bytes(size)`, aligned to 4.
    pub(crate) used: Window,
    /// Where the ring stands (SET_VRING_BASE): the next available index to look at.
    pub(crate) base: u32,
    /// Negotiated features.
    pub(crate) features: u64,
    /// The memory that the windows point into.
    pub(crate) memory: Arc<GuestMemory>,
    /// Whom to tell of used buffers; checked to be an eventfd, non-blocking.
    pub(crate) call: Option<OwnedFd>,
    /// Whom to tell that the ring broke.
    pub(crate) err: Option<OwnedFd>,
    /// Whether the front end enabled the ring.
    pub(crate) enabled: bool,
}

/// What the data plane may do with a slot's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// No ring, or one that broke.
    Stopped = 0,
    /// A ring that the front end did not enable: drained, not supplied.
    Disabled = 1,
    /// A ring that runs.
    Ready = 2,
}

/// One vring of a port. Control plane and data plane share it; the gate says whose turn it is.
#[derive(Debug)]
pub(crate) struct VringSlot {
    gate: Gate<Option<Vring>>,
    /// A [`State`], as a hint for who has not entered the gate. Written inside the gate.
    state: AtomicU8,
    /// A [`Fault`]'s number, or 0.
    fault: AtomicU8,
    alarm: Arc<Alarm>,
}

impl VringSlot {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        Self { gate: Gate::new(None), state: AtomicU8::new(0), fault: AtomicU8::new(0), alarm }
    }

    /// Starts a ring in place of whatever ran. Waits for the burst in progress.
    pub(crate) fn start(&self, setup: VringSetup) {
        let state = if setup.enabled { State::Ready } else { State::Disabled };
        let mut inside = self.gate.enter();
        *inside = Some(Vring::new(setup));
        self.fault.store(0, Ordering::Relaxed);
        self.set_state(state);
    }

    /// Stops the ring and lets go of its memory. Waits for the burst in progress; afterwards the data plane touches neither.
    /// Returns where the ring stands (GET_VRING_BASE), or `None` if no ring ran.
    pub(crate) fn stop(&self) -> Option<u32> {
        let mut inside = self.gate.enter();
        self.set_state(State::Stopped);
        inside.take().map(|ring| ring.base())
    }

    /// Enables or disables a running ring.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        let mut inside = self.gate.enter();
        if inside.is_some() && self.fault().is_none() {
            self.set_state(if enabled { State::Ready } else { State::Disabled });
        }
        if let Some(ring) = inside.as_mut() {
            ring.notify();
        }
    }

    /// Changes whom a running ring tells of used buffers; they get a call at once, in case one fell between the two.
    pub(crate) fn set_call(&self, call: Option<OwnedFd>) {
        if let Some(ring) = self.gate.enter().as_mut() {
            ring.set_call(call);
            ring.notify();
        }
    }

    /// Changes whom a running ring tells that it broke.
    pub(crate) fn set_err(&self, err: Option<OwnedFd>) {
        if let Some(ring) = self.gate.enter().as_mut() {
            ring.set_err(err);
        }
    }

    /// Whether a ring was started and not stopped (it may have broken since).
    #[cfg(test)]
    pub(crate) fn is_running(&self) -> bool {
        self.gate.enter().is_some()
    }

    /// What broke the ring, if it broke.
    pub(crate) fn fault(&self) -> Option<Fault> {
        Fault::from_number(self.fault.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            2 => State::Ready,
            1 => State::Disabled,
            _ => State::Stopped,
        }
    }

    /// Enters the gate for a burst. Data plane.
    #[inline(always)]
    pub(super) fn try_enter(&self) -> Option<Inside<'_, Option<Vring>>> {
        let inside = self.gate.try_enter()?;
        if inside.as_ref().is_some_and(Vring::memory_is_gone) {
            return self.memory_gone(inside);
        }
        Some(inside)
    }

    #[cold]
    fn memory_gone<'g>(&self, mut inside: Inside<'g, Option<Vring>>) -> Option<Inside<'g, Option<Vring>>> {
        self.latch(Fault::MemoryGone, inside.as_mut());
        None
    }

    /// Takes up a stay inside the gate.
    ///
    /// # Safety
    /// As for [`Gate::resume`].
    #[inline(always)]
    pub(super) unsafe fn resume(&self) -> Inside<'_, Option<Vring>> {
        // SAFETY: the caller's contract.
        unsafe { self.gate.resume() }
    }

    /// Stops a ring that broke: it keeps its place, but nobody runs it. Tells err fd and control plane once.
    #[cold]
    pub(super) fn latch(&self, fault: Fault, ring: Option<&mut Vring>) {
        if self.fault.swap(fault as u8, Ordering::Relaxed) != 0 {
            return;
        }
        self.set_state(State::Stopped);
        if let Some(ring) = ring {
            ring.signal_err();
        }
        self.alarm.raise();
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

//! One vring as both halves of the program see it.
#![expect(unsafe_code, reason = "hands on the gate's contract")]
// UNSAFETY: one call of `Gate::resume`, under its own contract.

use std::collections::TryReserveError;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::Instant;

use crate::memory::{GuestMemory, Window};
use crate::vring::{Account, Fault, RingNotifier, Vring, hook};
use crate::wire::net::F_RING_PACKED;
use pmd::gate::{Gate, Inside};
use pmd::wake::{Hung, Wake};

const TRIES_TO_DISARM: u32 = 200;

/// Everything a ring needs to run: a frozen snapshot, checked by the control plane. Changing any of it means stop, new
/// setup, start (I7).
#[derive(Debug)]
pub(crate) struct VringSetup {
    /// Descriptors, 1 to 32,768: a power of two, unless the ring is packed.
    pub(crate) size: u16,
    /// The descriptors: `desc_bytes(size)`, aligned to 16.
    pub(crate) desc: Window,
    /// The available ring: `avail_bytes(size)`, aligned to 2. Packed: the driver's event suppression structure, aligned to 4.
    pub(crate) avail: Window,
    /// The used ring: `used_bytes(size)`, aligned to 4. Packed: the device's event suppression structure.
    pub(crate) used: Window,
    /// Where the ring stands (SET_VRING_BASE): the next available index to look at. Packed: two positions inside of the ring.
    pub(crate) base: u32,
    /// Negotiated features.
    pub(crate) features: u64,
    /// The memory that the windows point into.
    pub(crate) memory: Arc<GuestMemory>,
    /// Whom to tell of used buffers; checked to be an eventfd.
    pub(crate) call: Option<Arc<OwnedFd>>,
    /// Whether the front end enabled the ring.
    pub(crate) enabled: bool,
}

impl VringSetup {
    /// Whether the ring is a packed one.
    pub(crate) fn is_packed(&self) -> bool {
        self.features & F_RING_PACKED != 0
    }
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
    notifier: Arc<RingNotifier>,
    /// What wakes an lcore that sleeps; of a ring that no lcore sleeps for there is none.
    wake: Option<Wake>,
    /// Kicks that hang in `wake`: 0 while the front end gave none.
    kicks: AtomicU32,
    /// What the port's memory has cost.
    account: Arc<Account>,
    /// The port is gone: no ring runs here any more.
    retired: AtomicBool,
}

impl VringSlot {
    pub(crate) fn new(notifier: RingNotifier, wake: Option<Wake>) -> Self {
        let (state, fault, kicks) = (AtomicU8::new(0), AtomicU8::new(0), AtomicU32::new(0));
        let (notifier, retired) = (Arc::new(notifier), AtomicBool::new(false));
        Self { gate: Gate::new(None), state, fault, notifier, wake, kicks, account: Arc::default(), retired }
    }

    /// Enters the gate, waiting for the burst in progress. `None` if the slot is retired. Control plane.
    fn enter(&self) -> Option<Inside<'_, Option<Vring>>> {
        let inside = self.gate.enter_unless(|| self.is_retired())?;
        (!self.is_retired()).then_some(inside)
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Stops the ring for good, whatever the control thread is at: a start that comes later starts nothing. False if who is
    /// inside the gate does not leave it until `end`.
    pub(crate) fn retire(&self, end: Instant) -> bool {
        // Before the gate is entered: who enters it afterwards sees this.
        self.retired.store(true, Ordering::Relaxed);
        let Some(mut inside) = self.gate.enter_unless(|| Instant::now() >= end) else { return false };
        self.set_state(State::Stopped);
        show_late(inside.as_mut());
        let ring = inside.take();
        drop(inside);
        drop(ring);
        true
    }

    /// The same, one of several whose memory is the same guest's.
    pub(crate) fn charged_to(self, account: Arc<Account>) -> Self {
        Self { account, ..self }
    }

    /// What the port's memory has cost.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// Starts a ring in place of whatever ran. Waits for the burst in progress. Without memory for it, none runs.
    pub(crate) fn start(&self, setup: VringSetup) -> Result<(), TryReserveError> {
        let state = if setup.enabled { State::Ready } else { State::Disabled };
        let Some(mut inside) = self.enter() else { return Ok(()) };
        show_late(inside.as_mut());
        self.set_state(State::Stopped);
        *inside = None;
        *inside = Some(Vring::new(setup, Arc::clone(&self.notifier))?);
        self.fault.store(0, Ordering::Relaxed);
        self.set_state(state);
        drop(inside);
        // Whoever sleeps has not armed this ring.
        self.nudge();
        Ok(())
    }

    /// Stops the ring and lets go of its memory. Waits for the burst in progress; afterwards the data plane touches neither.
    /// Returns where the ring stands (GET_VRING_BASE), or `None` if no ring ran.
    pub(crate) fn stop(&self) -> Option<u32> {
        let mut inside = self.enter()?;
        self.set_state(State::Stopped);
        show_late(inside.as_mut());
        inside.take().map(|ring| ring.base())
    }

    /// Enables or disables a running ring.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        let Some(mut inside) = self.enter() else { return };
        if inside.is_some() && self.fault().is_none() {
            self.set_state(if enabled { State::Ready } else { State::Disabled });
        }
        if let Some(ring) = inside.as_mut() {
            ring.notify();
        }
    }

    /// Changes whom a running ring tells of used buffers; they get a call at once, in case one fell between the two.
    pub(crate) fn set_call(&self, call: Option<Arc<OwnedFd>>) {
        if let Some(ring) = self.enter().as_mut().and_then(|inside| inside.as_mut()) {
            ring.set_call(call);
            ring.notify();
        }
    }

    /// How the guest is called for this ring.
    pub(crate) fn notifier(&self) -> &RingNotifier {
        &self.notifier
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

    /// Wakes the lcore that sleeps for this ring. Control plane.
    pub(crate) fn nudge(&self) {
        if let Some(wake) = &self.wake {
            wake.nudge();
        }
    }

    /// What an lcore waits on that sleeps for this ring.
    pub(super) fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(Wake::fd)
    }

    /// Has the guest kick at its next buffer; false if an lcore must not sleep for that. Without a ring it may: a start
    /// nudges. Data plane.
    pub(super) fn arm(&self) -> bool {
        if self.wake.is_none() {
            return false;
        }
        if self.state() == State::Stopped {
            return true;
        }
        let Some(mut inside) = self.try_enter() else { return false };
        show_late(inside.as_mut());
        let can_kick = self.kicks.load(Ordering::Relaxed) > 0;
        inside.as_ref().is_none_or(|ring| can_kick && ring.arm())
    }

    /// Tells the guest that it need not kick. Data plane. If the control plane is inside, which is for microseconds, tries
    /// again: a ring left armed would be kicked for each burst.
    pub(super) fn disarm(&self) {
        if self.state() == State::Stopped {
            return;
        }
        let inside = (0..TRIES_TO_DISARM).find_map(|_| {
            core::hint::spin_loop();
            self.try_enter()
        });
        if let Some(ring) = inside.as_ref().and_then(|inside| inside.as_ref()) {
            ring.disarm();
        }
    }

    /// Enters the gate for a burst. Data plane.
    #[inline(always)]
    pub(crate) fn try_enter(&self) -> Option<Inside<'_, Option<Vring>>> {
        hook::before_gate();
        let inside = self.gate.try_enter()?;
        if inside.as_ref().is_some_and(Vring::memory_is_gone) {
            return self.memory_gone(inside);
        }
        Some(inside)
    }

    #[cold]
    fn memory_gone<'g>(&self, _inside: Inside<'g, Option<Vring>>) -> Option<Inside<'g, Option<Vring>>> {
        self.latch(Fault::MemoryGone);
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

    /// Stops a ring that broke: it keeps its place, but nobody runs it. Tells the control plane once, which tells the front end.
    #[cold]
    pub(super) fn latch(&self, fault: Fault) {
        let first = self.fault.compare_exchange(0, fault as u8, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err() {
            return;
        }
        self.set_state(State::Stopped);
        self.notifier.port().raise_alarm();
    }

    fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

/// Has the guest see what it is to see late: nothing may come that would show it.
fn show_late(ring: Option<&mut Vring>) {
    if let Some(ring) = ring.filter(|ring| ring.is_late()) {
        ring.show();
    }
}

/// A guest's kick, which wakes the lcore that sleeps for the guest's ring. It is watched, never read: it is the front end's
/// eventfd, too, who may make reading it block, or write to it without end (C14, K3).
#[derive(Debug)]
pub(crate) struct HungKick {
    /// The watch, if the kick could be watched.
    hung: Option<Hung>,
    slot: Arc<VringSlot>,
    _fd: OwnedFd,
}

impl HungKick {
    /// One that cannot be watched is kept all the same; then the ring is polled.
    pub(crate) fn new(fd: OwnedFd, slot: Arc<VringSlot>) -> Self {
        let hung = slot.wake.as_ref().and_then(|wake| wake.hang_in_shared(fd.as_fd()).ok());
        slot.kicks.fetch_add(hung.is_some().into(), Ordering::Relaxed);
        Self { hung, slot, _fd: fd }
    }
}

impl Drop for HungKick {
    fn drop(&mut self) {
        if self.hung.is_some() {
            self.slot.kicks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

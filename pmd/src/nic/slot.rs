//! A ring's place in its port: there is a ring while the device runs, and none while it does not.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Ring;
use crate::gate::{Gate, Inside};

/// There is a ring, and the link is up.
const READY: u8 = 1;
/// The watch thread wants the ring checked.
const CHECK_DUE: u8 = 1 << 1;
/// A check has found trouble.
const TROUBLED: u8 = 1 << 2;
/// Tries to enter that a transmit half makes before it takes the ring for full: the watch thread, if it is inside at all, is
/// so for less than a microsecond.
const TRIES: u32 = 200;

/// What lies behind the gate.
#[derive(Debug)]
pub(super) struct Held<R> {
    pub(super) ring: Option<R>,
    trouble: Option<&'static str>,
}

/// Shared by a half, which runs the ring, and the watch thread, which makes it and takes it away.
///
/// The ring is checked by its half, after a burst, when the watch thread asks for it: so the watch thread need not enter
/// while packets flow, and no burst ever finds it inside. It does so itself with a half that is not in use.
#[derive(Debug)]
pub(super) struct Slot<R> {
    gate: Gate<Held<R>>,
    flags: AtomicU8,
}

impl<R: Ring> Slot<R> {
    pub(super) fn new() -> Self {
        Self { gate: Gate::new(Held { ring: None, trouble: None }), flags: AtomicU8::new(0) }
    }

    /// Puts a ring in. Waits for the burst in progress, if there is one.
    pub(super) fn put(&self, ring: R) {
        *self.gate.enter() = Held { ring: Some(ring), trouble: None };
        self.flags.fetch_and(!(TROUBLED | CHECK_DUE), Ordering::Relaxed);
    }

    /// Takes the ring out. Waits for the burst in progress; afterwards no half knows it.
    pub(super) fn take(&self) -> Option<R> {
        self.set_ready(false);
        self.gate.enter().ring.take()
    }

    /// Says whether packets can come and go.
    pub(super) fn set_ready(&self, ready: bool) {
        if ready {
            self.flags.fetch_or(READY, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!READY, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(super) fn is_ready(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & READY != 0
    }

    /// What the last check found, and asks for the next one. Watch thread, every tick.
    pub(super) fn trouble(&self) -> Option<&'static str> {
        let before = self.flags.fetch_or(CHECK_DUE, Ordering::Relaxed);
        if before & TROUBLED != 0 {
            return self.gate.enter().trouble;
        }
        // Asked for at the last tick, and still due: the half is not in use.
        if before & CHECK_DUE != 0
            && let Some(mut inside) = self.gate.try_enter()
        {
            self.check(&mut inside);
            return inside.trouble;
        }
        None
    }

    #[cold]
    fn check(&self, held: &mut Held<R>) {
        self.flags.fetch_and(!CHECK_DUE, Ordering::Relaxed);
        held.trouble = held.ring.as_mut().and_then(Ring::check);
        if held.trouble.is_some() {
            self.flags.fetch_or(TROUBLED, Ordering::Relaxed);
        }
    }

    /// Does something with the ring, unless there is none or somebody else is inside. Data plane.
    #[inline(always)]
    pub(super) fn run<A>(&self, what: impl FnOnce(&mut R) -> A) -> Option<A> {
        let inside = self.gate.try_enter()?;
        self.run_inside(inside, what)
    }

    /// The same, trying for a few microseconds if somebody else is inside. Data plane.
    #[inline(always)]
    pub(super) fn run_soon<A>(&self, what: impl FnOnce(&mut R) -> A) -> Option<A> {
        let inside = match self.gate.try_enter() {
            Some(inside) => inside,
            None => self.enter_soon()?,
        };
        self.run_inside(inside, what)
    }

    #[inline(always)]
    fn run_inside<A>(&self, mut inside: Inside<'_, Held<R>>, what: impl FnOnce(&mut R) -> A) -> Option<A> {
        let answer = what(inside.ring.as_mut()?);
        if self.flags.load(Ordering::Relaxed) & CHECK_DUE != 0 {
            self.check(&mut inside);
        }
        Some(answer)
    }

    #[cold]
    fn enter_soon(&self) -> Option<Inside<'_, Held<R>>> {
        (0..TRIES).find_map(|_| {
            core::hint::spin_loop();
            self.gate.try_enter()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its checks, and is troubled at the third.
    #[derive(Debug, Default)]
    struct Checked(u32);

    impl Ring for Checked {
        fn check(&mut self) -> Option<&'static str> {
            self.0 += 1;
            (self.0 >= 3).then_some("third check")
        }
    }

    #[test]
    fn a_half_in_use_does_the_checks_itself() {
        let slot = Slot::new();
        assert_eq!(slot.run(|_: &mut Checked| ()), None, "no ring yet");
        slot.put(Checked::default());
        assert_eq!(slot.run(|r| r.0), Some(0));
        for done in 1..=3 {
            assert_eq!(slot.trouble(), None);
            slot.run(|_| ());
            assert_eq!(slot.run(|r| r.0), Some(done), "once for each time it was asked for");
        }
        assert_eq!(slot.trouble(), Some("third check"));
        slot.put(Checked::default());
        assert_eq!(slot.trouble(), None, "a new ring has no past");
    }

    #[test]
    fn a_half_not_in_use_is_checked_all_the_same() {
        let slot = Slot::new();
        slot.put(Checked::default());
        // At every second tick: at the first it is only asked for.
        let found: Vec<_> = (0..6).map(|_| slot.trouble()).collect();
        assert_eq!(found, [None, None, None, None, None, Some("third check")]);
    }

    #[test]
    fn a_ring_that_was_taken_out_is_not_run() {
        let slot = Slot::new();
        slot.put(Checked::default());
        slot.set_ready(true);
        assert!(slot.take().is_some() && !slot.is_ready());
        assert_eq!(slot.run_soon(|_| ()), None);
    }
}

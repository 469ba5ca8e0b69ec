//! The gate between control plane and data plane: whoever is inside owns the value.
#![expect(unsafe_code, reason = "hands out &mut by a flag, like a lock")]
// UNSAFETY: `inside` is a lock of one bit. The data plane only ever tries; the control plane waits, for a burst at most.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering;

use crate::sync::{AtomicBool, wait};

/// A value of which one thread at a time is the owner. The data plane enters once per burst and never waits; the control
/// plane waits until the burst in progress is over.
#[derive(Debug)]
pub struct Gate<T> {
    inside: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by who holds `inside`, one thread at a time.
unsafe impl<T: Send> Sync for Gate<T> {}

impl<T: Default> Default for Gate<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Gate<T> {
    /// With nobody inside.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { inside: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Enters if nobody is inside. Data plane.
    #[inline(always)]
    #[must_use]
    pub fn try_enter(&self) -> Option<Inside<'_, T>> {
        // ORDERING: G1 Acquire, pairs with G2: what the last owner did to the value is seen.
        if self.inside.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            Some(Inside { gate: self, _value: PhantomData })
        } else {
            None
        }
    }

    /// Takes up again a stay that [`Inside::stay`] left open.
    ///
    /// # Safety
    /// The caller stayed inside this gate and has not taken it up since.
    #[inline(always)]
    pub unsafe fn resume(&self) -> Inside<'_, T> {
        debug_assert!(self.inside.load(Ordering::Relaxed), "nobody stayed");
        Inside { gate: self, _value: PhantomData }
    }

    /// Enters, waiting for who is inside. Control plane: the data plane stays for a burst at most.
    pub fn enter(&self) -> Inside<'_, T> {
        loop {
            if let Some(inside) = self.enter_unless(|| false) {
                return inside;
            }
        }
    }

    /// The same, unless `give_up` says while it waits that this is no use any more: an lcore that died inside, or whose
    /// burst does not end, never leaves. Asked between two tries.
    pub fn enter_unless(&self, give_up: impl Fn() -> bool) -> Option<Inside<'_, T>> {
        for round in 0u32.. {
            let inside = self.try_enter();
            if inside.is_some() || give_up() {
                return inside;
            }
            wait(round);
        }
        None
    }
}

/// The right to the value, until dropped. It may be sent and shared where `&mut T` may.
#[derive(Debug)]
pub struct Inside<'g, T> {
    gate: &'g Gate<T>,
    /// `&Gate<T>` alone is Sync for every `T` that is Send; a guard hands out `&T`, for which `T` must be Sync.
    _value: PhantomData<&'g mut T>,
}

impl<T> Inside<'_, T> {
    /// Stays inside beyond the guard's life, until [`Gate::resume`].
    #[inline(always)]
    pub fn stay(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds `inside`.
        unsafe { &*self.gate.value.get() }
    }
}

impl<T> DerefMut for Inside<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard holds `inside`, and is borrowed mutably.
        unsafe { &mut *self.gate.value.get() }
    }
}

impl<T> Drop for Inside<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // ORDERING: G2 Release, pairs with G1.
        self.gate.inside.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_at_a_time_and_the_control_plane_waits() {
        let gate = Arc::new(Gate::new(0u64));
        let inside = gate.try_enter().unwrap();
        assert!(gate.try_enter().is_none());
        let waiter = {
            let gate = Arc::clone(&gate);
            std::thread::spawn(move || *gate.enter() += 1)
        };
        inside.stay();
        assert!(gate.try_enter().is_none(), "a stay outlives its guard");
        // SAFETY: stayed right above.
        *unsafe { gate.resume() } += 1;
        waiter.join().unwrap();
        assert_eq!(*gate.enter(), 2);
    }

    /// Tells whether `T` is Sync: the inherent method counts only where its bound holds.
    struct Sharing<T>(PhantomData<T>);

    impl<T: Sync> Sharing<T> {
        fn may_be_shared(&self) -> bool {
            true
        }
    }

    trait OtherwiseNot {
        fn may_be_shared(&self) -> bool {
            false
        }
    }

    impl<T> OtherwiseNot for Sharing<T> {}

    /// A guard that two threads could look through would give both a reference to a value that only one may have.
    #[test]
    fn a_guard_is_shared_only_where_its_value_may_be() {
        assert!(Sharing::<Inside<'_, u64>>(PhantomData).may_be_shared());
        assert!(!Sharing::<Inside<'_, core::cell::Cell<u64>>>(PhantomData).may_be_shared());
    }

    #[test]
    fn nothing_is_lost_between_four_threads() {
        let gate = Arc::new(Gate::new(0u64));
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let gate = Arc::clone(&gate);
                std::thread::spawn(move || {
                    let mut done = 0;
                    while done < 10_000 {
                        if i == 0 {
                            *gate.enter() += 1;
                            done += 1;
                        } else if let Some(mut g) = gate.try_enter() {
                            *g += 1;
                            done += 1;
                        }
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*gate.enter(), 40_000);
    }
}

//! Where atomics, cells and waiting come from: `core` and `std`, or loom's models of them under `cfg(loom)`.

#[cfg(loom)]
use core::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use core::{cell::UnsafeCell, sync::atomic::AtomicU32};
#[cfg(loom)]
pub(crate) use loom::{cell::UnsafeCell, sync::Arc};
#[cfg(not(loom))]
pub(crate) use std::sync::Arc;

/// Turns of [`wait`] before the CPU is given away.
#[cfg(not(loom))]
const SPINS: u32 = 1 << 8;

/// One turn of waiting for another thread that is between its claim and its publication.
///
/// That thread needs nanoseconds, so this spins; when it has been preempted, spinning longer would only keep
/// it from running, so after some microseconds this yields the CPU: the one system call in the crate.
#[cfg(not(loom))]
pub(crate) fn wait(turn: &mut u32) {
    *turn += 1;
    if *turn < SPINS {
        core::hint::spin_loop();
    } else {
        *turn = 0;
        std::thread::yield_now();
    }
}

/// Lets loom run the thread that is waited for.
#[cfg(loom)]
pub(crate) fn wait(_turn: &mut u32) {
    loom::thread::yield_now();
}

/// loom's atomic, with loads that loom explores before and after other threads' loads too.
///
/// loom 0.7 remembers one last access per atomic. Where a thread loads and then stores (R4, R5), its own load
/// hides the load of another thread before it, and loom never tries that one after the store. A relaxed
/// read-modify-write on a second atomic, which orders nothing, makes any two loads a conflict, so both orders
/// are tried.
#[cfg(loom)]
pub(crate) struct AtomicU32 {
    value: loom::sync::atomic::AtomicU32,
    loads: loom::sync::atomic::AtomicU32,
}

#[cfg(loom)]
impl AtomicU32 {
    pub(crate) fn new(value: u32) -> Self {
        Self {
            value: loom::sync::atomic::AtomicU32::new(value),
            loads: loom::sync::atomic::AtomicU32::new(0),
        }
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.loads.fetch_add(0, Ordering::Relaxed);
        self.value.load(order)
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.value.store(value, order);
    }

    pub(crate) fn compare_exchange_weak(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.value.compare_exchange_weak(old, new, success, failure)
    }
}

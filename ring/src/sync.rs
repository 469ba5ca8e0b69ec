//! Where atomics, cells and waiting come from: `core` and `std`, or loom's models of them under `cfg(loom)`.

#[cfg(not(loom))]
pub(crate) use core::{cell::UnsafeCell, sync::atomic::AtomicU32};
#[cfg(loom)]
pub(crate) use loom::{cell::UnsafeCell, sync::Arc, sync::atomic::AtomicU32};
#[cfg(not(loom))]
pub(crate) use std::sync::Arc;

/// Turns of [`wait`] before the CPU is given away.
#[cfg(not(loom))]
const SPINS: u32 = 1 << 12;

/// One turn of waiting for another thread that is between its claim and its publication.
///
/// That thread needs nanoseconds, so this spins; when it has been preempted, spinning longer would only keep it
/// from running, so after some microseconds this yields the CPU: the one system call in the crate.
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

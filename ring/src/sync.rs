//! Where atomics, cells and waiting come from: `core` and `std`, or loom's models of them under `cfg(loom)`.

#[cfg(loom)]
use core::sync::atomic::Ordering;
#[cfg(not(loom))]
pub(crate) use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicU32, AtomicU64},
};
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
pub(crate) struct Atomic<A> {
    value: A,
    loads: loom::sync::atomic::AtomicU32,
}

#[cfg(loom)]
pub(crate) type AtomicU32 = Atomic<loom::sync::atomic::AtomicU32>;
#[cfg(loom)]
pub(crate) type AtomicU64 = Atomic<loom::sync::atomic::AtomicU64>;

#[cfg(loom)]
macro_rules! accesses {
    ($atomic:ident, $word:ident) => {
        impl Atomic<loom::sync::atomic::$atomic> {
            pub(crate) fn new(value: $word) -> Self {
                Self {
                    value: loom::sync::atomic::$atomic::new(value),
                    loads: loom::sync::atomic::AtomicU32::new(0),
                }
            }

            pub(crate) fn load(&self, order: Ordering) -> $word {
                self.loads.fetch_add(0, Ordering::Relaxed);
                self.value.load(order)
            }

            #[allow(dead_code, reason = "tails are stored, heads are not")]
            pub(crate) fn store(&self, value: $word, order: Ordering) {
                self.value.store(value, order);
            }

            #[allow(dead_code, reason = "heads are exchanged, tails are not")]
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                self.value.compare_exchange_weak(old, new, success, failure)
            }
        }
    };
}

#[cfg(loom)]
accesses!(AtomicU32, u32);
#[cfg(loom)]
accesses!(AtomicU64, u64);

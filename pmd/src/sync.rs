//! Where the gate's atomic and its waiting come from: `core` and `std`, or loom's models of them under `cfg(loom)`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicBool;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicBool;

/// One round of waiting for who holds something for microseconds.
#[cfg(not(loom))]
pub(crate) fn wait(round: u32) {
    if round < 100 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(std::time::Duration::from_micros(20));
    }
}

/// Lets loom run the thread that is waited for.
#[cfg(loom)]
pub(crate) fn wait(_round: u32) {
    loom::thread::yield_now();
}

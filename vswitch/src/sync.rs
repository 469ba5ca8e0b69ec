//! Where the atomics and the lock come from that lcores and others share: `std`, or loom's models of them under `cfg(loom)`.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, fence},
};

//! The vhost-user backend: one more poll-mode driver, whose NIC is a guest's virtio-net device.
//!
//! | module | what it is | who runs it |
//! |---|---|---|
//! | [`wire`] | layouts: vhost-user messages, split and packed rings, the virtio-net header | - |
//! | `memory` | the guest's memory table: checked, mapped, translated | control plane |
//! | `session` | one front end's connection: messages in, state, replies | control plane, one thread a port |
//! | `vring` | the device side of a ring: dequeue (guest's TX) and enqueue (guest's RX) | data plane |
//! | [`VhostUserPort`] | all of it as a [`pmd::Port`] | both |
//! | [`driver`] | the *other* side: a front end and virtio-net driver in this process, for demo, tests and benchmarks | - |
//!
//! # Trust
//! Guest and front end are hostile. What they write is read once, checked as a private copy, then used. What they break
//! stops their own ring or their own connection, under a name (see `vring::Fault`).

pub mod driver;
mod memory;
mod port;
mod session;
mod vring;
pub mod wire;

pub use port::{VhostUserPort, VhostUserSpec};
pub use session::give_up_descriptors;
#[cfg(fuzzing)]
pub use vring::two_passes;

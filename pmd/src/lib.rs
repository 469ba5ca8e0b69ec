//! The port traits, the drivers of NICs, and the ports that need neither a NIC nor a guest.
//!
//! A **port** is anything with a receive half and a transmit half. On the control path a [`Port`] makes its queue halves
//! once; then each [`RxQueue`] and each [`TxQueue`] belongs to one lcore, which polls it. See [`RxQueue`] for what one turn
//! looks like.

pub mod alarm;
pub mod bus;
pub mod counters;
mod drop_reason;
pub mod gate;
pub mod igbvf;
mod kinds;
pub mod nic;
pub mod notify;
pub mod offload;
mod port;
pub mod socket_file;
mod sync;
pub mod threads;
pub mod tsc;
pub mod vdev;
pub mod virtio_pci;
pub mod wake;

pub use counters::{Counter, PortCounters, QueueCounters};
pub use drop_reason::DropReason;
pub use kinds::{CardDriver, VfioConfig, from_spec, kinds};
pub use port::{Link, Port, PortError, QueueEnv, Queues, RxQueue, TxQueue};

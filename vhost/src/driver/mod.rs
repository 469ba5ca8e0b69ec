//! The driver's side: a vhost-user front end and a virtio-net driver inside a process, with no VM around them.
//!
//! `polder demo`, the tests, the hostile tests and the benchmarks are guests by it. It shares no code with the device side
//! but the layouts in [`wire`](crate::wire).
//!
//! | from top to bottom | what it is |
//! |---|---|
//! | [`traffic`] | streams of frames that can be checked |
//! | [`VirtioNet`] | a whole device: connection, RAM, queue pairs |
//! | [`TxRing`], [`RxRing`] | a guest's rings: batches, nothing allocated, nobody waited for |
//! | [`Queue`] | what both are made of: slots that circulate |
//! | [`SplitRing`], [`PackedRing`] | a ring's words in RAM, and nothing remembered: for tests that lie |
//! | [`FrontEnd`] | the messages, one call each, and raw bytes for tests that lie |
//! | [`GuestRam`], [`Span`] | shared memory, and checked access to it |
//!
//! ```no_run
//! use vhost::driver::{NetHdr, VirtioNet, VirtioNetConfig};
//!
//! let mut net = VirtioNet::connect("/run/polder/vm1.sock", VirtioNetConfig::default())?;
//! net.send(&[0xff; 64], NetHdr::default())?;
//! let mut frame = Vec::new();
//! while net.recv(&mut frame)?.is_none() {}
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Orderings
//! Partners of the device's V1 to V4: D1 store avail.idx, or a burst's first descriptor's flags, Release with V1; D2 load
//! used.idx, or a descriptor's flags, Acquire with V2; D3 full fence between publishing and reading whether a kick is wanted,
//! with V4; D4 full fence between asking for a call and looking for used buffers once more, with V3.
//!
//! # Whom it trusts
//! Nobody: a device that returns what it was not given, twice, or too much of it, breaks the ring under a name
//! ([`RingError`]). That makes the driver an oracle of the device's conduct.

mod circle;
mod front_end;
mod net_hdr;
mod order;
mod packed;
mod packed_queue;
mod queue;
mod ram;
mod ring_config;
mod rx;
mod slots;
mod split;
mod split_queue;
pub mod traffic;
mod tx;
mod virtio_net;

pub use front_end::{FrontEnd, FrontEndError, Reply};
pub use net_hdr::NetHdr;
pub use order::Order;
pub use packed::PackedRing;
pub use queue::Queue;
pub use ram::{GuestRam, RamConfig, RamError, RamPages, Span};
pub use ring_config::{Cut, Kicks, RingConfig, RingConfigError, RingError};
pub use rx::{RxFrame, RxRing};
pub use split::SplitRing;
pub use tx::{PostError, TxFrame, TxRing};
pub use virtio_net::{BufferConfig, QueuePair, VirtioNet, VirtioNetConfig, VirtioNetError};

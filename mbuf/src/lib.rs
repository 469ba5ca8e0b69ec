//! Packet memory: zones of hugepages, mempools with per-lcore caches, mbufs and bursts.
//!
//! - A [`Zone`] is memory that the process owns, shareable by file descriptor and addressable by a NIC.
//! - A [`Mempool`] cuts a zone into equal [`Mbuf`]s; its free list is a lockless ring with a cache per lcore in front.
//! - An [`Mbuf`] is one packet. It goes back to its pool when dropped.
//! - A [`Burst`] is up to [`MAX_BURST`] packets in hand.
//!
//! ```
//! use mbuf::{Burst, LcoreId, Mempool, MempoolConfig};
//!
//! let pool = Mempool::new(&MempoolConfig { mbufs: 512, ..MempoolConfig::default() })?;
//! let lcore = LcoreId::claim(); // this thread has its own cache from here on
//! let mut burst = Burst::new();
//! pool.alloc_bulk(&mut burst, 32, 7)?; // tagged as port 7's
//! burst[0].append(60).expect("a fresh mbuf has room").fill(0);
//! drop(burst); // all 32 go back at once
//! assert_eq!(pool.balance().out, 0);
//! # drop(lcore);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Borrowed tails
//! An `Mbuf<'t>` may carry only the first bytes of its frame in its own memory and name the rest as a list of
//! [`TailSegment`]s: memory of somebody else (a guest), readable for the lifetime `'t` and changing at any time. No
//! reference to such bytes ever exists; they are only copied, by [`foreign`]. `Mbuf<'static>` has no such tail and may
//! go anywhere; [`Mbuf::own`] makes one by copying.

mod burst;
pub mod foreign;
mod layout;
mod lcore;
mod mempool;
mod offload;
mod packet;
mod room;
mod tail;
mod zone;

pub use burst::{Burst, MAX_BURST};
pub use layout::HEADROOM;
pub use lcore::{LcoreId, MAX_LCORES};
pub use mempool::{Mempool, MempoolConfig, MempoolError, NoMbufs, PoolBalance};
pub use offload::{Checksum, GsoKind, Offload};
pub use packet::{Mbuf, Segments};
pub use room::Room;
pub use tail::{Stretch, TailSegment};
pub use zone::{Iova, PageSize, Zone, ZoneConfig, ZoneError};

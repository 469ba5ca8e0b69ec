//! What all NICs have in common: a port whose driver may lose its device and get it back.
//!
//! A driver ([`NicDriver`]) brings a device up, makes its descriptor rings ([`RxRing`], [`TxRing`]), and says in between how
//! the device is. [`NicPort`] is the port around it: it lends the rings to the lcores through gates, looks after the device
//! from a thread of its own, resets it when it must be, lets go of it when it is unplugged, and takes it back when it
//! returns.
//!
//! ```text
//!  lcore ── NicRx ──┐ gate, once per burst        watch thread ── NicDriver ── PciDevice (VFIO, or a model)
//!  lcore ── NicTx ──┤                                  │  every 10 ms, or when the device signals:
//!                   ▼                                  │  good / to be reset / gone
//!            Slot: the ring, while there is one ◄──────┘  takes rings out, stops, starts, puts new ones in
//! ```

mod driver;
mod halves;
mod options;
mod port;
mod reach;
mod slot;
mod watch;

pub use driver::{Health, NicDriver, NicError, Ring, Rings, RxRing, TxRing};
pub use options::NicOptions;
pub use port::NicPort;
pub use reach::Reach;

//! Lcores, forwarding and the learning switch.
//!
//! A [`Switch`] owns lcores, pinned threads that turn the queue halves of its ports. It knows ports by their traits
//! ([`pmd::RxQueue`], [`pmd::TxQueue`]) and nothing of what is behind them.
//!
//! # One turn
//! `Turner::turn` visits each of its lcore's receive queues once, idle ones by time (`roster`); [`Forwarder::poll`] takes a
//! burst from it and makes two passes. `Classifier::classify` reads each packet's addresses, learns the source and looks the
//! destination up in the [`Fdb`]. `Forwarder::sort_and_send` sorts the burst by output (not needed when all goes to one, the
//! usual case) and sends. What a receiver cannot take is dropped there and then. After that the sender gets its buffers back
//! (`complete`); at the end of the turn each receiver that got something is told (`flush`). Where an output belongs to
//! another lcore, packets are made to own their bytes and go through a ring ([`ring::spsc`]), in which a source port may have so
//! many mbufs (`handover`).
//!
//! A burst of long packets is forwarded in pieces (`weight`), and between them, and between the ports of a flood, others are
//! looked at if it is time (`pause`). Whoever cost more than a visit's budget pays back by turns without one.
//!
//! # Counting
//! Every packet that came in was sent, or is counted under a [reason](pmd::DropReason); a flood counts its copies. At a
//! quiet point [`Totals::unaccounted`] is 0 exactly.
//!
//! # Orderings
//! | label | where | partner |
//! |---|---|---|
//! | F1 | FDB reader loads a slot's key, Acquire | F2 |
//! | F2 | FDB writer stores a slot's key, Release | F1 |
//! | F3 | FDB reader loads a slot's value, Acquire, then the key again | F4 |
//! | F4 | a slot's value is stored, Release, after its former key was taken away | F3 |
//! | F5 | the table's lock is taken, Acquire | F6 |
//! | F6 | the table's lock is given back, Release | F5 |
//! | B1 | a mailbox's flag goes up, Release | B2 |
//! | B2 | a mailbox's flag goes down, Acquire | B1 |
//! | S1 | full fence between filling a ring to another lcore and reading whether it sleeps | S2 |
//! | S2 | full fence between saying that an lcore sleeps and its last look into its rings | S1 |

#![forbid(unsafe_code)]

mod asleep;
mod classify;
mod clock;
mod cpu;
mod error;
pub mod fdb;
mod flow;
mod forward;
mod groups;
mod handover;
mod hash;
mod lcore;
mod mac;
mod mailbox;
mod meter;
mod output;
mod pause;
mod port_id;
mod ports;
mod roster;
mod sleep;
mod stages;
mod stats;
mod switch;
mod sync;
mod timer;
mod verdict;
mod view;
mod weight;

pub use clock::Clock;
pub use cpu::cycles_per_us;
pub use error::SwitchError;
pub use fdb::{Fdb, FdbConfig, FdbEntry, FdbStats};
pub use forward::{Forwarder, Input};
pub use mac::{Mac, MacParseError};
pub use port_id::{MAX_PORTS, PortId};
pub use ports::PortInfo;
pub use stages::{LcoreStages, Stage, StageCount};
pub use stats::{LcoreStats, PortStats, SwitchStats, Totals};
pub use switch::{IdlePolicy, LcoreConfig, OnDeath, Placement, Switch, SwitchConfig};
pub use timer::{TimerId, TimerWheel, WheelFull};
pub use view::View;

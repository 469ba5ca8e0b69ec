//! The device side of a vring (virtio 1.3 §2.7, §2.8), data plane.
//!
//! A [`VringSlot`] is one vring for the whole life of its port. The control plane starts and stops a [`Vring`] in it; the
//! data plane's halves run what they find there: [`GuestTx`] dequeues what the guest sends (our input), [`GuestRx`]
//! enqueues what the guest receives (our output).
//!
//! # What a broken ring costs
//! A head or descriptor that breaks the rules stops its ring under a [`Fault`]'s name: the ring stays still until the guest
//! sets it up anew, err fd and control plane are told once, and nothing else notices. A *frame* that breaks the rules
//! (too short, too long, a header that lies) only costs itself: it is completed and counted as dropped.
//!
//! # Orderings
//! The partners are the driver's accesses to the same words, or its fence between the two in the other order.
//!
//! | label | split | packed (L6) |
//! |---|---|---|
//! | V1 | load avail.idx, Acquire: entries and descriptors up to it are written | load a descriptor's flags, Acquire: its address, length and id are written |
//! | V2 | store used.idx, Release, once per burst: payload and used entries are written before | store the flags of a burst's first used descriptor, Release, last of all: payload and all used descriptors are written before |
//! | V3 | full fence between storing used.idx and reading used_event or flags | the same between V2 and reading the driver's event suppression |
//! | V4 | full fence between arming the kick and re-reading avail.idx, before an lcore sleeps | the same between writing the device's event suppression and re-reading the next descriptor's flags |

mod chain;
mod cost;
mod dequeue;
mod enqueue;
#[cfg(test)]
mod exhaustive;
mod fault;
mod format;
mod hook;
mod notifier;
mod packed;
mod ring;
mod room;
mod slot;
mod split;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
#[cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz target drives it"))]
pub mod two_passes;
mod view;

pub(crate) use cost::{Account, thread_cpu_time};
pub(crate) use dequeue::GuestTx;
pub(crate) use enqueue::GuestRx;
pub(crate) use fault::Fault;
pub(crate) use notifier::{PortNotifier, RingNotifier};
pub(crate) use ring::Vring;
pub(crate) use slot::{HungKick, VringSetup, VringSlot};

/// Largest frame taken from or given to a guest, without FCS: 64 KiB of IP packet, Ethernet header, two VLAN tags.
pub(crate) const MAX_FRAME: usize = 65_535 + 14 + 8;

/// Most pieces (descriptors, or parts of them in different regions) of one chain that is dealt with. A longer one, legal in
/// rings of more descriptors, is dropped as too long.
pub(crate) const MAX_PIECES: usize = 1024;

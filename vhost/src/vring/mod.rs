//! The device side of a vring.
//!
//! A [`VringSlot`] is one vring for the whole life of its port; the control plane starts and stops a ring in it, the data
//! plane's half ([`GuestTx`], [`GuestRx`]) runs what it finds there.

mod fault;
mod slot;

pub(crate) use fault::Fault;
pub(crate) use slot::{VringSetup, VringSlot};

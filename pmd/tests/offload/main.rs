//! The offload code against packets that are right, packets that are wrong, and etherparse as the oracle of both.

mod check;
mod finish;
mod frames;
mod kernel;
#[path = "../vdev/namespace.rs"]
mod namespace;
mod oracle;
mod segment;

//! Load, and what becomes of it: the pieces of `pktgen` and `polder-perf`.
//!
//! | from top to bottom | what it is |
//! |---|---|
//! | [`compare`], [`peers`], [`placement`] | other devices, in turns with ours, while the machine holds still |
//! | [`rfc2544`], [`rfc2889`] | benchmarks, by trials |
//! | [`dut`] | the device under test: Polder in this process, or any behind its sockets |
//! | [`chart`] | pictures |
//! | [`run`] | endpoints in pairs, turned by a thread each CPU |
//! | [`report`], [`machine`], [`say`] | what came of it, as text and as JSON; on which machine; to whom it is told |
//! | [`endpoint`] | a guest's driver on a vhost-user socket, or any port: sends its stream, checks its partner's |
//! | [`probe`] | numbers, stamps and checksums in frames |
//! | [`pattern`] | what frames look like: sizes, ranges over their fields, a capture replayed |
//! | [`pace`] | how fast |
//! | [`cpu`] | where |

pub mod chart;
pub mod compare;
pub mod cpu;
pub mod dut;
pub mod endpoint;
pub mod machine;
pub mod pace;
pub mod pattern;
pub mod peers;
pub mod placement;
pub mod probe;
pub mod report;
pub mod rfc2544;
pub mod rfc2889;
pub mod run;
pub mod say;
mod span;

pub use span::Span;

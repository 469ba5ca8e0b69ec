//! Load, and what becomes of it: the pieces of `pktgen` and `polder-perf`.
//!
//! | from top to bottom | what it is |
//! |---|---|
//! | [`run`] | endpoints in pairs, turned by a thread each CPU |
//! | [`report`] | what came of it, as text and as JSON |
//! | [`endpoint`] | a guest's driver on a vhost-user socket, or any port: sends its stream, checks its partner's |
//! | [`probe`] | numbers, stamps and checksums in frames |
//! | [`pattern`] | what frames look like: sizes, ranges over their fields, a capture replayed |
//! | [`pace`] | how fast |
//! | [`cpu`] | where |

pub mod cpu;
pub mod endpoint;
pub mod pace;
pub mod pattern;
pub mod probe;
pub mod report;
pub mod run;
mod span;

pub use span::Span;

//! Layouts on the wire and in shared memory, used by both sides. Layout alone: no behaviour.

pub mod message;
pub mod net;
pub mod packed;
pub mod ring;

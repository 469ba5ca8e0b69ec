//! Memory that others write, and may take away: the one copy routine, mappings of other people's files, and what happens
//! when a page of theirs is gone.

mod copy;
mod mapping;
mod registry;
mod sigbus;

pub use copy::{copy, load_u16_acquire, load_u64, update_u16, update_u32, update_u64};
pub use mapping::{ForeignError, ForeignMapping};
pub use registry::Watch;

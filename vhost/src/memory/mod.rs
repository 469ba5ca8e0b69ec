//! The guest's memory as the front end's table describes it: checked, mapped, translated. One immutable snapshot a table.

mod address;
mod table;

pub(crate) use address::{FrontendVa, Gpa};
pub(crate) use table::{GuestMemory, MemoryError, RegionRequest, Window};

//! The guest's memory as the front end's table describes it: checked, mapped, translated. One immutable snapshot a table.
//!
//! A region is accepted if its numbers do not wrap, are multiples of 4096 and overlap no other region's, in guest and in
//! front end addresses; and if its file is a regular one on tmpfs (a memfd is) or hugetlbfs, open for reading and
//! writing, not sealed against writing, and as long as the region needs. A file that lets us is sealed against
//! shrinking. On hugetlbfs the mapping, not the region, is rounded out to whole pages.
//!
//! How much a table may map is the port's limit and the process's budget ([`budget`]).

mod address;
mod budget;
mod error;
#[cfg(test)]
mod exhaustive;
mod file;
mod table;

pub(crate) use address::{FrontendVa, Gpa};
pub(crate) use budget::{Allowance, DEFAULT_LIMIT};
pub(crate) use error::MemoryError;
pub(crate) use table::{GuestMemory, MAX_REGIONS, RegionRequest, RegionView, Window};

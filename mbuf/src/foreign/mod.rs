//! Memory that others write, and may take away: the one copy routine, and what happens when a page is gone.

mod copy;

pub use copy::{copy, load_u16_acquire, load_u64};

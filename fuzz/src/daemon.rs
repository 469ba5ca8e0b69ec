//! Of `src/daemon/mod.rs`, what the settings ask.

#[path = "../../src/daemon/make.rs"]
mod make;

pub(crate) use make::check_spec;

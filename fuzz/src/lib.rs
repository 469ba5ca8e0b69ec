//! What the fuzz targets share: how they read their input, a census of what the process holds, and the program's own modules.
//!
//! `polder` is a program and no library. Its command line, configuration and control socket are compiled in here by path, as
//! they are, under the names by which they know each other.

pub mod census;
pub mod connect;
pub mod conversation;
pub mod input;
pub mod program;
pub mod ring_moves;

#[allow(dead_code, reason = "the program's, of which a part is used")]
#[path = "../../src/cli.rs"]
mod cli;
#[allow(dead_code, reason = "the program's, of which a part is used")]
#[path = "../../src/failure.rs"]
mod failure;
#[allow(dead_code, unused_imports, reason = "the program's, of which a part is used")]
#[path = "../../src/report/mod.rs"]
mod report;
#[allow(dead_code, unused_imports, reason = "the program's, of which a part is used")]
#[path = "../../src/settings/mod.rs"]
mod settings;

#[allow(dead_code, reason = "the program's, of which a part is used")]
mod control;
#[allow(dead_code, reason = "the program's, of which a part is used")]
mod daemon;

//! Writes the seeds of the fuzz targets, `corpus/TARGET/NAME` beside fuzz/Cargo.toml, from honest traffic: front ends are recorded at
//! their sockets, guests' rings and frames are made as drivers and hosts make them.
//!
//!     cargo run --manifest-path fuzz/Cargo.toml --features seeds --bin seeds

mod frames;
mod guests;
mod recorder;
mod texts;

use std::fs;
use std::path::Path;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let all = [
        ("parse", frames::parse()),
        ("offload", frames::offload()),
        ("forward", frames::forward()),
        ("control", texts::control()),
        ("config", texts::config()),
        ("rings", guests::all()),
        ("session", recorder::all()),
    ];
    for (target, seeds) in all {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).expect("a folder");
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes).expect("a file");
        }
    }
}

/// Seeds by name.
type Seeds = Vec<(&'static str, Vec<u8>)>;

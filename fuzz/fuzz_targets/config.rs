//! Any bytes as the configuration file or as the command line of `polder run`: a reason in one line, or settings that keep what
//! they promise.
//!
//! The first byte says which: even, the file; odd, arguments, one a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polder_fuzz::program::{read_arguments, read_file};

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((way, text)) if way % 2 == 0 => read_file(text),
        Some((_, lines)) => read_arguments(lines),
        None => {}
    }
});

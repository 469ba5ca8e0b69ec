//! Any bytes from a client of the control socket: it is answered line by line, in JSON, or let go.
#![no_main]

use libfuzzer_sys::fuzz_target;
use polder_fuzz::program::converse;

fuzz_target!(|input: &[u8]| converse(input));

//! A play around the two passes of bursts: a hook between them rewrites descriptors, tables, headers, lengths, flags and
//! indices of rings of either format and of all sizes; `vhost::two_passes` judges what the bursts do.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vhost::two_passes::drive(input));

//! Any bytes as the head of a frame of any length: offsets stay inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pmd::offload::parse;

fuzz_target!(|input: &[u8]| {
    let Some((more, head)) = input.split_first_chunk::<2>() else { return };
    let frame_len = head.len() + usize::from(u16::from_le_bytes(*more));
    let headers = parse(head, frame_len);
    assert!(headers.l3_end <= frame_len);
    assert!(headers.payload <= head.len());
});

//! Any virtio-net header before any frame: whatever is accepted must hold for that frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mbuf::{Checksum, GsoKind};
use pmd::offload::{OffloadSet, VirtioNetHdr, from_virtio_net};

fuzz_target!(|input: &[u8]| {
    let Some((hdr, frame)) = input.split_first_chunk::<{ VirtioNetHdr::LEN }>() else { return };
    let hdr = VirtioNetHdr::from_le_bytes(hdr);
    let head = &frame[..frame.len().min(192)];
    let Ok(offload) = from_virtio_net(&hdr, head, frame.len(), OffloadSet::ALL) else { return };
    if offload.checksum == Checksum::Partial {
        assert!(usize::from(offload.csum_start) + usize::from(offload.csum_offset) + 2 <= frame.len());
    }
    if offload.gso != GsoKind::None {
        assert_eq!(offload.checksum, Checksum::Partial);
        assert!(offload.gso_size > 0 && usize::from(offload.hdr_len) <= head.len());
    }
});

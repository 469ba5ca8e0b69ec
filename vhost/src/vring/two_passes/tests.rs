//! A1 and A2.

use proptest::prelude::*;

use super::rig::frame;
use super::*;
use crate::vring::Fault;
use crate::wire::net::{F_MRG_RXBUF, F_RING_PACKED, F_VERSION_1};
use crate::wire::packed::{DESC_F_AVAIL, DESC_F_USED};
use crate::wire::ring::{AVAIL_IDX_OFFSET, DESC_F_NEXT, DESC_F_WRITE, Desc};

const RAM: usize = 16 << 10;

/// Eight frames of descriptors, `nexts` saying which of these have NEXT. They fit a buffer of `len` bytes, or, as `long` says,
/// two of them.
fn burst_of_descriptors(len: usize, round: u16, nexts: u8, long: u8, size: u16) -> Burst<'static> {
    let ring: Vec<u8> = (0..size)
        .flat_map(|i| {
            let more = if nexts >> i & 1 == 1 { DESC_F_NEXT } else { 0 };
            let rest = u64::from(i) << 32 | u64::from(round | DESC_F_WRITE | more) << 48;
            [GPA.to_le_bytes(), (rest | len as u64).to_le_bytes()].concat()
        })
        .collect();
    let mut burst = Burst::new();
    for i in 0..8 {
        let bytes = if long >> i & 1 == 1 { len + 4 } else { len - 12 };
        // The header comes first.
        assert!(burst.push(frame(bytes, |at| ring[(at + 12) % ring.len()])).is_ok());
    }
    burst
}

/// RX buffers that are the descriptor ring itself; what comes in makes chains of the descriptors that were recorded.
#[test]
fn a01_packed_buffers_that_are_the_ring() {
    let merged = [F_VERSION_1 | F_RING_PACKED, F_VERSION_1 | F_RING_PACKED | F_MRG_RXBUF];
    for (size, nexts) in (1..=8u16).flat_map(|size| (0..1u16 << size).map(move |nexts| (size, nexts as u8))) {
        for (features, long) in
            merged.into_iter().flat_map(|f| [0x02, 0x12, 0x2a, 0xaa, 0xfe].map(|long| (f, long)))
        {
            for round in [DESC_F_AVAIL, DESC_F_USED] {
                let mut rig = Rig::new(Shape { features, size, ram: RAM });
                let mut queue = rig.receiver();
                rig.start();
                let whole = 16 * usize::from(size) + 12;
                for id in 0..size {
                    rig.post(id, &[Desc { addr: GPA, len: whole as u32, flags: DESC_F_WRITE, next: id }]);
                }
                hook::take();
                queue.tx_burst(&mut burst_of_descriptors(whole, round, nexts, long, size));
                for published in hook::take().published {
                    assert!(
                        published.buffers <= size.into() && published.slots <= size.into(),
                        "{published:?}"
                    );
                }
            }
        }
    }
}

/// A driver that moves avail.idx back in the middle of a burst takes nothing away, and gets no buffer that it did not offer.
#[test]
fn a02_avail_index_moved_back() {
    let mut rig = Rig::new(Shape { features: F_VERSION_1 | F_MRG_RXBUF, size: 8, ram: RAM });
    let mut queue = rig.receiver();
    rig.start();
    let buffer = Desc { addr: GPA + (8 << 10), len: 1024, flags: DESC_F_WRITE, next: 0 };
    (0..8).for_each(|i| rig.post(i, &[buffer]));
    let (ram, idx) = (rig.ram.clone(), rig.shape.avail() + AVAIL_IDX_OFFSET);
    hook::set_between(Some(Box::new(move || ram.write(idx, &[2, 0]))));
    // The fifth wants more than was found: the index is read once more.
    assert_eq!(send(&mut queue, &[60, 60, 60, 60, 5000]), 4);
    assert_eq!(rig.used(), 4);
    hook::set_between(None);
    for _ in 0..4 {
        send(&mut queue, &[60; 8]);
        assert!(rig.used() <= 8, "{} used of 8", rig.used());
    }
    assert_eq!(rig.fault(), Some(Fault::AvailIndex), "an index behind what was used is a jump");
}

/// Plays of all features and sizes.
#[test]
fn a02_every_size_and_feature() {
    for (size, choice) in (0..16u8).flat_map(|size| (0..32u8).map(move |choice| (size, choice))) {
        for seed in 0..4u32 {
            let noise =
                (0..2000u32).map(|i| (i.wrapping_add(seed << 16).wrapping_mul(2_654_435_761) >> 13) as u8);
            let input: Vec<u8> = [choice, size, seed as u8 / 2].into_iter().chain(noise).collect();
            drive(&input);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a02_anything_between_the_passes(input in prop::collection::vec(any::<u8>(), 0..3000)) {
        drive(&input);
    }
}

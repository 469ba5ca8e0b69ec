//! What a ring's guest and front end do while nobody races: A11 and A16.

use std::sync::Arc;

use mbuf::{Mempool, MempoolConfig, PageSize, ZoneConfig};
use pmd::{DropReason, TxQueue};

use crate::vring::two_passes::{GPA, Rig, Shape, receive, send};
use crate::vring::{Fault, GuestRx, hook};
use crate::wire::net::{F_INDIRECT_DESC, F_MRG_RXBUF, F_RING_PACKED, F_VERSION_1};
use crate::wire::ring::{DESC_F_WRITE, Desc};

const FORMATS: [u64; 2] = [F_VERSION_1, F_VERSION_1 | F_RING_PACKED];
const BURST: usize = 32;
const BURSTS: usize = 30;

fn rig(features: u64, size: u16) -> Rig {
    let mut rig = Rig::new(Shape { features, size, ram: 2 << 20 });
    rig.start();
    rig
}

/// A few mbufs of its own.
fn small_pool() -> &'static Mempool {
    let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
    let config = MempoolConfig { mbufs: 16, cache: 0, zone, ..MempoolConfig::default() };
    Mempool::new(&config).expect("a pool")
}

/// Where no ring lies.
const DATA: u64 = GPA + (1 << 20);

fn buffer(i: u16, len: u32) -> Desc {
    Desc { addr: DATA + 2048 * u64::from(i % 256), len, flags: DESC_F_WRITE, next: 0 }
}

/// The front end disables the ring, and has its answer, in the moment before the burst enters the gate.
#[test]
fn a16_no_packet_for_the_guest_after_disable() {
    for features in FORMATS {
        let mut rig = rig(features, 8);
        let mut queue = rig.receiver();
        (0..8).for_each(|i| rig.post(i, &[buffer(i, 2048)]));
        let slot = Arc::clone(&rig.slot);
        hook::set_before_gate(Some(Box::new(move || slot.set_enabled(false))));
        assert_eq!(send(&mut queue, &[60; 4]), 4);
        hook::set_before_gate(None);
        assert_eq!((rig.used(), rig.counters.packets.get()), (0, 0), "disabled is disabled");
        assert_eq!(rig.counters.drops[DropReason::TxNotReady as usize].get(), 4);
        rig.slot.set_enabled(true);
        send(&mut queue, &[60; 4]);
        assert_eq!(rig.used(), 4);
    }
}

#[test]
fn a16_no_packet_of_the_guest_after_disable() {
    for features in FORMATS {
        let mut rig = rig(features, 8);
        let mut queue = rig.sender();
        (0..4).for_each(|i| rig.post(i, &[Desc { flags: 0, ..buffer(i, 72) }]));
        let slot = Arc::clone(&rig.slot);
        hook::set_before_gate(Some(Box::new(move || slot.set_enabled(false))));
        assert!(receive(&mut queue).is_empty(), "disabled is disabled");
        hook::set_before_gate(None);
        assert_eq!(rig.used(), 4, "a disabled ring is drained");
        assert_eq!(rig.counters.drops[DropReason::RxDisabled as usize].get(), 4);
    }
}

/// Virtio 1.3 §5.1.6.3.1: a mergeable buffer has room for the header at least.
#[test]
fn a11_a_mergeable_buffer_shorter_than_the_header_breaks_the_ring() {
    for features in FORMATS {
        for len in [0, 1, 11] {
            let mut rig = rig(features | F_MRG_RXBUF, 8);
            let mut queue = rig.receiver();
            rig.post(0, &[buffer(0, len)]);
            rig.post(1, &[buffer(1, 2048)]);
            send(&mut queue, &[60]);
            assert_eq!(rig.fault().map(Fault::name), Some("mergeable_buffer_too_short"), "{len} bytes");
            assert_eq!(rig.used(), 0);
        }
        let mut rig = rig(features | F_MRG_RXBUF, 8);
        let mut queue = rig.receiver();
        (0..6).for_each(|i| rig.post(i, &[buffer(i, 12)]));
        send(&mut queue, &[60]);
        assert_eq!((rig.fault(), rig.used()), (None, 6), "room for the header and nothing else is legal");
    }
}

/// Descriptors read in many bursts of frames of `len` bytes; the ring is asked for nothing else.
fn reads_of_many_bursts(queue: &mut GuestRx, len: usize) -> usize {
    hook::take();
    (0..BURSTS).for_each(|_| _ = send(queue, &[len; BURST]));
    queue.flush();
    hook::take().reads.len()
}

/// Buffers that no frame fits: a burst costs no more than ten times what an honest one does, in descriptors read, whatever
/// the frames and however the buffers are made.
#[test]
fn a11_buffers_that_hold_nothing() {
    for (features, merged) in FORMATS.into_iter().flat_map(|f| [(f, 0), (f, F_MRG_RXBUF)]) {
        for (bytes, chained) in [0, 1, 11].into_iter().flat_map(|n| [1, 30, 1000].map(|c| (n, c))) {
            for len in [60, 1514, 9000] {
                let mut rig = rig(features | merged | F_INDIRECT_DESC, 4096);
                let mut queue = rig.receiver();
                let chain = vec![buffer(0, bytes); chained];
                for i in 0..4096 / chained as u16 {
                    rig.post(i * chained as u16, &chain);
                }
                let reads = reads_of_many_bursts(&mut queue, len);
                let what =
                    format!("{bytes} bytes, chains of {chained}, frames of {len}, features {features:#x}");
                assert!(reads <= BURSTS * 10 * BURST, "{reads} descriptors read: {what}");
            }
        }
    }
}

/// Mergeable buffers of which there are never enough for a frame: what was found out is not found out again, until there is
/// one more.
#[test]
fn a11_a_frame_that_needs_more_than_there_is() {
    for features in FORMATS {
        let mut rig = rig(features | F_MRG_RXBUF, 1024);
        let mut queue = rig.receiver();
        (0..700).for_each(|i| rig.post(i, &[buffer(i, 12)]));
        let reads = reads_of_many_bursts(&mut queue, 9000);
        assert!(reads <= BURSTS * 10 * BURST, "{reads} descriptors read");
        assert_eq!(rig.used(), 0);
        (700..760).for_each(|i| rig.post(i, &[buffer(i, 12)]));
        send(&mut queue, &[9000]);
        assert_eq!(rig.used(), 751, "as soon as there are enough, the frame is sent");
    }
}

/// The longest chain there is, of which only the last descriptor says where the next chain starts: it is walked in parts.
#[test]
fn a11_the_longest_chain_that_is_sent() {
    for features in FORMATS {
        let mut rig = rig(features, 32_768);
        let mut queue = rig.sender();
        rig.post(0, &vec![Desc { flags: 0, ..buffer(0, 0) }; 32_767]);
        rig.post(32_767, &[Desc { flags: 0, ..buffer(0, 72) }]);
        let mut got = Vec::new();
        for _ in 0..64 {
            hook::take();
            got.extend(receive(&mut queue));
            let reads = hook::take().reads.len();
            assert!(reads <= 2 * crate::vring::MAX_PIECES, "{reads} descriptors read in a burst");
        }
        assert_eq!(got, [60], "what is behind it arrives");
        assert_eq!(rig.counters.drops[DropReason::RxBadDescriptor as usize].get(), 1);
    }
}

/// What was found out about a long chain counts for the place where it stands: not if a frame in front of it stays.
#[test]
fn a11_a_long_chain_behind_a_frame_that_gets_no_mbuf() {
    for features in FORMATS {
        let mut rig = rig(features, 32_768);
        let pool = small_pool();
        let mut queue = rig.sender_from(pool);
        rig.post(0, &[Desc { flags: 0, ..buffer(0, 72) }]);
        rig.post(1, &vec![Desc { flags: 0, ..buffer(0, 0) }; 32_000]);
        rig.post(32_001, &[Desc { flags: 0, ..buffer(0, 112) }]);
        let all: Vec<_> = std::iter::from_fn(|| pool.alloc(1).ok()).collect();
        (0..3).for_each(|_| assert!(receive(&mut queue).is_empty()));
        drop(all);
        let got: Vec<_> = (0..64).flat_map(|_| receive(&mut queue)).collect();
        assert_eq!((got, rig.fault()), (vec![60, 100], None));
        assert_eq!(rig.counters.drops[DropReason::RxBadDescriptor as usize].get(), 1);
    }
}

/// Chains of empty descriptors that are sent cost a burst no more than one of them may.
#[test]
fn a11_empty_chains_that_are_sent() {
    for features in FORMATS {
        for chained in [1, 7, 100, 1000] {
            let mut rig = rig(features, 4096);
            let mut queue = rig.sender();
            let chain = vec![Desc { flags: 0, ..buffer(0, 0) }; chained];
            (0..4096 / chained as u16).for_each(|i| rig.post(i * chained as u16, &chain));
            for _ in 0..4 {
                hook::take();
                assert!(receive(&mut queue).is_empty());
                let reads = hook::take().reads.len();
                assert!(reads <= 2 * crate::vring::MAX_PIECES, "{reads} descriptors read in a burst");
            }
        }
    }
}

//! The check against the kernel's own, `virtio_net_hdr_to_skb`: it must take whatever we let through.

use mbuf::Burst;
use pmd::offload::{OffloadSet, VirtioNetHdr, from_virtio_net};
use pmd::vdev::tap::{TapConfig, TapPort};
use pmd::{DropReason, Port, QueueEnv};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::frames::{Shape, packet, pool, shapes};
use crate::namespace::Namespace;

fn headers_of(shape: &Shape) -> impl Strategy<Value = VirtioNetHdr> + use<> {
    let (start, offset) = (shape.l4() as u16, shape.checksum_offset());
    let types = prop_oneof![Just(0u8), Just(1), Just(4), Just(5), Just(0x81), Just(0x84)];
    let starts = prop_oneof![8 => Just(start), 1 => 0..200u16];
    let offsets = prop_oneof![8 => Just(offset), 1 => 0..100u16];
    (0..4u8, types, 0..2000u16, starts, offsets).prop_map(
        |(flags, gso_type, gso_size, csum_start, csum_offset)| VirtioNetHdr {
            flags,
            gso_type,
            hdr_len: 0,
            gso_size,
            csum_start,
            csum_offset,
        },
    )
}

#[test]
#[ignore = "needs root"]
fn h20_needs_root_the_kernel_takes_whatever_we_accept() {
    let namespace = Namespace::new("h20");
    let mut port = namespace.run(|| TapPort::new(&TapConfig { interface: "h20".into(), queues: 1 }).unwrap());
    let pool = pool(256, 2048);
    let mut queues = port.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut cut) = (0, 0);
    for _ in 0..20_000 {
        let shape = shapes(3000).new_tree(&mut runner).unwrap().current();
        let hdr = headers_of(&shape).new_tree(&mut runner).unwrap().current();
        let frame = shape.build_partial();
        let Ok(offload) = from_virtio_net(&hdr, &frame, frame.len(), OffloadSet::ALL) else { continue };
        let mut mbuf = packet(pool, &frame, &[]);
        mbuf.set_offload(offload);
        let mut burst = Burst::new();
        burst.push(mbuf).unwrap();
        assert_eq!(queues.tx[0].tx_burst(&mut burst), 1);
        let refused = port.counters().tx[0].drops[DropReason::TxError as usize].get();
        assert_eq!(refused, 0, "the kernel refuses {hdr:?} on {shape:?}");
        accepted += 1;
        cut += u32::from(offload.gso_size != 0);
    }
    assert!(
        accepted > 5000 && cut > 500,
        "{accepted} accepted, {cut} of them to be cut: the test must reach its case"
    );
}

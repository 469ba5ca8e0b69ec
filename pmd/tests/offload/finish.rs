//! Checksums finished in software, against etherparse's.

use std::sync::LazyLock;

use mbuf::{Checksum, GsoKind, Mbuf, Mempool, Offload};
use pmd::DropReason;
use pmd::offload::finish;
use proptest::prelude::*;

use crate::frames::{Shape, bytes, packet, pool, shapes};

fn partial(shape: &Shape) -> Offload {
    let mut offload = Offload::NONE;
    offload.checksum = Checksum::Partial;
    offload.csum_start = shape.l4() as u16;
    offload.csum_offset = shape.checksum_offset();
    offload
}

fn owed(mut mbuf: Mbuf<'static>, shape: &Shape) -> Mbuf<'static> {
    mbuf.set_offload(partial(shape));
    mbuf
}

static POOL: LazyLock<&'static Mempool> = LazyLock::new(|| pool(128, 512));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn is_what_the_oracle_computes(shape in shapes(3000), pieces in proptest::collection::vec(1..700usize, 0..5)) {
        let pool = *POOL;
        let done = finish(owed(packet(pool, &shape.build_partial(), &pieces), &shape)).unwrap();
        prop_assert_eq!(bytes(&done), shape.build());
        prop_assert_eq!(done.offload().checksum, Checksum::Valid);
        prop_assert!(done.offload().is_none());
        drop(done);
        prop_assert_eq!(pool.balance().out, 0);
    }
}

#[test]
fn a_shared_packet_is_copied_and_its_sharer_sees_no_change() {
    let pool = pool(8, 2048);
    let shape = Shape::TCP4;
    let mbuf = owed(packet(pool, &shape.build_partial(), &[]), &shape);
    let sharer = mbuf.share();
    assert_eq!(bytes(&finish(mbuf).unwrap()), shape.build());
    assert_eq!(bytes(&sharer), shape.build_partial());
}

#[test]
fn a_udp_checksum_is_never_zero() {
    let pool = pool(8, 2048);
    let shape = Shape { udp: true, payload: 2, ..Shape::TCP4 };
    let mut frame = shape.build_partial();
    let end = frame.len();
    // A payload that brings the sum to 0xFFFF, whose complement is 0.
    frame[end - 2..].fill(0);
    let sum = {
        let mut sum = pmd::offload::Sum::new();
        sum.add(&frame[shape.l4()..]);
        sum.finish()
    };
    frame[end - 2..].copy_from_slice(&sum.to_be_bytes());
    let done = finish(owed(packet(pool, &frame, &[]), &shape)).unwrap();
    assert_eq!(bytes(&done)[shape.l4() + 6..][..2], [0xff, 0xff]);
}

#[test]
fn what_cannot_be_finished_is_dropped_by_name() {
    let pool = pool(4, 2048);
    let shape = Shape::TCP4;
    let mut mbuf = owed(packet(pool, &shape.build_partial(), &[]), &shape);
    let mut offload = partial(&shape);
    offload.gso = GsoKind::TcpV4;
    mbuf.set_offload(offload);
    assert_eq!(finish(mbuf).unwrap_err(), DropReason::TxOffload);
    let mut mbuf = packet(pool, &shape.build_partial(), &[]);
    (offload.gso, offload.csum_start) = (GsoKind::None, 0xfff0);
    mbuf.set_offload(offload);
    assert_eq!(finish(mbuf).unwrap_err(), DropReason::TxOffload);
    let mbuf = owed(packet(pool, &shape.build_partial(), &[]), &shape);
    let _sharer = mbuf.share();
    let _rest: Vec<_> = std::iter::from_fn(|| pool.alloc(0).ok()).collect();
    assert_eq!(finish(mbuf).unwrap_err(), DropReason::NoMbufs);
}

#[test]
fn what_owes_nothing_comes_back_untouched() {
    let pool = pool(4, 2048);
    let mbuf = packet(pool, &Shape::TCP4.build(), &[]);
    let at = mbuf.data().as_ptr();
    assert_eq!(finish(mbuf).unwrap().data().as_ptr(), at);
}

//! A1: what comes in rewrites descriptors that the burst has already read.

use vhost::driver::Span;
use vhost::wire::net::F_MRG_RXBUF;
use vhost::wire::packed::{DESC_F_AVAIL, PackedDesc};
use vhost::wire::ring::{DESC_F_NEXT, DESC_F_WRITE, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side};
use crate::frames::between;
use crate::numbers::Numbers;
use crate::packed_races::PACKED_FAULTS;
use crate::raw::Raw;
use crate::scene::{X, Y, case};

/// Header and Ethernet header: what lies in front of the bytes that a sender chooses.
const FRONT: usize = 12 + 14;
const ROUNDS: u64 = 30;

/// Eight frames whose bytes are the descriptors of `ring`, whose buffers they go to: some of these have NEXT, and some
/// frames are too long for one buffer.
fn frames(ring: &Span, size: u16, numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let len = FRONT + ring.len();
    let (nexts, long) = (numbers.below(1 << size), numbers.below(256));
    let mut descs = Vec::new();
    for id in 0..size {
        let more = if nexts >> id & 1 == 1 { DESC_F_NEXT } else { 0 };
        let flags = DESC_F_AVAIL | DESC_F_WRITE | more;
        let desc = PackedDesc { addr: ring.gpa() - FRONT as u64, len: len as u32, id, flags };
        descs.extend(desc.addr.to_le_bytes());
        descs.extend(desc.rest_word().to_le_bytes());
    }
    (0..8)
        .map(|i| {
            let mut frame = between(Y, X, 14, 0);
            frame.extend(&descs);
            frame.resize(if long >> i & 1 == 1 { len + 4 } else { len - 12 }, 0);
            frame
        })
        .collect()
}

/// RX buffers that are the packed ring itself: the ring breaks under a name or runs on, and that is all.
#[test]
fn a01_packed_buffers_that_are_the_ring() {
    for plan in [Plan::packed(), Plan::packed().without(F_MRG_RXBUF)] {
        for size in 1..=8u16 {
            case(|scene| {
                let mut attacker = Attacker::negotiate(scene, Plan { size, ..plan });
                // Behind something that may be written over, too.
                let front = attacker.ram.alloc(64, 64).expect("room");
                attacker.rx = Raw::new(&attacker.ram, Side::Rx, &attacker.plan);
                let ring = attacker.rx.packed().desc.clone();
                let behind = attacker.ram.alloc(512, 1).expect("room");
                attacker.start_ring(Side::Rx);
                attacker.start_ring(Side::Tx);
                attacker.arm();
                [&front, &ring, &behind].into_iter().for_each(|span| attacker.allow(span));
                attacker.picture();
                let mut numbers = Numbers::new(u64::from(size));
                for _ in 0..ROUNDS {
                    attacker.revive(Side::Rx, 0);
                    for _ in 0..size {
                        let (addr, len) = (ring.gpa() - FRONT as u64, (FRONT + ring.len()) as u32);
                        attacker.rx.post(&[Desc { addr, len, flags: DESC_F_WRITE, next: 0 }]);
                    }
                    scene.y_sends_at_once(&frames(&ring, size, &mut numbers));
                    scene.expect_y_sent();
                    let state = scene.x_ring("rx0");
                    assert!(state == "running" || PACKED_FAULTS.contains(&state.as_str()), "rx0 is {state}");
                }
                assert!(ring.gpa() > GPA);
                attacker.judge();
            });
        }
    }
}

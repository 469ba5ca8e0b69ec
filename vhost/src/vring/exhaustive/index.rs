//! Index arithmetic: where rings and counters wrap.

use core::sync::atomic::Ordering;

use super::rig::{Outcome, Rig};
use crate::vring::Fault;
use crate::wire::packed::{self, Position};
use crate::wire::ring::need_event;

/// avail.idx may be ahead of what was given back by the ring's size and no more (§2.7.13.3), wherever the counter stands.
#[test]
fn i04_every_move_of_avail_idx() {
    let mut rig = Rig::new();
    for size in (0..=15).map(|bit| 1u16 << bit) {
        for base in [0u16, 1, 0x7fff, 0x8000, 0xffff] {
            let edges = [size - 1, size, size.wrapping_add(1), 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
            let all: Vec<u16> =
                if size <= 4 && base != 1 { (0..=u16::MAX).collect() } else { edges.to_vec() };
            for by in all {
                rig.avail[1].store(base.wrapping_add(by), Ordering::Relaxed);
                rig.start(size, base.into(), 0);
                // Empty descriptors: a buffer without a header is dropped.
                let dropped = u64::from(by.min(mbuf::MAX_BURST as u16));
                let want = match by <= size {
                    true => Outcome { frames: Vec::new(), dropped, fault: None },
                    false => Outcome::of(&[], Some(Fault::AvailIndex)),
                };
                assert_eq!(rig.burst(), want, "size {size}, from {base} by {by}");
            }
        }
    }
}

/// §2.7.7.2, counted without wrapping: the event's entry is among those that were moved over.
#[test]
fn v38_every_event_of_a_split_ring() {
    let moves = (0..=64).chain([255, 256, 257, 32_767, 32_768]);
    for moved in moves {
        for old in [0u16, 1, 0x7fff, 0x8000, 0xfff0, 0xffff] {
            for event in 0..=u16::MAX {
                let ahead = (u32::from(event) + 0x1_0000 - u32::from(old)) % 0x1_0000;
                let got = need_event(event, old.wrapping_add(moved), old);
                assert_eq!(got, ahead < u32::from(moved), "event {event}, from {old} by {moved}");
            }
        }
    }
}

#[test]
fn v46_every_step_in_a_packed_ring() {
    for size in (1..=64).chain([255, 256, 257, 32_767, 32_768u16]) {
        let places: Vec<u16> =
            if size <= 64 { (0..size).collect() } else { vec![0, 1, size / 2, size - 2, size - 1] };
        let steps: Vec<u16> =
            if size <= 64 { (0..=size).collect() } else { vec![0, 1, size / 2, size - 1, size] };
        for (at, n) in places.iter().flat_map(|at| steps.iter().map(move |n| (*at, *n))) {
            for wrap in [true, false] {
                let want = (u32::from(at) + u32::from(n), u32::from(size));
                let want = Position { at: (want.0 % want.1) as u16, wrap: wrap ^ (want.0 >= want.1) };
                assert_eq!(Position { at, wrap }.after(n, size), want, "{at} {wrap} by {n} of {size}");
            }
        }
    }
}

#[test]
fn v46_every_position_and_its_words() {
    for bits in 0..=u16::MAX {
        let position = Position::from_bits(bits);
        assert_eq!(position.to_bits(), bits);
        assert_eq!(Position::of_base(position.base()), position);
        // DPDK's front ends leave the upper half 0.
        assert_eq!(Position::of_base(bits.into()), position);
        for size in [1, 2, 256, 32_768] {
            let inside = bits & 0x7fff < size;
            assert_eq!(Position::is_base_within(position.base(), size), inside, "{bits:#x} in {size}");
        }
    }
}

/// §2.8.10, counted from the first round on: the event's descriptor is among those that were moved over.
#[test]
fn v37_every_event_of_a_packed_ring() {
    for size in 1..=24u16 {
        let place = |n: u16| Position { at: n % size, wrap: (n / size).is_multiple_of(2) };
        for (now, moved) in (size..3 * size).flat_map(|now| (0..=size).map(move |moved| (now, moved))) {
            for event in now - size..now {
                let got = packed::need_event(place(event), place(now), moved.into(), size);
                assert_eq!(got, event >= now - moved, "size {size}, event {event}, moved {moved} to {now}");
            }
        }
    }
}

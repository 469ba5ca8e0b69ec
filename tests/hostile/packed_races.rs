//! A racer rewrites a packed ring's descriptors while the device reads them: V30, V32, V36.

use vhost::driver::PackedRing;
use vhost::wire::packed::{DESC_F_AVAIL, DESC_F_USED, PackedDesc, Position};
use vhost::wire::ring::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};

use crate::attacker::{Attacker, GPA, Plan, Side};
use crate::numbers::Numbers;
use crate::packed::sound;
use crate::races::race_steps;
use crate::scene::case;

/// What a racer can make of a packed ring.
pub(crate) const PACKED_FAULTS: [&str; 7] = [
    "chain_too_long",
    "chain_not_available",
    "bad_buffer_id",
    "bad_indirect_table",
    "buffer_outside_memory",
    "buffer_direction",
    "mergeable_buffer_too_short",
];

/// A racer rewrites what `flip` likes of the ring while the device reads it; the ring is set up anew whenever it broke.
fn race(side: Side, flip: impl Fn(&PackedRing, &[PackedDesc; 4], &mut Numbers) + Sync) {
    case(|scene| {
        let plan = Plan { size: 64, ..Plan::packed() }.with(crate::headers::OFFLOADS);
        let mut attacker = Attacker::start(scene, plan);
        let header = sound(&attacker, side, 12);
        let span = attacker.ram.alloc(2 * 4096, 64).expect("room");
        if side == Side::Rx {
            attacker.allow(&span);
            // The header's address and another piece's length are what a driver may have meant, too.
            attacker.allow(&attacker.ram.span((header.addr - GPA) as usize, 512));
        }
        let rest = PackedDesc { addr: span.gpa(), len: 400, ..header };
        let pieces = [header, rest, PackedDesc { addr: rest.addr + 412, len: 500, ..rest }, rest];
        let ring = attacker.side(side).packed().clone();
        attacker.picture();
        let mut broken = 0u32;
        let mut step = || {
            for _ in 0..20 {
                if side == Side::Rx {
                    scene.y_sends_plain(8, 200);
                }
                scene.discard_at_y();
                std::thread::yield_now();
            }
            let state = scene.x_ring(side.name());
            if state != "running" {
                assert!(PACKED_FAULTS.contains(&state.as_str()), "{} is {state}", side.name());
                let start = Position { at: broken as u16 % 64, wrap: broken.is_multiple_of(2) };
                attacker.front.set_vring_base(side.index(), start.base()).expect("BASE");
                broken += 1;
            }
        };
        let flips = race_steps(|numbers| flip(&ring, &pieces, numbers), &mut step);
        assert!(flips > 1000 && broken > 0, "the racer ran, and broke something");
        attacker.front.vring_base(side.index()).expect("it stops");
        scene.discard_at_y();
        attacker.judge();
    });
}

/// Flags of all kinds in both rounds, ids of all kinds, anywhere: V30 and V36 at full speed.
fn flip_flags_and_ids(ring: &PackedRing, pieces: &[PackedDesc; 4], numbers: &mut Numbers) {
    let at = numbers.below(64) as u16;
    let piece = numbers.pick(pieces);
    let round =
        numbers.pick(&[DESC_F_AVAIL, DESC_F_USED, DESC_F_AVAIL, DESC_F_USED, 0, DESC_F_AVAIL | DESC_F_USED]);
    let flags =
        numbers.pick(&[0, 0, 0, DESC_F_NEXT, DESC_F_NEXT, DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT]);
    let id = numbers.pick(&[at, at, at, at, at, at, at, 0, 63, 64, 0xffff]);
    ring.set_desc(at, PackedDesc { id, flags: piece.flags ^ flags | round, ..piece });
}

#[test]
fn v30_racer_on_flags_and_ids_of_what_is_sent() {
    race(Side::Tx, flip_flags_and_ids);
}

#[test]
fn v30_racer_on_flags_and_ids_of_what_is_received() {
    race(Side::Rx, flip_flags_and_ids);
}

/// Every descriptor says that it is available in both rounds by turns, and holds what no driver writes.
#[test]
fn v32_racer_on_address_and_length() {
    race(Side::Tx, |ring, pieces, numbers| {
        let end = GPA + (1 << 20);
        let sound = pieces[1].addr;
        let addr = numbers.pick(&[sound, sound, sound, end - 400, end - 1, GPA - 1, u64::MAX - 5]);
        let len = numbers.pick(&[400, 400, 400, 0, 1, 12, 65_535, 0x1_0000, 1 << 20, u32::MAX]);
        let at = numbers.below(64) as u16;
        let round = numbers.pick(&[DESC_F_AVAIL, DESC_F_USED]);
        ring.set_desc(at, PackedDesc { addr, len, id: at, flags: round });
    });
}

/// The same where the device writes: no byte lands outside of the RAM, or where no length ever allowed it.
#[test]
fn v32_racer_on_address_and_length_of_buffers() {
    race(Side::Rx, |ring, pieces, numbers| {
        // An address of one and a length of another are what a driver may have meant, too.
        let (skip, len) = numbers.pick(&[
            (0, 4096),
            (0, 100),
            (2048, 2048),
            (4000, 96),
            (4095, 1),
            (0, 0),
            (9, 12),
            (0, u32::MAX),
        ]);
        let at = numbers.below(64) as u16;
        let round = numbers.pick(&[DESC_F_AVAIL, DESC_F_USED]);
        let more = numbers.pick(&[0, 0, 0, DESC_F_NEXT]);
        let flags = DESC_F_WRITE | round | more;
        ring.set_desc(at, PackedDesc { addr: pieces[1].addr + skip, len, id: at, flags });
    });
}

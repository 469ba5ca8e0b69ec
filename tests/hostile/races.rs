//! A racer rewrites what the device reads while it reads it: V30 to V32, V34. I1: each word is read once, so whatever the
//! device does is right for some snapshot; the build checks overflows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vhost::driver::{NetHdr, Span, SplitRing};
use vhost::wire::ring::{AVAIL_RING_OFFSET, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side, part, read, set_entry};
use crate::frames;
use crate::numbers::Numbers;
use crate::scene::{Scene, case, race_time};

/// Ends the racer even if the case fails.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `play` while a racer calls `flip` as fast as it can.
pub(crate) fn racing(flip: impl Fn(&mut Numbers) + Sync, play: impl FnOnce()) {
    beside_racer(flip, |_| play());
}

/// Calls `step` again and again, for [`race_time`], while a racer calls `flip` as fast as it can; on a machine so busy that
/// the racer hardly had its turn, for longer. Returns how often it flipped.
pub(crate) fn race_steps(flip: impl Fn(&mut Numbers) + Sync, mut step: impl FnMut()) -> u64 {
    beside_racer(flip, |flips| {
        let start = Instant::now();
        let too_few = || flips.load(Ordering::Relaxed) <= 1000 && start.elapsed() < Duration::from_secs(30);
        while start.elapsed() < race_time() || too_few() {
            step();
        }
    })
}

/// Runs `play` beside the racer, and shows it how often that has flipped; returns that.
fn beside_racer(flip: impl Fn(&mut Numbers) + Sync, play: impl FnOnce(&AtomicU64)) -> u64 {
    let (stop, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut numbers = Numbers::new(35);
            while !stop.load(Ordering::Relaxed) {
                (0..256).for_each(|_| flip(&mut numbers));
                flips.fetch_add(256, Ordering::Relaxed);
            }
        });
        let _guard = StopOnDrop(&stop);
        play(&flips);
    });
    flips.into_inner()
}

/// Keeps a ring full of the heads that stand in its entries, and sets it up anew whenever it broke.
struct Feeder {
    side: Side,
    revived: u32,
}

impl Feeder {
    fn new(attacker: &mut Attacker, side: Side, heads: &[u16]) -> Self {
        let raw = attacker.side(side);
        for at in 0..raw.ring().size() {
            raw.ring().set_avail_entry(at, heads[usize::from(at) % heads.len()]);
        }
        Self { side, revived: 0 }
    }

    fn feed(&mut self, scene: &mut Scene, attacker: &mut Attacker) {
        for _ in 0..20 {
            let ring = &attacker.side(self.side).ring();
            ring.set_avail_idx(ring.used_idx().wrapping_add(ring.size()));
            if self.side == Side::Rx {
                scene.y_sends_plain(8, 200);
            }
            scene.discard_at_y();
            thread::yield_now();
        }
        let state = scene.x_ring(self.side.name());
        if state != "running" {
            assert!(FAULTS.contains(&state.as_str()), "{} is {state}", self.side.name());
            let base = attacker.side(self.side).ring().used_idx();
            attacker.revive(self.side, base);
            self.revived += 1;
        }
    }
}

/// What a racer can make of a ring.
const FAULTS: [&str; 7] = [
    "avail_index_jump",
    "descriptor_index_out_of_range",
    "chain_too_long",
    "bad_indirect_table",
    "buffer_outside_memory",
    "buffer_direction",
    "mergeable_buffer_too_short",
];

/// The race itself. `prepare` lays out what `flip` then changes; `heads` are offered again and again.
fn race<T: Sync>(
    side: Side,
    heads: &[u16],
    prepare: impl FnOnce(&mut Attacker) -> T,
    flip: impl Fn(&T, &mut Numbers) + Sync,
) {
    case(|scene| {
        let mut attacker =
            Attacker::start(scene, Plan { features: crate::headers::OFFLOADS, ..Plan::default() });
        let state = prepare(&mut attacker);
        let rings = [attacker.rx.ring().clone(), attacker.tx.ring().clone()];
        for ring in &rings {
            attacker.allow(&ring.avail);
            attacker.allow(&ring.desc);
        }
        attacker.picture();
        let mut feeder = Feeder::new(&mut attacker, side, heads);
        let flips = race_steps(|numbers| flip(&state, numbers), || feeder.feed(scene, &mut attacker));
        assert!(flips > 1000, "the racer ran");
        attacker.front.vring_base(side.index()).expect("it stops");
        scene.discard_at_y();
        attacker.judge();
    });
}

/// A chain over descriptors 0 to 3, and the ring's table to change it in. Of what is sent, the header is one piece, and the
/// others hold nothing but [`CANARY`](crate::attacker::CANARY): whatever a race makes a frame of goes to `y`.
fn chain(attacker: &mut Attacker, side: Side) -> (SplitRing, [Desc; 4]) {
    let header = read(&attacker.place(&[0; 12]));
    let span = attacker.ram.alloc(1500, 64).expect("room");
    if side == Side::Rx {
        attacker.allow(&span);
    }
    let rest = read(&span);
    let first = if side == Side::Rx { part(rest, 0, 12) } else { header };
    let pieces = [first, part(rest, 12, 400), part(rest, 412, 500), part(rest, 912, 588)];
    let pieces = pieces.map(|piece| Desc { flags: side.flag(), ..piece });
    let raw = attacker.side(side);
    raw.lay(&pieces);
    (raw.ring().clone(), pieces)
}

fn flip_flags_and_next(side: Side) {
    race(
        side,
        &[0, 0, 1],
        |attacker| chain(attacker, side),
        |(ring, pieces), numbers| {
            let i = numbers.below(4) as u16;
            let flags = numbers.pick(&[DESC_F_NEXT, DESC_F_NEXT, DESC_F_NEXT, 0, DESC_F_WRITE, 4]);
            let next = numbers.pick(&[1, 2, 3, 3, i, 256, 0xffff]);
            let piece = pieces[usize::from(i)];
            ring.set_desc(i, Desc { flags: piece.flags ^ flags, next, ..piece });
        },
    );
}

#[test]
fn v30_racer_on_next_and_flags_of_what_is_sent() {
    flip_flags_and_next(Side::Tx);
}

#[test]
fn v30_racer_on_next_and_flags_of_what_is_received() {
    flip_flags_and_next(Side::Rx);
}

/// Heads in the available ring themselves.
#[test]
fn v30_racer_on_heads() {
    race(
        Side::Tx,
        &[0],
        |attacker| chain(attacker, Side::Tx).0,
        |ring, numbers| {
            let at = AVAIL_RING_OFFSET + 2 * numbers.below(256) as usize;
            ring.avail.store_u16(at, numbers.pick(&[0, 0, 0, 0, 1, 255, 256, 0xffff]), Ordering::Relaxed);
        },
    );
}

/// Length and place of a table, and the entries in it.
#[test]
fn v31_racer_on_a_table() {
    race(
        Side::Tx,
        &[0],
        |attacker| {
            let (ring, pieces) = chain(attacker, Side::Tx);
            let table = attacker.ram.alloc(256 * DESC_SIZE, 64).expect("room");
            table.fill(0, table.len(), 0);
            attacker.allow(&table);
            let named = Desc { addr: table.gpa(), len: 32, flags: DESC_F_INDIRECT, next: 0 };
            (ring, table, named, pieces)
        },
        |(ring, table, named, pieces), numbers| {
            let len = numbers.pick(&[32, 32, 48, 16, 4096, 4112, 0, 17, u32::MAX]);
            let addr =
                numbers.pick(&[named.addr, named.addr, named.addr + 16, GPA + (1 << 20) - 16, 0, u64::MAX]);
            ring.set_desc(0, Desc { addr, len, ..*named });
            let first = numbers.pick(&[pieces[0], pieces[0], pieces[1]]);
            set_entry(table, 0, Desc { flags: DESC_F_NEXT, next: 1, ..first });
            let (flags, next) =
                numbers.pick(&[(0, 0), (0, 0), (DESC_F_NEXT, 2), (DESC_F_NEXT, 255), (DESC_F_NEXT, 256)]);
            set_entry(table, 1, Desc { flags, next, ..numbers.pick(&pieces[1..]) });
        },
    );
}

/// Places and lengths: small, huge, outside, and where both meet the end of the RAM.
#[test]
fn v32_racer_on_address_and_length() {
    race(
        Side::Tx,
        &[0],
        |attacker| chain(attacker, Side::Tx),
        |(ring, pieces), numbers| {
            let (addr, end) = (pieces[1].addr, GPA + (1 << 20));
            let addr = numbers.pick(&[addr, addr, addr + 1, end - 400, end - 1, GPA - 1, u64::MAX - 5]);
            let len = numbers.pick(&[400, 400, 0, 1, 12, 65_535, 0x1_0000, 1 << 20, u32::MAX]);
            ring.set_desc(1, Desc { addr, len, flags: DESC_F_NEXT, next: 2 });
        },
    );
}

/// The same where the device writes: no byte lands outside of the RAM, or where no length ever allowed it.
#[test]
fn v32_racer_on_address_and_length_of_buffers() {
    race(
        Side::Rx,
        &[0],
        |attacker| {
            // Twice as long as any buffer: an address of one and a length of another are what a driver may have meant, too.
            let span = attacker.ram.alloc(2 * 4096, 64).expect("room");
            attacker.allow(&span);
            (attacker.rx.ring().clone(), span)
        },
        |(ring, span): &(SplitRing, Span), numbers| {
            let (at, len) =
                numbers.pick(&[(0, 4096), (0, 100), (2048, 2048), (4000, 96), (4095, 1), (0, 0), (9, 12)]);
            let flags = DESC_F_WRITE | numbers.pick(&[0, 0, 0, DESC_F_NEXT]);
            ring.set_desc(0, Desc { addr: span.gpa() + at, len, flags, next: 1 });
            ring.set_desc(1, Desc { addr: span.gpa() + at, len, flags: DESC_F_WRITE, next: 0 });
        },
    );
}

/// Every byte of the virtio-net header, while the packet behind it is a sound one to cut and to sum.
#[test]
fn v34_racer_on_the_header() {
    race(
        Side::Tx,
        &[0, 1],
        |attacker| {
            let hdr = NetHdr {
                flags: 1,
                gso_type: 1,
                hdr_len: 54,
                gso_size: 500,
                csum_start: 34,
                csum_offset: 16,
                num_buffers: 0,
            };
            let span = attacker.place(&attacker.packet(hdr, &frames::tcp4(3000)));
            attacker.allow(&span);
            attacker.tx.lay(&[read(&span)]);
            attacker.tx.lay(&[part(read(&span), 0, 300)]);
            span
        },
        |span, numbers| {
            let right = [1u8, 1, 54, 0, 0xf4, 1, 34, 0, 16, 0, 0, 0];
            let at = numbers.below(12) as usize;
            let lie = numbers.pick(&[right[at], right[at], 0, 1, 4, 5, 0x80, 0xff, 0x7f]);
            span.write(at, &[lie]);
        },
    );
}

/// The headers inside of the packet, which decide where it is cut.
#[test]
fn v34_racer_on_the_packets_own_headers() {
    race(
        Side::Tx,
        &[0],
        |attacker| {
            let hdr = NetHdr {
                flags: 1,
                gso_type: 1,
                gso_size: 500,
                csum_start: 34,
                csum_offset: 16,
                ..NetHdr::default()
            };
            let span = attacker.place(&attacker.packet(hdr, &frames::tcp4(3000)));
            attacker.allow(&span);
            attacker.tx.lay(&[read(&span)]);
            span
        },
        |span, numbers| {
            // From the EtherType to TCP's data offset; addresses stay, or the victims' rings would be flooded.
            let at = 12 + 12 + numbers.below(35) as usize;
            span.write(at, &[numbers.pick(&[0, 5, 6, 0x45, 0x46, 0x4f, 0x50, 0xf0, 0xff, 8])]);
        },
    );
}

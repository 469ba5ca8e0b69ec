//! Memory that vanishes: M10, M11, M13.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use vhost::driver::{GuestRam, NetHdr, RamConfig};
use vhost::wire::ring::Desc;

use crate::attacker::{Attacker, GPA, Plan, Raw, Side, cut, read, write};
use crate::frames;
use crate::numbers::Numbers;
use crate::scene::{PATIENCE, Scene, both, case, eventually, race_time};

/// RAM whose size nobody can seal any more.
fn unsealable(scene: &Scene, plan: Plan) -> Attacker {
    let mut attacker = Attacker::negotiate(scene, Plan { sealed: false, ..plan });
    // The table that `negotiate` handed over was sealed by the port; this one is a copy that it cannot seal.
    let ram = RamConfig { bytes: plan.ram_bytes, gpa_base: GPA, sealed: false, ..Default::default() };
    let ram = GuestRam::new(ram).expect("RAM");
    fcntl_add_seals(ram.as_fd(), SealFlags::SEAL).expect("seal");
    attacker.front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("a table");
    attacker.rx = Raw::new(&ram, Side::Rx, &plan);
    attacker.tx = Raw::new(&ram, Side::Tx, &plan);
    attacker.ram = ram;
    attacker.start_ring(Side::Rx);
    attacker.start_ring(Side::Tx);
    attacker
}

/// Fills the TX ring with frames and the RX ring with buffers; whoever took the memory away touches nothing after that.
fn fill(attacker: &mut Attacker) {
    let whole = attacker.packet(NetHdr::default(), &frames::plain(1400, 11));
    let (out, room) = (attacker.place(&whole), attacker.ram.alloc(2048, 64).expect("room"));
    for _ in 0..attacker.plan.size / 2 {
        let pieces = cut(read(&out), 800);
        let head = attacker.tx.lay(&pieces);
        attacker.tx.stage(head);
        let head = attacker.rx.lay(&[write(&room)]);
        attacker.rx.stage(head);
    }
}

/// The port leaves the seals to the front end (sealing may wait for ever, A7), and tells whether it can shrink.
#[test]
fn m10_sealed_by_its_owner_or_not() {
    for (sealed, told) in [(true, ", sealed against shrinking"), (false, ", 1 not sealed against shrinking")]
    {
        case(|scene| {
            let attacker = Attacker::start(scene, Plan { sealed, ..Plan::default() });
            let memory = scene.x_detail("memory").expect("memory");
            assert!(memory.ends_with(told), "{memory}");
            drop(attacker);
        });
    }
}

/// All of it is gone at once, under frames both ways: the session ends, soon, under a name.
#[test]
fn m10_truncated_to_nothing() {
    both(|scene, plan| {
        let before = scene.x_count("memory_gone");
        let mut fastest = Duration::MAX;
        for round in 1..=3 {
            let mut attacker = unsealable(scene, Plan { size: 1024, ..plan });
            fill(&mut attacker);
            attacker.tx.publish();
            attacker.rx.publish();
            scene.y_sends_plain(20, 500);
            ftruncate(attacker.ram.as_fd(), 0).expect("nothing forbids it");
            let start = Instant::now();
            assert!(attacker.front.is_closed_within(PATIENCE), "the session ends");
            fastest = fastest.min(start.elapsed());
            eventually("told", || scene.x_count("memory_gone") >= before + round);
            scene.discard_at_y();
        }
        // 10 ms, says docs/hostile.md; others are busy here, so the fastest of three has ten times as long.
        assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    });
}

/// Down and up again at random sizes while bursts run: rings, tables, headers and payloads vanish in turn. Either the port
/// noticed and ended the session, or every access went through; a new session follows at once.
#[test]
fn m11_racer_truncates() {
    both(|scene, plan| {
        let mut numbers = Numbers::new(11);
        let end = Instant::now() + race_time() * 2;
        let (mut sessions, mut gone) = (0, 0);
        let before = scene.x_count("memory_gone");
        while Instant::now() < end {
            let plan = Plan { size: 1024, ..plan };
            let mut attacker = unsealable(scene, plan);
            fill(&mut attacker);
            attacker.tx.publish();
            attacker.rx.publish();
            scene.y_sends_plain(16, 1000);
            let bytes = attacker.ram.bytes() as u64;
            for _ in 0..20 {
                ftruncate(attacker.ram.as_fd(), numbers.below(bytes / 4096) * 4096).expect("down");
                std::thread::yield_now();
                ftruncate(attacker.ram.as_fd(), bytes).expect("up");
            }
            gone += u32::from(attacker.front.is_closed_within(Duration::from_millis(5)));
            sessions += 1;
            scene.discard_at_y();
        }
        assert!(sessions > 5 && gone > 0, "{gone} of {sessions} sessions lost their memory");
        assert!(scene.x_count("memory_gone") > before);
    });
}

/// A hole is punched, as balloons and free page reporting do: what was there reads as zeroes, and nobody minds. Payload
/// first, then a whole ring, whose index then jumps.
#[test]
fn m13_holes() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let frame = frames::plain(8000, 13);
        let span = attacker.ram.alloc(12_288, 4096).expect("room");
        span.write(4096 - 12, &attacker.packet(NetHdr::default(), &frame)[..12]);
        span.write(4096, &frame);
        let page = attacker.ram.bytes() as u64 - 4096;
        let at = span.gpa() - GPA + 8192;
        fallocate(attacker.ram.as_fd(), punch, at, 4096).expect("a hole");
        let buffer = Desc { addr: span.gpa() + 4096 - 12, len: 8012, flags: 0, next: 0 };
        attacker.tx.post(&[buffer]);
        let mut with_a_hole = frame;
        with_a_hole[4096..].fill(0);
        scene.expect_at_y(&[with_a_hole]);
        fallocate(attacker.ram.as_fd(), punch, 0, page).expect("a large hole");
        // avail.idx is 0 again, and the device stood at 1.
        scene.expect_ring("tx0", "avail_index_jump");
        attacker.revive(Side::Tx, 0);
        let good = frames::plain(100, 13);
        attacker.send(&good);
        scene.expect_at_y(&[good]);
    });
}

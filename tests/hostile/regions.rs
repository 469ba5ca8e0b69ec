//! What lies on the border of two regions, in both or in none: V21 to V24, M5, and P1's rings in regions of their own.

use std::os::fd::AsFd;

use vhost::driver::{FrontEndError, GuestRam, RamConfig};
use vhost::wire::message::{MemoryRegion, Request, VringAddr};
use vhost::wire::ring::{DESC_F_INDIRECT, Desc};

use crate::attacker::{Attacker, GPA, Plan, Side};
use crate::frames;
use crate::scene::{Scene, both};

/// Bytes of the second region.
const SECOND: usize = 64 << 10;

/// Where the second region starts: the first one's end, or a page behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Adjacent,
    Apart,
}

/// An attacker with two regions from different files; the front end's addresses are adjacent, too.
fn two_regions(scene: &Scene, plan: Plan, place: Place) -> (Attacker, GuestRam) {
    let mut attacker = Attacker::negotiate(scene, plan);
    let gap = if place == Place::Adjacent { 0 } else { 4096 };
    let gpa_base = GPA + attacker.ram.bytes() as u64 + gap;
    let second = GuestRam::new(RamConfig { bytes: SECOND, gpa_base, ..RamConfig::default() }).expect("RAM");
    let first = attacker.ram.region();
    let row = MemoryRegion { va: first.va + first.size, ..second.region() };
    let table = [(first, attacker.ram.as_fd()), (row, second.as_fd())];
    attacker.front.set_mem_table(&table).expect("adjacent regions of different files are legal");
    attacker.start_ring(Side::Rx);
    attacker.start_ring(Side::Tx);
    attacker.arm();
    (attacker, second)
}

/// Writes `bytes` so that their first `before` lie at the end of the first region; returns them as a buffer.
fn straddle(attacker: &Attacker, second: &GuestRam, bytes: &[u8], before: usize) -> Desc {
    let end = attacker.ram.bytes();
    attacker.ram.span(end - before, before).write(0, &bytes[..before]);
    second.span(0, bytes.len() - before).write(0, &bytes[before..]);
    Desc { addr: GPA + (end - before) as u64, len: bytes.len() as u32, flags: 0, next: 0 }
}

/// Payload over the border, by one byte and by many, both ways: accepted in two pieces.
#[test]
fn v21_m05_payload_over_the_border() {
    both(|scene, plan| {
        let (mut attacker, second) = two_regions(scene, plan, Place::Adjacent);
        for (n, before) in [1011, 1, 500, 1012 - 12, 13].into_iter().enumerate() {
            let frame = frames::plain(1000, n as u32);
            let buffer = straddle(&attacker, &second, &attacker.packet(Default::default(), &frame), before);
            attacker.tx.post(&[buffer]);
            scene.expect_at_y(&[frame]);
            attacker.tx.expect_used(n as u16 + 1);
        }
        // To be written over the border.
        let buffer = straddle(&attacker, &second, &[0; 200], 50);
        attacker.rx.post(&[Desc { flags: Side::Rx.flag(), ..buffer }]);
        let sent = scene.y_sends_plain(1, 150);
        assert_eq!(attacker.rx.expect_used(1), [(0, 162)]);
        let mut bytes = [0; 162];
        attacker.ram.span(attacker.ram.bytes() - 50, 50).read(0, &mut bytes[..50]);
        second.span(0, 112).read(0, &mut bytes[50..]);
        assert_eq!(bytes[12..], sent[0]);
    });
}

/// The same where the second region starts a page later: nothing is behind the border.
#[test]
fn v21_payload_into_a_gap() {
    for side in [Side::Tx, Side::Rx] {
        both(|scene, plan| {
            let (mut attacker, second) = two_regions(scene, plan, Place::Apart);
            let bytes = attacker.packet(Default::default(), &frames::plain(100, 21));
            let buffer = straddle(&attacker, &second, &bytes, bytes.len() - 1);
            let head = attacker.side(side).lay(&[Desc { flags: side.flag(), ..buffer }]);
            attacker.picture();
            attacker.side(side).offer(head);
            scene.y_sends_plain(1, 100);
            scene.expect_ring(side.name(), "buffer_outside_memory");
            attacker.side(side).expect_used(0);
            attacker.judge();
            scene.expect_nothing_at_y();
        });
    }
}

/// A table over the border. It could be read in two pieces; policy: refused, as no driver makes one.
#[test]
fn v22_indirect_table_over_the_border() {
    both(|scene, plan| {
        let (mut attacker, second) = two_regions(scene, plan, Place::Adjacent);
        let whole = attacker.frame(&frames::plain(100, 22));
        // Neither format's entry has anything in its second word but the length.
        let words: Vec<u8> = [whole.addr.to_le_bytes(), whole.rest_word().to_le_bytes()].concat();
        let table = straddle(&attacker, &second, &words, 8);
        attacker.tx.post(&[Desc { flags: DESC_F_INDIRECT, ..table }]);
        scene.expect_ring("tx0", "buffer_outside_memory");
        attacker.tx.expect_used(0);
        scene.expect_nothing_at_y();
    });
}

/// A ring over the border is refused by name, each of its parts; the ring stays stopped.
#[test]
fn v23_ring_over_the_border() {
    both(|scene, plan| {
        let plan = Plan { size: odd_size(plan, 255), ..plan };
        let (mut attacker, _second) = two_regions(scene, plan, Place::Adjacent);
        let region = attacker.ram.region();
        let good = attacker.tx.addr(1);
        for lie in beyond(plan, good, region.va + region.size) {
            let refused = attacker.front.set_vring_addr(lie);
            let request = Request::SetVringAddr;
            let named = matches!(refused, Err(FrontEndError::Refused { request: r, .. }) if r == request);
            assert!(named, "{refused:?}");
            assert_eq!(scene.x_ring("tx0"), "stopped");
        }
        attacker.front.set_vring_addr(good).expect("a sound one");
        scene.expect_ring("tx0", "running");
        let frame = frames::plain(77, 23);
        attacker.send(&frame);
        scene.expect_at_y(&[frame]);
    });
}

/// Packed rings may have any size.
fn odd_size(plan: Plan, odd: u16) -> u16 {
    if plan.is_packed() { odd } else { plan.size }
}

/// Each part over the border, or begun inside and ended behind all.
fn beyond(plan: Plan, good: VringAddr, border: u64) -> Vec<VringAddr> {
    let end = border + SECOND as u64;
    let parts = if plan.is_packed() {
        // Its two structures are as long as they are aligned: they lie over no border, but may lie behind all, or askew.
        vec![
            (border - 16, good.avail, good.used),
            (good.desc, end, good.used),
            (good.desc, good.avail, end),
            (good.desc, good.avail + 2, good.used),
            (end - 254 * 16, good.avail, good.used),
        ]
    } else {
        vec![
            (border - 16, good.avail, good.used),
            (good.desc, border - 2, good.used),
            (good.desc, good.avail, border - 4),
            (end - 16, good.avail, good.used),
        ]
    };
    parts.into_iter().map(|(desc, avail, used)| VringAddr { desc, avail, used, ..good }).collect()
}

/// The border goes through the header.
#[test]
fn v24_header_over_the_border() {
    both(|scene, plan| {
        let (mut attacker, second) = two_regions(scene, plan, Place::Adjacent);
        for before in 1..12 {
            let frame = frames::plain(300, before as u32);
            let buffer = straddle(&attacker, &second, &attacker.packet(Default::default(), &frame), before);
            attacker.tx.post(&[buffer]);
            scene.expect_at_y(&[frame]);
            attacker.tx.expect_used(before as u16);
        }
    });
}

/// Legal, if odd: each part of the rings in a region of its own, guest addresses in another order than the front end's. Of a
/// packed ring, the two structures in their regions' last words.
#[test]
fn p01_rings_in_regions_of_their_own() {
    both(|scene, plan| {
        let plan = Plan { size: odd_size(plan, 13), ..plan };
        let mut attacker = Attacker::negotiate(scene, plan);
        let first = attacker.ram.region();
        let more: Vec<_> = (1..=3u64)
            .map(|n| RamConfig { bytes: 8192, gpa_base: GPA + 0x1000_0000 * (4 - n), ..RamConfig::default() })
            .map(|config| GuestRam::new(config).expect("RAM"))
            .collect();
        let rows = more.iter().zip(1u64..).map(|(ram, n)| {
            let va = first.va + first.size + n * 0x10_0000;
            (MemoryRegion { va, ..ram.region() }, ram.as_fd())
        });
        let table: Vec<_> = std::iter::once((first, attacker.ram.as_fd())).chain(rows).collect();
        attacker.front.set_mem_table(&table).expect("legal");
        let mut addr = attacker.tx.addr(1);
        let [desc, avail, used] = attacker.tx.scatter(&more);
        (addr.desc, addr.avail, addr.used) =
            (table[1].0.va + desc, table[2].0.va + avail, table[3].0.va + used);
        let base = attacker.tx.vring_base();
        attacker.front.set_vring_num(1, plan.size.into()).expect("NUM");
        attacker.front.set_vring_base(1, base).expect("BASE");
        attacker.front.set_vring_addr(addr).expect("ADDR");
        attacker.front.set_vring_kick(1, Some(attacker.tx.kick.as_fd())).expect("KICK");
        attacker.front.set_vring_enable(1, true).expect("ENABLE");
        for tag in 0..300 {
            let frame = frames::plain(60, tag);
            attacker.send(&frame);
            scene.expect_at_y(&[frame]);
        }
        attacker.tx.expect_used(300);
    });
}

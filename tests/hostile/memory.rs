//! Memory tables: V48, M1, M5, M8, M18.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use vhost::driver::{FrontEnd, FrontEndError, GuestRam, RamConfig};
use vhost::wire::message::MemoryRegion;

use crate::attacker::{self, Attacker, FEATURES, GPA, Plan, Side};
use crate::frames;
use crate::scene::{PATIENCE, X, case, eventually, race_time};

fn is_refused(outcome: &Result<(), FrontEndError>) -> bool {
    matches!(outcome, Err(FrontEndError::Refused { .. }))
}

/// A descriptor that is open for reading alone: the table is refused by name, and the session goes on.
#[test]
fn v48_memory_open_for_reading_only() {
    case(|scene| {
        let before = scene.x_count("memory_file_read_only");
        let mut front = FrontEnd::connect(scene.socket(X), PATIENCE).expect("connects");
        attacker::negotiate(&mut front, FEATURES);
        let ram = GuestRam::new(RamConfig { bytes: 1 << 20, ..RamConfig::default() }).expect("RAM");
        let path = format!("/proc/self/fd/{}", ram.as_fd().as_raw_fd());
        let read_only = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("reopened");
        assert!(is_refused(&front.set_mem_table(&[(ram.region(), read_only.as_fd())])));
        assert_eq!(scene.x_count("memory_file_read_only"), before + 1);
        front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("writable, it is fine");
    });
}

/// Rings without any memory, and with memory elsewhere: none starts.
#[test]
fn m01_no_memory_and_rings_outside() {
    case(|scene| {
        let mut attacker = Attacker::negotiate(scene, Plan::default());
        attacker.front.set_mem_table(&[]).expect("no regions are a table, too");
        attacker.start_ring(Side::Tx);
        assert_eq!(scene.x_ring("tx0"), "stopped");
        let row = MemoryRegion { va: attacker.ram.region().va + (1 << 30), ..attacker.ram.region() };
        attacker.front.set_mem_table(&[(row, attacker.ram.as_fd())]).expect("a table");
        assert_eq!(scene.x_ring("tx0"), "stopped");
        attacker.send(&frames::plain(60, 1));
        scene.expect_nothing_at_y();
        // And then where they are.
        attacker.front.set_mem_table(&[(attacker.ram.region(), attacker.ram.as_fd())]).expect("a table");
        scene.expect_at_y(&[frames::plain(60, 1)]);
    });
}

/// The table is exchanged a hundred times a second and more while both rings are busy; the rings go on where they stood,
/// and not a frame is lost or comes twice.
#[test]
fn m08_table_exchanged_under_live_rings() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let second = GuestRam::new(RamConfig { bytes: 65_536, gpa_base: 1 << 40, ..RamConfig::default() })
            .expect("RAM");
        let (region, row) = (attacker.ram.region(), second.region());
        let spans: Vec<_> = (0..64).map(|_| attacker.ram.alloc(128, 64).expect("room")).collect();
        let end = Instant::now() + race_time();
        let (mut sent, mut tables) = (0u32, 0u32);
        while Instant::now() < end {
            // As much as may be on its way: the next 64 frames have 64 buffers of their own.
            for span in &spans {
                span.write(0, &attacker.packet(Default::default(), &frames::plain(116, sent)));
                attacker.tx.post(&[attacker::read(span)]);
                sent += 1;
                if sent.is_multiple_of(16) {
                    let both = [(region, attacker.ram.as_fd()), (row, second.as_fd())];
                    let count = 1 + tables as usize % 2;
                    attacker.front.set_mem_table(&both[..count]).expect("a sound table");
                    tables += 1;
                }
            }
            let first = sent - 64;
            let wanted: Vec<_> = (first..sent).map(|tag| frames::plain(116, tag)).collect();
            scene.expect_at_y(&wanted);
            eventually("used", || attacker.tx.used() == sent as u16);
        }
        assert!(tables >= 20, "{tables} tables");
        scene.expect_nothing_at_y();
    });
}

/// The table moves all memory elsewhere under live rings: guest addresses first, front end's addresses then.
#[test]
fn m08_d04_memory_moves_under_live_rings() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let region = attacker.ram.region();
        let frame = frames::plain(200, 8);
        attacker.send(&frame);
        scene.expect_at_y(std::slice::from_ref(&frame));
        let moved = MemoryRegion { gpa: GPA + (1 << 32), ..region };
        attacker.front.set_mem_table(&[(moved, attacker.ram.as_fd())]).expect("a table");
        // The old address is no more.
        attacker.send(&frame);
        scene.expect_ring("tx0", "buffer_outside_memory");
        let elsewhere = MemoryRegion { va: region.va + (1 << 40), ..region };
        attacker.front.set_mem_table(&[(elsewhere, attacker.ram.as_fd())]).expect("a table");
        assert_eq!(scene.x_ring("tx0"), "stopped", "its ring is at the old address");
        attacker.front.set_mem_table(&[(region, attacker.ram.as_fd())]).expect("a table");
        scene.expect_at_y(&[frame]);
        scene.expect_ring("tx0", "running");
    });
}

/// Memory is plugged in and out while frames go both ways: nothing is lost, and frames in the new memory arrive.
#[test]
fn m18_memory_comes_and_goes() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        let mut sent = 0;
        for round in 0..20u64 {
            let gpa_base = (1 << 40) + round * (1 << 20);
            let more =
                GuestRam::new(RamConfig { bytes: 65_536, gpa_base, ..RamConfig::default() }).expect("RAM");
            attacker.front.add_mem_reg(more.region(), more.as_fd()).expect("one region more");
            let frame = frames::plain(1000, round as u32);
            let span = more.alloc(1012, 64).expect("room");
            span.write(0, &attacker.packet(Default::default(), &frame));
            let old = attacker.frame(&frame);
            attacker.tx.post(&[old]);
            attacker.tx.post(&[attacker::read(&span)]);
            sent += 2;
            scene.expect_at_y(&[frame.clone(), frame]);
            attacker.tx.expect_used(sent);
            attacker.front.rem_mem_reg(more.region()).expect("one region less");
        }
        assert_eq!(scene.x_ring("tx0"), "running");
    });
}

/// Removing the region under a running ring stops the ring; the rest goes on.
#[test]
fn m16_the_region_under_a_ring_goes() {
    case(|scene| {
        let mut attacker = Attacker::usual(scene);
        attacker.front.rem_mem_reg(attacker.ram.region()).expect("it goes");
        for ring in ["rx0", "tx0"] {
            assert_eq!(scene.x_ring(ring), "stopped");
        }
        attacker.send(&frames::plain(60, 16));
        scene.y_sends_plain(5, 60);
        scene.expect_nothing_at_y();
        attacker.front.add_mem_reg(attacker.ram.region(), attacker.ram.as_fd()).expect("it comes back");
        scene.expect_at_y(&[frames::plain(60, 16)]);
        eventually("used", || attacker.tx.used() == 1);
    });
}

//! Memory that makes whoever touches it wait: A8.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pmd::Port;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use vhost::VhostUserSpec;
use vhost::driver::{FrontEnd, GuestRam, RamConfig, SplitRing};
use vhost::wire::message::MemoryRegion;
use vhost::wire::ring::{DESC_F_NEXT, DESC_F_WRITE, Desc};

use crate::attacker::{self, FEATURES, GPA};
use crate::scene::{PATIENCE, Scene, X, attach, case, eventually, mac};

/// What is punched out: some ten milliseconds of the kernel's work.
const HOLE: u64 = 512 << 20;
/// How long an attacker may go on before its session has ended.
const LIMIT: Duration = Duration::from_secs(120);

/// A file with all its pages there, at most so many bytes; it takes as much memory.
fn full() -> OwnedFd {
    let fd =
        memfd_create("polder-driver-hole", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    ftruncate(&fd, HOLE).expect("a size");
    fd
}

/// Fills and empties the file until told to stop.
fn punch(fd: &OwnedFd, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        fallocate(fd, FallocateFlags::empty(), 0, HOLE).expect("memory for the test");
        fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, HOLE).expect("a hole");
    }
}

/// Offers frames, or room for frames, in the file's pages, from the last one down, until the session is over. `start`: headers
/// of the frames.
fn offer(
    front: &FrontEnd,
    ring: &SplitRing,
    start: Desc,
    holes: MemoryRegion,
    flags: u16,
    mut each: impl FnMut(),
) {
    let (end, mut next) = (Instant::now() + LIMIT, 0u16);
    while !front.is_closed_within(Duration::ZERO) && Instant::now() < end {
        if next.wrapping_sub(ring.used_idx()) < 64 {
            let page = holes.size / 4096 - 1 - u64::from(next) % 4096;
            let first = 2 * (next % 128);
            ring.set_desc(first, Desc { next: first + 1, ..start });
            ring.set_desc(first + 1, Desc { addr: holes.gpa + page * 4096, len: 1600, flags, next: 0 });
            ring.set_avail_entry(next, first);
            next = next.wrapping_add(1);
            ring.set_avail_idx(next);
        }
        each();
    }
}

/// Plays an attacker at a port of its own whose memory is punched all the time. Its session ends by name, and its port stays
/// closed until what it took is a hundredth of the time.
fn play(scene: &mut Scene, ring_index: u32, flags: u16) {
    let spec = VhostUserSpec::new(scene.another_socket("slow.sock"));
    let (id, port) = attach(&mut scene.switch, scene.pool, "slow", &spec);
    scene.switch.fdb().add_static(vswitch::Mac(mac(77)), 0, id).expect("a static entry");
    let mut front = FrontEnd::connect(&spec.path, PATIENCE).expect("connects");
    attacker::negotiate(&mut front, FEATURES);
    let ram =
        GuestRam::new(RamConfig { bytes: 1 << 20, gpa_base: GPA, ..RamConfig::default() }).expect("RAM");
    let file = Arc::new(full());
    let holes = MemoryRegion { gpa: 1 << 40, va: 1 << 45, size: HOLE, mmap_offset: 0 };
    front.set_mem_table(&[(ram.region(), ram.as_fd()), (holes, file.as_fd())]).expect("a table");
    let ring = SplitRing::alloc(&ram, 256).expect("room");
    front.set_vring_num(ring_index, 256).expect("NUM");
    front.set_vring_addr(ring.addr(ring_index)).expect("ADDR");
    front.set_vring_kick(ring_index, None).expect("KICK");
    front.set_vring_enable(ring_index, true).expect("ENABLE");
    let stop = Arc::new(AtomicBool::new(false));
    let puncher = {
        let (file, stop) = (Arc::clone(&file), Arc::clone(&stop));
        std::thread::spawn(move || punch(&file, &stop))
    };
    let count = |name: &str| {
        port.details().iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| n.parse().unwrap_or(0))
    };
    let frame = [&mac(77)[..], &mac(crate::scene::Y), &[0x88, 0xb6], &[7; 1200]].concat();
    // To a port that drops them: flooded, they would be a load on the victims, which is another case's.
    let head = ram.alloc(64, 64).expect("room");
    head.write(12, &[&mac(77)[..], &mac(78), &[0x88, 0xb6]].concat());
    let start = Desc { addr: head.gpa(), len: 26, flags: flags | DESC_F_NEXT, next: 0 };
    offer(&front, &ring, start, holes, flags, || {
        if flags != 0 {
            scene.y_sends(std::slice::from_ref(&frame));
        }
    });
    stop.store(true, Ordering::Relaxed);
    puncher.join().expect("the puncher");
    assert!(front.is_closed_within(Duration::ZERO), "the session of the slow memory ends");
    eventually("it has a name", || count("slow_memory") > 0u64);
    // The port is closed until the time is paid for: mostly for seconds, and at least for as long as the last burst was too much.
    let again = FrontEnd::connect(&spec.path, PATIENCE).expect("the socket is there");
    if again.is_closed_within(Duration::from_millis(500)) {
        eventually("that has a name, too", || count("slow_memory_wait") > 0u64);
    }
    drop(again);
    let before = scene.victims_received();
    eventually("the victims go on", || scene.victims_received() > before + 500);
    scene.discard_at_y();
    scene.switch.remove_port(id).expect("removed");
    drop(port);
}

/// Holes are punched in what the guest sends from.
#[test]
fn a08_holes_punched_under_what_the_guest_sends() {
    case(|scene| play(scene, 1, 0));
}

/// And in what it receives into, where an honest sender's packets go: its session goes on.
#[test]
fn a08_holes_punched_under_what_the_guest_receives() {
    case(|scene| play(scene, 0, DESC_F_WRITE));
}

/// A ballooning guest: a hole now and then, small ones, under its buffers. Nobody minds.
#[test]
fn a08_a_balloon_is_no_attack() {
    case(|scene| {
        let before = scene.x_count("slow_memory");
        let mut attacker = attacker::Attacker::usual(scene);
        let page = attacker.ram.alloc(4096, 4096).expect("room");
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        for n in 0..200u16 {
            fallocate(attacker.ram.as_fd(), punch, page.gpa() - GPA, 4096).expect("a hole");
            page.write(12, &crate::frames::plain(600, n.into()));
            attacker.tx.post(&[attacker::part(attacker::read(&page), 0, 612)]);
            scene.expect_at_y(&[crate::frames::plain(600, n.into())]);
        }
        assert_eq!(scene.x_count("slow_memory"), before);
        assert_eq!(scene.x_ring("tx0"), "running");
        assert!(scene.socket(X).exists());
    });
}

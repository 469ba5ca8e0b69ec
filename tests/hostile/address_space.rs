//! What a front end can take of the process's address space and of its tables: A3, A4, A9, M21, V49.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::driver::{FrontEnd, FrontEndError, GuestRam, PackedRing, RamConfig, SplitRing};
use vhost::wire::message::MemoryRegion;
use vhost::wire::net::{F_MQ, F_RING_PACKED};
use vhost::wire::ring::{Desc, MAX_SIZE};
use vhost::{VhostUserPort, VhostUserSpec};
use vswitch::PortId;

use crate::attacker::{self, FEATURES, GPA};
use crate::frames;
use crate::scene::{PATIENCE, Scene, X, attach, case, eventually};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A file of so many bytes without a page in it.
fn sparse(bytes: u64) -> OwnedFd {
    let fd = memfd_create("polder-driver-sparse", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .expect("a memfd");
    ftruncate(&fd, bytes).expect("a size");
    fd
}

/// The `n`-th region of a front end's, each of them far from the others.
fn region(n: u64, size: u64, mmap_offset: u64) -> MemoryRegion {
    let at = GPA + (n << 46);
    MemoryRegion { gpa: at, size, va: at, mmap_offset }
}

/// A port of its own for a case, and a front end at it.
struct Guest {
    id: PortId,
    port: VhostUserPort,
    front: FrontEnd,
}

impl Guest {
    fn start(scene: &mut Scene, name: &str, options: &str) -> Self {
        Self::start_with(scene, name, options, FEATURES)
    }

    fn start_with(scene: &mut Scene, name: &str, options: &str, features: u64) -> Self {
        let path = scene.another_socket(&format!("{name}.sock"));
        let spec: VhostUserSpec = format!("{}{options}", path.display()).parse().expect("a specification");
        let (id, port) = attach(&mut scene.switch, scene.pool, name, &spec);
        let mut front = FrontEnd::connect(&spec.path, PATIENCE).expect("connects");
        attacker::negotiate(&mut front, features);
        Self { id, port, front }
    }

    fn count(&self, name: &str) -> u64 {
        use pmd::Port;
        let line = self.port.details().into_iter().find(|(n, _)| *n == name);
        line.map_or(0, |(_, n)| n.parse().expect("a number"))
    }

    fn end(self, scene: &mut Scene) {
        let Self { id, port, front } = self;
        drop(front);
        scene.switch.remove_port(id).expect("removed");
        drop(port);
    }
}

fn is_refused(outcome: &Result<(), FrontEndError>) -> bool {
    matches!(outcome, Err(FrontEndError::Refused { .. }))
}

/// Adds sparse regions, halving their size at each refusal down to 1 GiB; returns how many bytes that made.
fn map_until_refused(front: &mut FrontEnd) -> u64 {
    let (mut size, mut mapped, mut n) = (32 * TIB, 0, 1);
    while size >= GIB && n < 500 {
        match front.add_mem_reg(region(n, size, 0), sparse(size).as_fd()) {
            Ok(()) => (mapped, n) = (mapped + size, n + 1),
            Err(FrontEndError::Refused { .. }) => size /= 2,
            Err(e) => panic!("the session ended: {e}"),
        }
    }
    mapped
}

/// One front end maps until it is refused. It meets its own limit, by name; neighbours' tables, new ports, new threads and
/// statistics are served as before.
#[test]
fn a03_one_front_end_maps_until_refused() {
    case(|scene| {
        let mut front = FrontEnd::connect(scene.socket(X), PATIENCE).expect("connects");
        attacker::negotiate(&mut front, FEATURES);
        let before = scene.x_count("memory_limit");
        let mapped = map_until_refused(&mut front);
        let mut neighbour = Guest::start(scene, "new", "");
        let table = neighbour.front.set_mem_table(&[(region(1, 64 * GIB, 0), sparse(64 * GIB).as_fd())]);
        neighbour.end(scene);
        assert!(
            table.is_ok(),
            "the neighbour's table beside {} GiB of the attacker's: {table:?}",
            mapped / GIB
        );
        assert!(mapped <= TIB, "{} GiB", mapped / GIB);
        assert!(scene.x_count("memory_limit") > before, "refused by name");
        let thread = std::thread::Builder::new().stack_size(1 << 30).spawn(|| 3).expect("a new thread");
        assert_eq!(thread.join().expect("it ran"), 3);
        assert!(scene.switch.stats().ports.len() >= 4);
    });
}

/// A table that takes the place of another is counted with it while both are mapped; and the limit is the port's, not each
/// table's: nothing adds up over many of them.
#[test]
fn a03_tables_in_place_of_tables() {
    case(|scene| {
        let mut guest = Guest::start(scene, "limited", ",memory=1G");
        for round in 0..50 {
            let size = if round % 2 == 0 { GIB } else { GIB / 2 };
            guest
                .front
                .set_mem_table(&[(region(1, size, 0), sparse(size).as_fd())])
                .expect("within the limit");
        }
        // Half a gibibyte is mapped.
        let more = region(2, GIB / 2 + 4096, 0);
        assert!(is_refused(&guest.front.add_mem_reg(more, sparse(more.size).as_fd())));
        let two = [region(1, GIB / 2, 0), region(2, GIB / 2 + 4096, 0)];
        let files = two.map(|region| sparse(region.size));
        assert!(is_refused(
            &guest.front.set_mem_table(&[(two[0], files[0].as_fd()), (two[1], files[1].as_fd())])
        ));
        assert_eq!(guest.count("memory_limit"), 2);
        guest.front.add_mem_reg(region(2, GIB / 2, 0), sparse(GIB / 2).as_fd()).expect("it just fits");
        guest.end(scene);
    });
}

/// Nine ports with 509 regions each, the most that one may have; the tenth is served like them.
#[test]
fn a04_nine_ports_full_of_regions_and_a_tenth() {
    case(|scene| {
        let mut guests = Vec::new();
        for n in 0..10 {
            let mut guest = Guest::start(scene, &format!("regions{n}"), "");
            assert_eq!(guest.front.max_mem_slots().expect("a number"), 509);
            let file = sparse(509 * 4096);
            for i in 0..509 {
                let added = guest.front.add_mem_reg(region(i, 4096, i * 4096), file.as_fd());
                assert!(added.is_ok(), "region {i} of port {n}: {added:?}");
            }
            guests.push(guest);
        }
        // A SIGBUS still finds its region among so many: `vanish` has the cases; here is one more port that is alive.
        assert!(guests.iter().all(|guest| guest.count("memory_not_mapped") == 0));
        guests.into_iter().for_each(|guest| guest.end(scene));
    });
}

/// Bytes of this process that are resident, and of its page tables.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    };
    (kib("VmRSS:") + kib("VmPTE:")) << 10
}

/// Memory that its owner never touches: whoever reads a hole first pays for its page, and that is us. What that comes to is
/// bounded by the port's limit, since no more can be mapped.
#[test]
fn a09_sparse_memory_never_touched_by_its_owner() {
    const LIMIT: u64 = 64 << 20;
    case(|scene| {
        let mut guest = Guest::start(scene, "sparse", ",memory=64M");
        assert!(is_refused(&guest.front.add_mem_reg(region(1, TIB, 0), sparse(TIB).as_fd())));
        let ram =
            GuestRam::new(RamConfig { bytes: 1 << 20, gpa_base: GPA, ..RamConfig::default() }).expect("RAM");
        let holes = region(1, LIMIT - (1 << 20), 0);
        let file = sparse(holes.size);
        let before = resident();
        guest
            .front
            .set_mem_table(&[(ram.region(), ram.as_fd()), (holes, file.as_fd())])
            .expect("within the limit");
        let ring = SplitRing::alloc(&ram, 256).expect("room");
        guest.front.set_vring_num(1, 256).expect("NUM");
        guest.front.set_vring_addr(ring.addr(1)).expect("ADDR");
        guest.front.set_vring_kick(1, None).expect("KICK");
        guest.front.set_vring_enable(1, true).expect("ENABLE");
        let pages = holes.size / 4096;
        for page in 0..pages {
            // All zeroes: a frame from nobody to nobody.
            let desc = Desc { addr: holes.gpa + page * 4096, len: 76, flags: 0, next: 0 };
            ring.set_desc((page % 256) as u16, desc);
            ring.set_avail_entry(page as u16, (page % 256) as u16);
            if page % 128 == 127 || page + 1 == pages {
                ring.set_avail_idx(page as u16 + 1);
                eventually("taken", || ring.used_idx() == page as u16 + 1);
            }
        }
        let grown = resident().saturating_sub(before);
        assert!(grown > LIMIT / 2, "the pages were touched: {grown}");
        assert!(grown < LIMIT + (16 << 20), "{} MiB", grown >> 20);
        guest.end(scene);
    });
}

/// M21: what is sparse stays sparse. A guest of a terabyte of which one page is used costs a page.
#[test]
fn m21_a_terabyte_costs_what_is_used_of_it() {
    case(|scene| {
        let mut guest = Guest::start(scene, "large", ",memory=1T");
        let before = resident();
        guest.front.set_mem_table(&[(region(1, TIB, 0), sparse(TIB).as_fd())]).expect("within the limit");
        assert!(resident().saturating_sub(before) < 32 << 20);
        let beyond = region(2, 1 << 50, 0);
        assert!(is_refused(
            &guest
                .front
                .add_mem_reg(MemoryRegion { gpa: 1 << 52, va: 1 << 52, ..beyond }, sparse(1 << 50).as_fd())
        ));
        assert_eq!(guest.count("memory_limit"), 1);
        // The victims never noticed; a frame still finds its way.
        guest.end(scene);
        let mut attacker = attacker::Attacker::usual(scene);
        attacker.send(&frames::plain(60, 21));
        scene.expect_at_y(&[frames::plain(60, 21)]);
    });
}

/// V49 on packed rings, which need memory of ours for each descriptor: 128 pairs, all rings as large as can be. What they
/// take is what `queues=` says, and comes back.
#[test]
fn v49_packed_rings_as_large_as_can_be() {
    case(|scene| {
        let mut guest = Guest::start_with(scene, "wide", ",queues=128", FEATURES | F_MQ | F_RING_PACKED);
        let ram =
            GuestRam::new(RamConfig { bytes: 4 << 20, gpa_base: GPA, ..RamConfig::default() }).expect("RAM");
        guest.front.set_mem_table(&[(ram.region(), ram.as_fd())]).expect("a table");
        let ring = PackedRing::alloc(&ram, MAX_SIZE).expect("room");
        let before = resident();
        for index in 0..256 {
            guest.front.set_vring_num(index, MAX_SIZE.into()).expect("NUM");
            guest.front.set_vring_addr(ring.addr(index)).expect("ADDR");
            guest.front.set_vring_kick(index, None).expect("KICK");
            guest.front.set_vring_enable(index, true).expect("ENABLE");
        }
        // 8 bytes a descriptor, and a bit.
        let most = 256 * (u64::from(MAX_SIZE) * 8 + u64::from(MAX_SIZE) / 8);
        let grown = resident().saturating_sub(before);
        assert!(grown < most + (16 << 20), "{} MiB, not {}", grown >> 20, most >> 20);
        assert_eq!(guest.count("no_memory"), 0);
        guest.end(scene);
    });
}

//! Tables that are refused, and addresses that are translated or not.

use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open};

use super::*;

const MIB: u64 = 1 << 20;

fn memfd(size: u64) -> OwnedFd {
    let fd = memfd_create("table-test", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&fd, size).expect("ftruncate");
    fd
}

fn request(gpa: u64, size: u64, va: u64, mmap_offset: u64) -> RegionRequest {
    let fd = memfd(8 * MIB);
    RegionRequest { gpa: Gpa(gpa), size, va: FrontendVa(va), mmap_offset, fd }
}

impl GuestMemory {
    /// Of a port that has what most have.
    pub(crate) fn map(requests: &[RegionRequest]) -> Result<Self, MemoryError> {
        Self::default().replaced_by(requests)
    }
}

fn limited_to(limit: u64) -> GuestMemory {
    GuestMemory::empty(Arc::new(Allowance::new(Some(limit)).expect("within the budget")))
}

fn refused(requests: &[RegionRequest]) -> &'static str {
    GuestMemory::map(requests).expect_err("to be refused").name()
}

#[test]
fn m01_no_region_at_all() {
    let memory = GuestMemory::map(&[]).expect("an empty table is one");
    assert!(memory.region_at(Gpa(0)).is_none());
    assert!(memory.translate_va(FrontendVa(0), 1).is_none());
    assert!(!memory.is_gone());
}

#[test]
fn m03_guest_addresses_overlap() {
    for (gpa, size) in [(MIB, MIB), (MIB + 4096, MIB), (MIB - 4096, 2 * MIB), (MIB + 4096, 4096)] {
        let table = [request(MIB, MIB, 0x7000_0000, 0), request(gpa, size, 0x9000_0000, 0)];
        assert_eq!(refused(&table), "memory_regions_overlap", "{gpa:#x} {size:#x}");
    }
    let touching = [request(MIB, MIB, 0x7000_0000, 0), request(2 * MIB, MIB, 0x9000_0000, 0)];
    assert!(GuestMemory::map(&touching).is_ok());
}

#[test]
fn m04_front_end_addresses_overlap() {
    for va in [0x7000_0000, 0x7000_1000, 0x6fff_f000] {
        let table = [request(0, MIB, 0x7000_0000, 0), request(4 * MIB, MIB, va, 0)];
        assert_eq!(refused(&table), "memory_regions_overlap", "{va:#x}");
    }
}

#[test]
fn m06_numbers_that_wrap_or_do_not_fit() {
    let page = 4096;
    let top = u64::MAX - page + 1;
    assert_eq!(refused(&[request(0, 0, 0, 0)]), "memory_region_empty");
    assert_eq!(refused(&[request(top, page, 0, 0)]), "memory_region_wraps");
    assert_eq!(refused(&[request(0, page, top, 0)]), "memory_region_wraps");
    assert_eq!(refused(&[request(0, page, 0, top)]), "memory_region_wraps");
    assert_eq!(refused(&[request(0, top, 0, page)]), "memory_region_wraps");
    assert_eq!(refused(&[request(0, 1 << 62, 0, 1 << 62)]), "memory_not_mapped", "an end beyond 2^63");
    for (gpa, size, va, offset) in [(1, page, 0, 0), (0, page + 1, 0, 0), (0, page, 8, 0), (0, page, 0, 512)]
    {
        assert_eq!(refused(&[request(gpa, size, va, offset)]), "memory_region_unaligned");
    }
}

#[test]
fn m09_a_file_that_is_too_short() {
    assert_eq!(refused(&[request(0, 8 * MIB, 0, 4096)]), "memory_file_too_short");
    assert!(GuestMemory::map(&[request(0, 8 * MIB - 4096, 0, 4096)]).is_ok());
}

#[test]
fn m14_files_of_the_wrong_kind() {
    let (pipe, _writer) = rustix::pipe::pipe().expect("pipe");
    let proc =
        open("/proc/self/comm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("/proc/self/comm");
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).expect("/dev/null");
    for (fd, name) in
        [(pipe, "memory_file_read_only"), (proc, "memory_file_type"), (null, "memory_file_type")]
    {
        let table = [RegionRequest { fd, ..request(0, 4096, 0, 0) }];
        assert_eq!(refused(&table), name);
    }
}

#[test]
fn m16_one_region_more_one_less() {
    let memory = GuestMemory::map(&[request(0, MIB, 0x7000_0000, 0)]).expect("good");
    let same = memory.with(&request(0, MIB, 0x7000_0000, 0)).expect_err("there already");
    assert_eq!(same.name(), "memory_regions_overlap");
    let more = memory.with(&request(MIB, MIB, 0x8000_0000, 0)).expect("good");
    let kept = memory.region_at(Gpa(0)).expect("mapped").host;
    assert_eq!(more.region_at(Gpa(0)).expect("mapped").host, kept, "an unchanged region keeps its mapping");
    for (gpa, va, size) in [(0, 0x7000_0000, 4096), (0, 0x7000_1000, MIB), (4096, 0x7000_0000, MIB)] {
        let absent = more.without(Gpa(gpa), FrontendVa(va), size).expect_err("no such region");
        assert_eq!(absent.name(), "memory_region_unknown");
    }
    let less = more.without(Gpa(0), FrontendVa(0x7000_0000), MIB).expect("there");
    assert!(less.region_at(Gpa(0)).is_none());
    assert!(less.region_at(Gpa(MIB)).is_some());
}

#[test]
fn m16_the_same_region_again_is_a_claim_more() {
    let fd = memfd(MIB);
    let again = || RegionRequest { fd: fd.try_clone().expect("dup"), ..request(0, MIB, 0x7000_0000, 0) };
    let memory = GuestMemory::map(&[again()]).expect("good");
    let twice = memory.with(&again()).expect("the very same region");
    let host = |m: &GuestMemory| m.region_at(Gpa(0)).map(|r| r.host);
    assert_eq!(host(&twice), host(&memory), "mapped once");
    assert_eq!(twice.summary().regions, 1);
    let once = twice.without(Gpa(0), FrontendVa(0x7000_0000), MIB).expect("there");
    assert!(host(&once).is_some(), "one claim is left");
    let none = once.without(Gpa(0), FrontendVa(0x7000_0000), MIB).expect("there");
    assert!(none.is_empty());
}

#[test]
fn m16_no_more_than_the_limit() {
    let fd = memfd(4096);
    let mut memory = GuestMemory::default();
    for i in 0..MAX_REGIONS as u64 {
        let fd = fd.try_clone().expect("dup");
        let next = RegionRequest { fd, ..request(i * 8192, 4096, i * 4096, 0) };
        memory = memory.with(&next).expect("up to the limit");
    }
    let e = memory.with(&request(1 << 40, 4096, 1 << 40, 0)).expect_err("one too many");
    assert_eq!(e.name(), "memory_regions_too_many");
}

#[test]
fn m21_a_sparse_region_costs_nothing() {
    let fd = memfd(1 << 50);
    let pebibyte = RegionRequest { fd, ..request(0, 1 << 50, 0, 0) };
    assert_eq!(refused(&[pebibyte]), "memory_limit", "larger than the port's limit");
    let sixteen_tebibytes = || RegionRequest { fd: memfd(1 << 44), ..request(0, 1 << 44, 0, 0) };
    assert_eq!(refused(&[sixteen_tebibytes()]), "memory_limit");
    let memory =
        limited_to(1 << 44).replaced_by(&[sixteen_tebibytes()]).expect("address space is all it takes");
    assert!(memory.region_at(Gpa((1 << 44) - 1)).is_some());
}

#[test]
fn a03_a_port_maps_no_more_than_its_limit() {
    let memory = limited_to(4 * MIB);
    let two = [request(0, 2 * MIB, 0x7000_0000, 0), request(4 * MIB, 2 * MIB, 0x9000_0000, 0)];
    let full = memory.replaced_by(&two).expect("just as much");
    assert_eq!(
        full.with(&request(8 * MIB, 4096, 0x1000_0000, 0)).expect_err("too much").name(),
        "memory_limit"
    );
    let three = [request(0, 2 * MIB, 0x7000_0000, 0), request(4 * MIB, 2 * MIB + 4096, 0x9000_0000, 0)];
    let e = full.replaced_by(&three).expect_err("too much");
    assert!(e.to_string().contains("4198400 bytes, the port's limit is 4194304: add memory=SIZE"), "{e}");
    // Another table of that size is not too much, though both are mapped for a moment.
    let other = [request(0, 4 * MIB, 0x7000_0000, 0)];
    let other = full.replaced_by(&other).expect("in its place");
    drop(full);
    let less = other.without(Gpa(0), FrontendVa(0x7000_0000), 4 * MIB).expect("there");
    drop(other);
    less.with(&two[0]).expect("what is gone counts no more");
}

#[test]
fn a_region_that_stays_keeps_its_mapping() {
    let fd = memfd(8 * MIB);
    let at = |gpa, offset| {
        let fd = fd.try_clone().expect("dup");
        RegionRequest { fd, ..request(gpa, 2 * MIB, 0x7000_0000 + gpa, offset) }
    };
    let host = |m: &GuestMemory, gpa| m.region_at(Gpa(gpa)).map(|r| r.host);
    let one = limited_to(4 * MIB).replaced_by(&[at(0, 0)]).expect("good");
    let two = one.replaced_by(&[at(2 * MIB, 2 * MIB), at(0, 0)]).expect("good");
    assert_eq!(host(&two, 0), host(&one, 0));
    let moved = two.replaced_by(&[at(16 * MIB, 0)]).expect("good");
    assert_eq!(host(&moved, 16 * MIB), host(&one, 0), "it is elsewhere for the guest alone");
    let other = two.replaced_by(&[at(0, 4 * MIB)]).expect("good");
    assert_ne!(host(&other, 0), host(&one, 0), "another part of the file");
    let same = request(0, 2 * MIB, 0x7000_0000, 0);
    assert_ne!(host(&two.replaced_by(&[same]).expect("good"), 0), host(&one, 0), "another file");
}

#[test]
fn every_byte_must_be_inside() {
    let memory = GuestMemory::map(&[
        request(MIB, MIB, 0x7000_0000, 0),
        request(2 * MIB, MIB, 0x5000_0000, MIB),
        request(8 * MIB, MIB, 0x9000_0000, 0),
    ])
    .expect("good");
    let inside = |gpa| memory.region_at(Gpa(gpa)).is_some_and(|r| gpa >= r.gpa && gpa - r.gpa < r.len);
    assert!(inside(MIB) && inside(2 * MIB - 1) && inside(2 * MIB) && inside(3 * MIB - 1) && inside(8 * MIB));
    assert!(!inside(0) && !inside(MIB - 1) && !inside(3 * MIB) && !inside(9 * MIB) && !inside(u64::MAX));
    let va = |va, len| memory.translate_va(FrontendVa(va), len).is_some();
    assert!(va(0x7000_0000, MIB) && va(0x5000_0000, 1) && va(0x7000_0000 + MIB - 1, 1));
    assert!(!va(0x7000_0001, MIB) && !va(0x6fff_ffff, 1) && !va(0x7000_0000 + MIB, 0));
    assert!(!va(0x7000_0000, u64::MAX) && !va(u64::MAX, 1) && !va(u64::MAX, u64::MAX));
}

#[test]
fn a_view_covers_its_region() {
    let memory = GuestMemory::map(&[request(MIB, MIB, 0x7000_0000, 4096)]).expect("good");
    let view = memory.region_at(Gpa(MIB + 5)).expect("inside");
    assert_eq!((view.gpa, view.len), (MIB, MIB));
    assert_eq!(Some(view.host), memory.translate_va(FrontendVa(0x7000_0000), 1).map(|w| w.start));
    assert!(memory.region_at(Gpa(0)).is_none());
}

//! Every table of up to two regions on a small grid, and every address and length around their edges, against memory that is
//! looked at one page at a time.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{FrontendVa, Gpa, GuestMemory, RegionRequest};

const PAGE: u64 = 4096;
/// The grid in the front end's space starts here: no guest address is one of its.
const VA: u64 = 0x7000_0000_0000;
/// The last pages of the address space that a region can have: it must end within it.
const TOP: u64 = u64::MAX - 4 * PAGE + 1;

/// A region in pages: from `gpa`, which `high` counts from the top of the address space, `size` of them, seen at `va`.
#[derive(Clone, Copy, Debug)]
struct Small {
    gpa: u64,
    size: u64,
    va: u64,
    high: bool,
}

impl Small {
    fn gpa(self) -> u64 {
        self.gpa * PAGE + if self.high { TOP } else { 0 }
    }

    fn va(self) -> u64 {
        self.va * PAGE + if self.high { TOP } else { VA }
    }

    /// Its last byte's neighbour, without wrapping.
    fn end(self) -> u128 {
        u128::from(self.gpa()) + u128::from(self.size * PAGE)
    }

    fn request(self) -> RegionRequest {
        static FILE: OnceLock<OwnedFd> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let fd =
                memfd_create("exhaustive", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
            ftruncate(&fd, 16 * PAGE).expect("ftruncate");
            fd
        });
        let (gpa, size, va) = (Gpa(self.gpa()), self.size * PAGE, FrontendVa(self.va()));
        RegionRequest {
            gpa,
            size,
            va,
            mmap_offset: self.gpa * PAGE,
            fd: file.try_clone().expect("a descriptor more"),
        }
    }
}

/// All of the grid.
fn regions() -> Vec<Small> {
    let mut all = Vec::new();
    for high in [false, true] {
        for (gpa, size, va) in (0..3).flat_map(|g| (0..3).flat_map(move |s| (0..3).map(move |v| (g, s, v)))) {
            all.push(Small { gpa, size, va, high });
        }
    }
    all
}

/// The page at `page * PAGE` in one of two spaces: which of the regions has it.
fn owner(table: &[Small], at: u64, start: impl Fn(Small) -> u64) -> Option<usize> {
    let inside = |r: &Small| {
        u128::from(at) >= start(*r).into()
            && u128::from(at) < u128::from(start(*r)) + u128::from(r.size * PAGE)
    };
    table.iter().position(inside)
}

/// Whether the table is one at all.
fn is_sound(table: &[Small]) -> bool {
    let whole = |r: &Small| {
        r.size > 0 && r.end() < 1 << 64 && u128::from(r.va()) + u128::from(r.size * PAGE) < 1 << 64
    };
    let apart = |start: fn(Small) -> u64| match table {
        [a, b] => {
            let pages = |r: Small| (0..r.size).map(move |page| start(r) + page * PAGE);
            pages(*a).all(|page| pages(*b).all(|other| page != other))
        }
        _ => true,
    };
    table.iter().all(whole) && apart(Small::gpa) && apart(Small::va)
}

/// Addresses around every edge of the grid that starts at `start`.
fn edges(start: u64) -> impl Iterator<Item = u64> {
    (0..6).flat_map(move |page| [-1, 0, 1].map(|by| start.wrapping_add(page * PAGE).wrapping_add_signed(by)))
}

/// The one way from here to what is tested.
fn map(table: &[Small]) -> Option<GuestMemory> {
    GuestMemory::map(&table.iter().map(|r| r.request()).collect::<Vec<_>>()).ok()
}

fn check(table: &[Small]) {
    let Some(memory) = map(table) else {
        assert!(!is_sound(table), "a sound table was refused: {table:?}");
        return;
    };
    assert!(is_sound(table), "accepted: {table:?}");
    for at in edges(0).chain(edges(TOP)) {
        let found = memory.region_at(Gpa(at)).map(|view| (view.gpa, view.len));
        let want = owner(table, at, Small::gpa).map(|i| (table[i].gpa(), table[i].size * PAGE));
        assert_eq!(found, want, "{at:#x} in {table:?}");
    }
    let lens = [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1, 1 << 63, u64::MAX - PAGE, u64::MAX];
    for (at, len) in edges(VA).chain(edges(TOP)).flat_map(|at| lens.map(|len| (at, len))) {
        let region = owner(table, at, Small::va).map(|i| table[i]);
        let fits =
            |r: &Small| u128::from(at) + u128::from(len) <= u128::from(r.va()) + u128::from(r.size * PAGE);
        let found = memory.translate_va(FrontendVa(at), len);
        assert_eq!(
            found.map(|w| w.len as u64),
            region.filter(fits).map(|_| len),
            "{at:#x} {len:#x} in {table:?}"
        );
        if let (Some(window), Some(r)) = (found, region) {
            let first =
                memory.region_at(Gpa(r.gpa())).expect("a region that is there").host.addr().get() as u64;
            assert_eq!(window.start.addr().get() as u64, first + (at - r.va()), "{at:#x} in {table:?}");
        }
    }
}

#[test]
fn i02_every_address_in_every_table_of_up_to_two_regions() {
    let all = regions();
    for (i, &one) in all.iter().enumerate() {
        check(&[one]);
        // The order does not matter; both come along.
        for (n, &other) in all[i..].iter().enumerate() {
            check(&if n % 2 == 0 { [one, other] } else { [other, one] });
        }
    }
}

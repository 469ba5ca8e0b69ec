//! Memory that its owner takes away costs a flag, not the process.
#![expect(unsafe_code, reason = "reads memory that no reference may name, and faults on purpose")]
// UNSAFETY: all copies stay inside a live mapping or a live array; the fault of the child process is meant to kill it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Barrier;

use mbuf::foreign::{self, ForeignError, ForeignMapping, Watch};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

const PAGE: usize = 4096;

fn memfd(pages: usize, fill: u8) -> OwnedFd {
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    for _ in 0..pages {
        rustix::io::write(&fd, &[fill; PAGE]).unwrap();
    }
    fd
}

fn read(mapping: &ForeignMapping, at: usize) -> u8 {
    assert!(at < mapping.len());
    let mut byte = [0xAAu8];
    // SAFETY: inside the mapping, which is registered.
    unsafe { foreign::copy(byte.as_mut_ptr(), mapping.base().as_ptr().add(at), 1) };
    byte[0]
}

fn write(mapping: &ForeignMapping, at: usize, byte: u8) {
    assert!(at < mapping.len());
    // SAFETY: inside the mapping, which is registered and writable.
    unsafe { foreign::copy(mapping.base().as_ptr().add(at), &raw const byte, 1) };
}

#[test]
fn m10_a_shrunk_file_reads_as_zeroes_and_only_its_owner_is_told() {
    let (victim, neighbour) = (memfd(4, 7), memfd(4, 8));
    let guest = Watch::new();
    let first = ForeignMapping::map_watched(victim.as_fd(), 0, 2 * PAGE, true, &guest).unwrap();
    let second =
        ForeignMapping::map_watched(victim.as_fd(), 2 * PAGE as u64, 2 * PAGE, true, &guest).unwrap();
    let other = ForeignMapping::map(neighbour.as_fd(), 0, 4 * PAGE, true).unwrap();
    ftruncate(&victim, PAGE as u64).unwrap();
    assert_eq!(
        (read(&first, 0), guest.is_gone()),
        (7, false),
        "what is left can be read, nothing was lost yet"
    );
    assert_eq!((read(&second, 5), guest.is_gone()), (0, true));
    assert!(first.is_gone() && second.is_gone() && second.watch().is_gone(), "one owner, one flag");
    assert_eq!(read(&first, 2 * PAGE - 1), 0);
    write(&first, PAGE, 3);
    assert_eq!((read(&first, PAGE), read(&first, PAGE - 1)), (3, 7), "goes on from the page that faulted");
    assert!(!other.is_gone());
    assert_eq!(read(&other, 4 * PAGE - 1), 8);
    drop((first, second));
    assert_eq!(read(&other, 0), 8);
}

#[test]
fn one_fault_replaces_all_behind_it() {
    let fd = memfd(64, 1);
    let mapping = ForeignMapping::map(fd.as_fd(), 0, 64 * PAGE, false).unwrap();
    ftruncate(&fd, PAGE as u64).unwrap();
    assert_eq!(read(&mapping, PAGE), 0);
    ftruncate(&fd, 64 * PAGE as u64).unwrap();
    rustix::io::pwrite(&fd, &[9], 63 * PAGE as u64).unwrap();
    assert_eq!(read(&mapping, 63 * PAGE), 0, "no longer the file");
}

#[test]
fn m11_two_threads_and_a_racer_survive() {
    let fd = memfd(16, 5);
    let (turns, start) = (300, Barrier::new(3));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for turn in 0..turns {
                    let mapping = ForeignMapping::map(fd.as_fd(), 0, PAGE, true).ok();
                    start.wait();
                    let Some(mapping) = mapping else { continue };
                    for at in 0..mapping.len() {
                        assert!([0, 5, 6].contains(&read(&mapping, at)), "turn {turn}");
                        write(&mapping, at, 6);
                    }
                }
            });
        }
        for turn in 0..turns {
            start.wait();
            for _ in 0..20 {
                ftruncate(&fd, 0).unwrap();
                ftruncate(&fd, if turn % 2 == 0 { 16 * PAGE as u64 } else { PAGE as u64 }).unwrap();
            }
        }
    });
}

#[test]
fn two_threads_fault_in_one_mapping_at_once() {
    for _ in 0..200 {
        let fd = memfd(8, 5);
        let mapping = ForeignMapping::map(fd.as_fd(), 0, 8 * PAGE, true).unwrap();
        ftruncate(&fd, 0).unwrap();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (mapping, start) = (&mapping, &start);
                scope.spawn(move || {
                    start.wait();
                    for page in 0..8 {
                        let page = if thread == 0 { page } else { 7 - page };
                        assert_eq!(read(mapping, page * PAGE + thread), 0);
                        assert!(mapping.is_gone());
                    }
                });
            }
        });
    }
}

#[test]
fn an_address_used_again_after_drop_is_as_good_as_new() {
    let fd = memfd(4, 5);
    for _ in 0..100 {
        let mapping = ForeignMapping::map(fd.as_fd(), 0, 4 * PAGE, true).unwrap();
        assert!(!mapping.is_gone());
        assert_eq!(read(&mapping, 0), 5);
    }
}

#[test]
fn ranges_need_not_be_of_whole_pages() {
    let fd = memfd(3, 5);
    rustix::io::pwrite(&fd, &[1, 2], PAGE as u64 - 1).unwrap();
    let mapping = ForeignMapping::map(fd.as_fd(), PAGE as u64 - 1, 2, false).unwrap();
    assert_eq!((mapping.len(), read(&mapping, 0), read(&mapping, 1)), (2, 1, 2));
}

#[test]
fn m09_m14_what_cannot_be_mapped_is_refused_by_name() {
    let fd = memfd(2, 0);
    let map = |offset, len| ForeignMapping::map(fd.as_fd(), offset, len, true).unwrap_err();
    assert!(matches!(map(PAGE as u64, PAGE + 1), ForeignError::TooShort { size: 0x2000, end: 0x2001 }));
    assert!(matches!(map(0, 0), ForeignError::NoRange { .. }));
    assert!(matches!(map(u64::MAX, 2), ForeignError::NoRange { .. }));
    assert!(matches!(map(1, usize::MAX), ForeignError::NoRange { .. }));
    let (pipe, _keep) = rustix::pipe::pipe().unwrap();
    assert!(matches!(ForeignMapping::map(pipe.as_fd(), 0, 1, true), Err(ForeignError::NotRegular { .. })));
    let proc = std::fs::File::open("/proc/self/maps").unwrap();
    let error = ForeignMapping::map(proc.as_fd(), 0, 1, false).unwrap_err();
    assert!(matches!(error, ForeignError::FileSystem { magic: 0x9fa0 }), "{error}");
}

#[test]
fn v48_a_file_open_for_reading_cannot_be_mapped_for_writing() {
    let fd = memfd(1, 1);
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let read_only = std::fs::File::open(path).unwrap();
    let error = ForeignMapping::map(read_only.as_fd(), 0, PAGE, true).unwrap_err();
    assert!(matches!(error, ForeignError::System { step: "mmap", .. }), "{error}");
    assert_eq!(read(&ForeignMapping::map(read_only.as_fd(), 0, PAGE, false).unwrap(), 0), 1);
}

/// `dd` among a mapping's VmFlags: not in core dumps.
#[test]
fn m24_guest_memory_is_left_out_of_core_dumps() {
    let fd = memfd(2, 1);
    let mapping = ForeignMapping::map(fd.as_fd(), 0, 2 * PAGE, true).unwrap();
    let start = format!("{:x}-", mapping.base().as_ptr().addr());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let entry = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let flags = entry.skip(1).find(|line| line.starts_with("VmFlags:")).expect("the mapping is there");
    assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
}

/// Needs one free 2 MiB hugepage to say something; without one it says so.
#[test]
fn m13_a_lost_hugepage_is_replaced_whole_needs_hugepages() {
    const HUGE: usize = 2 << 20;
    let fd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).unwrap();
    ftruncate(&fd, 2 * HUGE as u64).unwrap();
    if let Err(e) = fallocate(&fd, FallocateFlags::empty(), 0, 2 * HUGE as u64) {
        assert!(
            std::env::var_os("POLDER_HUGEPAGES").is_none(),
            "POLDER_HUGEPAGES is set, but there are no 2 MiB pages: {e}"
        );
        eprintln!(
            "no 2 MiB hugepages are free ({e}): nothing tested; set POLDER_HUGEPAGES=1 to make this a failure"
        );
        return;
    }
    let offset = HUGE - PAGE;
    let mapping = ForeignMapping::map(fd.as_fd(), offset as u64, 2 * PAGE, true).unwrap();
    write(&mapping, 0, 1);
    write(&mapping, PAGE, 2);
    ftruncate(&fd, HUGE as u64).unwrap();
    assert_eq!((read(&mapping, 0), mapping.is_gone()), (1, false));
    assert_eq!((read(&mapping, PAGE), mapping.is_gone()), (0, true));
    assert_eq!(read(&mapping, 0), 1, "the first hugepage is still there");
    ftruncate(&fd, 0).unwrap();
    assert_eq!(read(&mapping, 0), 0);
}

/// Runs one of the tests below, which ends its process, and tells the signal that did.
fn signal_of(test: &str) -> Option<i32> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    child.output().unwrap().status.signal()
}

#[test]
fn a_fault_outside_still_kills() {
    assert_eq!(signal_of("child_faults_outside"), Some(libc::SIGBUS));
}

#[test]
fn a_sigbus_that_was_sent_still_kills() {
    assert_eq!(signal_of("child_is_sent_sigbus"), Some(libc::SIGBUS));
}

#[test]
fn an_earlier_handler_still_gets_what_is_not_ours() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child =
        child.args(["child_has_a_handler", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    assert_eq!(child.output().unwrap().status.code(), Some(42));
}

#[test]
#[ignore = "ends its process: run by a_fault_outside_still_kills"]
fn child_faults_outside() {
    let (ours, theirs) = (memfd(1, 1), memfd(1, 1));
    let mapping = ForeignMapping::map(ours.as_fd(), 0, PAGE, true).unwrap();
    fault_in(&theirs);
    unreachable!("the process is dead: {}", read(&mapping, 0));
}

#[test]
#[ignore = "ends its process: run by a_sigbus_that_was_sent_still_kills"]
fn child_is_sent_sigbus() {
    let fd = memfd(1, 1);
    let _mapping = ForeignMapping::map(fd.as_fd(), 0, PAGE, true).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(10));
}

#[test]
#[ignore = "ends its process: run by an_earlier_handler_still_gets_what_is_not_ours"]
fn child_has_a_handler() {
    extern "C" fn leave(_signal: i32) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(42) };
    }
    let handler: extern "C" fn(i32) = leave;
    // SAFETY: `leave` is a handler of the kind that signal(2) takes.
    unsafe { libc::signal(libc::SIGBUS, handler as libc::sighandler_t) };
    let fd = memfd(1, 1);
    let mapping = ForeignMapping::map(fd.as_fd(), 0, PAGE, true).unwrap();
    ftruncate(&fd, 0).unwrap();
    assert_eq!(read(&mapping, 0), 0, "ours does not reach it");
    fault_in(&memfd(1, 1));
}

/// Maps the file without registering it, shrinks it, and touches it.
fn fault_in(fd: &OwnedFd) {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    // SAFETY: a new mapping.
    let at = unsafe { mmap(core::ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::SHARED, fd, 0) }.unwrap();
    ftruncate(fd, 0).unwrap();
    // SAFETY: none: this is the fault that the test is about.
    unsafe { at.cast::<u8>().read_volatile() };
}

#[test]
fn n03_lost_registers_read_as_all_ones_a_page_at_a_time() {
    for writable in [true, false] {
        let fd = memfd(4, 7);
        let watch = Watch::new();
        let registers =
            ForeignMapping::map_device(fd.as_fd(), PAGE as u64, 3 * PAGE, writable, &watch).unwrap();
        assert_eq!((read(&registers, 0), watch.is_gone()), (7, false));
        ftruncate(&fd, PAGE as u64 * 2).unwrap();
        assert_eq!((read(&registers, PAGE - 1), watch.is_gone()), (7, false), "what is left");
        assert_eq!((read(&registers, PAGE), watch.is_gone()), (0xff, true));
        assert_eq!([read(&registers, 2 * PAGE - 1), read(&registers, 3 * PAGE - 1)], [0xff; 2]);
        assert_eq!(read(&registers, 0), 7, "the pages in front are the device's still");
        if writable {
            write(&registers, 2 * PAGE, 3);
            assert_eq!(read(&registers, 2 * PAGE), 3, "to nobody, and no fault");
        }
    }
}

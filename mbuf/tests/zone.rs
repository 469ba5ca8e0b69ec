//! Zones: what is had, what is refused, and what the refusal says.
#![expect(unsafe_code, reason = "touches a zone's bytes")]
// UNSAFETY: inside the zone that the test has made, which nobody else uses.

use std::ptr::NonNull;

use mbuf::foreign::ForeignMapping;
use mbuf::{Iova, PageSize, Zone, ZoneConfig, ZoneError};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat, ftruncate};

fn config(bytes: usize, pages: PageSize) -> ZoneConfig {
    ZoneConfig { name: "test".into(), bytes, pages, numa_node: None }
}

fn poke(zone: &Zone, at: usize, byte: u8) -> u8 {
    assert!(at < zone.len());
    // SAFETY: at < len.
    unsafe {
        let place = zone.base().add(at);
        let was = place.read_volatile();
        place.write_volatile(byte);
        was
    }
}

#[test]
fn small_pages_are_rounded_zeroed_and_sealed() {
    let page = rustix::param::page_size();
    let zone = Zone::new(&config(page + 1, PageSize::Small4K)).unwrap();
    assert_eq!((zone.len(), zone.page_size(), zone.numa_node()), (2 * page, PageSize::Small4K, None));
    assert_eq!((poke(&zone, 0, 1), poke(&zone, 2 * page - 1, 2)), (0, 0));
    assert!(fcntl_get_seals(zone.fd()).unwrap().contains(SealFlags::GROW | SealFlags::SHRINK));
    assert!(ftruncate(zone.fd(), 0).is_err(), "nobody can cut it off");
    assert_eq!(fstat(zone.fd()).unwrap().st_blocks as usize * 512, 2 * page, "all of it is there");
}

#[test]
fn the_descriptor_is_the_memory() {
    let zone = Zone::new(&config(1, PageSize::Small4K)).unwrap();
    poke(&zone, 7, 42);
    let mut byte = [0];
    rustix::io::pread(zone.fd(), &mut byte, 7).unwrap();
    assert_eq!(byte, [42]);
}

#[test]
fn an_iova_is_the_virtual_address_and_ends_with_the_zone() {
    let zone = Zone::new(&config(1, PageSize::Small4K)).unwrap();
    let start = zone.base().addr().get();
    let at = |address: usize| zone.iova(NonNull::without_provenance(address.try_into().unwrap()));
    assert_eq!(at(start + 9), Some(Iova(start as u64 + 9)));
    assert_eq!((at(start - 1), at(start + zone.len())), (None, None));
}

#[test]
fn auto_gives_something_on_any_machine() {
    let zone = Zone::new(&config(3000, PageSize::Auto)).unwrap();
    assert!([PageSize::Huge2M, PageSize::Small4K].contains(&zone.page_size()));
    assert!(zone.base().addr().get().is_multiple_of(zone.page_size().bytes()));
}

#[test]
fn no_bytes_and_too_many_are_refused() {
    for bytes in [0, usize::MAX] {
        let error = Zone::new(&config(bytes, PageSize::Auto)).unwrap_err();
        assert!(matches!(error, ZoneError::Size { .. }), "{error}");
    }
    let error = Zone::new(&config(1 << 45, PageSize::Small4K)).unwrap_err();
    assert!(matches!(error, ZoneError::Memory { bytes, .. } if bytes == 1 << 45), "{error}");
}

/// More hugepages than any machine has: the refusal must name the command and the number that would do.
#[test]
fn missing_hugepages_are_named_with_the_command() {
    const PAGES: usize = 1 << 22;
    match Zone::new(&config(PAGES << 21, PageSize::Huge2M)).unwrap_err() {
        error @ ZoneError::Hugepages { .. } => {
            let message = error.to_string();
            let ZoneError::Hugepages { pages, available, command, .. } = error else { unreachable!() };
            assert_eq!(pages, PAGES);
            assert!(message.contains(&command), "{message}");
            let (echo, file) = command.split_once(" | sudo tee ").unwrap();
            assert_eq!(file, "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
            let target: usize = echo.strip_prefix("echo ").unwrap().parse().unwrap();
            assert!(target >= PAGES - available, "{command}");
        }
        // A kernel without hugepages: then it must say that.
        error => assert!(matches!(error, ZoneError::NoSuchPages { size: PageSize::Huge2M, .. }), "{error}"),
    }
}

#[test]
fn missing_hugepages_of_a_node_are_named_with_its_own_command() {
    let wanted = ZoneConfig { numa_node: Some(0), ..config(1 << 43, PageSize::Huge2M) };
    let message = Zone::new(&wanted).unwrap_err().to_string();
    if std::path::Path::new("/sys/devices/system/node/node0/hugepages/hugepages-2048kB").exists() {
        let file = "sudo tee /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
        assert!(message.contains(file) && message.contains("on NUMA node 0"), "{message}");
    }
}

#[test]
fn a_zone_can_be_bound_to_a_node_and_not_to_one_that_is_not_there() {
    let on = |node| Zone::new(&ZoneConfig { numa_node: Some(node), ..config(1 << 20, PageSize::Small4K) });
    match on(0) {
        Ok(zone) => assert_eq!(zone.numa_node(), Some(0)),
        // A kernel without NUMA, or a container that forbids mbind.
        Err(error) => assert!(matches!(error, ZoneError::Node { node: 0, .. }), "{error}"),
    }
    for node in [1000, u32::MAX] {
        let error = on(node).unwrap_err();
        assert!(matches!(error, ZoneError::Node { .. }), "{error}");
    }
}

/// Needs one free 2 MiB hugepage to say something; without one it asserts that the message names the command.
#[test]
fn a_hugepage_is_had_or_its_command_is_named() {
    match Zone::new(&config(1, PageSize::Huge2M)) {
        Ok(zone) => {
            assert_eq!((zone.len(), zone.page_size()), (2 << 20, PageSize::Huge2M));
            assert_eq!(poke(&zone, zone.len() - 1, 1), 0);
            assert!(ftruncate(zone.fd(), 0).is_err());
        }
        Err(ZoneError::Hugepages { command, .. }) => assert!(command.contains("nr_hugepages"), "{command}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_gigabyte_page_is_had_or_its_command_is_named() {
    match Zone::new(&config(1, PageSize::Huge1G)) {
        Ok(zone) => assert_eq!((zone.len(), zone.page_size()), (1 << 30, PageSize::Huge1G)),
        Err(error @ ZoneError::Hugepages { .. }) => {
            let message = error.to_string();
            assert!(
                message.contains("hugepages-1048576kB/nr_hugepages") && message.contains("hugepagesz=1G"),
                "{message}"
            );
        }
        Err(error) => assert!(matches!(error, ZoneError::NoSuchPages { .. }), "{error}"),
    }
}

#[test]
fn a_name_that_no_memfd_can_have_is_an_error() {
    let name = "a\0b".into();
    let error = Zone::new(&ZoneConfig { name, ..config(1, PageSize::Small4K) }).unwrap_err();
    assert!(matches!(error, ZoneError::System { step: "memfd_create", .. }), "{error}");
}

/// The kernel's flags of the mapping that holds an address (`VmFlags` in proc_pid_smaps(5)).
fn vm_flags(at: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
            inside = (start..end).contains(&at);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.to_owned();
        }
    }
    panic!("no mapping holds {at:#x}");
}

#[test]
fn m24_packets_and_guest_memory_are_in_no_core_dump() {
    let zone = Zone::new(&config(1 << 20, PageSize::Small4K)).unwrap();
    let guest = ForeignMapping::map(zone.fd(), 0, 1 << 20, true).unwrap();
    for at in [guest.base().addr().get(), zone.base().addr().get()] {
        let flags = vm_flags(at);
        assert!(flags.split(' ').any(|flag| flag == "dd"), "{flags}");
    }
}

//! Memory tables under rings that run.

use super::*;

fn single(region: MemoryRegion) -> SingleRegion {
    SingleRegion { padding: 0, region }
}

#[test]
fn m01_no_regions() {
    let mut s = negotiated(1);
    assert_eq!(s.ask(Request::SetMemTable, table(&[]).as_slice(), vec![]), Ok(0));
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(!s.slots[0].is_running());
}

#[test]
fn m02_numbers_of_regions() {
    for regions in [2, 9, 255, 0x0800_0001, u32::MAX] {
        let mut payload = table(&[region(0, MEMORY, VA)]);
        payload[..4].copy_from_slice(&regions.to_ne_bytes());
        let ended = negotiated(1).ask(Request::SetMemTable, payload.as_slice(), vec![memfd(MEMORY)]);
        assert_eq!(ended, Err("malformed_payload_size"), "{regions}");
    }
    let nine: Vec<_> = (0..9).map(|i| region(i << 20, 1 << 20, i << 20)).collect();
    let fds = (0..9).map(|_| memfd(1 << 20)).collect();
    assert_eq!(
        negotiated(1).ask(Request::SetMemTable, table(&nine).as_slice(), fds),
        Err("malformed_payload_size")
    );
    let fds = (0..8).map(|_| memfd(1 << 20)).collect();
    assert_eq!(negotiated(1).ask(Request::SetMemTable, table(&nine[..8]).as_slice(), fds), Ok(0));
}

#[test]
fn m03_m09_m15_m19_a_refused_table_changes_nothing() {
    let overlap = [region(0, MEMORY, VA), region(MEMORY / 2, MEMORY, 2 * VA)];
    let mut s = running();
    let fds = vec![memfd(MEMORY), memfd(MEMORY)];
    assert_eq!(s.ask(Request::SetMemTable, table(&overlap).as_slice(), fds), Ok(1));
    let one = table(&[region(0, MEMORY, VA)]);
    assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![memfd(MEMORY - 1)]), Ok(1));
    assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![event()]), Ok(1));
    let sealed = memfd(MEMORY);
    rustix::fs::fcntl_add_seals(&sealed, rustix::fs::SealFlags::WRITE).expect("seal");
    assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![sealed]), Ok(1));
    assert!(s.slots[0].is_running(), "on the old memory");
    assert_eq!((s.times("memory_regions_overlap"), s.times("memory_file_too_short")), (1, 1));
}

#[test]
fn m08_a_new_table_under_a_running_ring() {
    let mut s = running();
    let one = table(&[region(0, MEMORY, VA)]);
    for _ in 0..100 {
        assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![memfd(MEMORY)]), Ok(0));
        assert!(s.slots[0].is_running());
    }
    assert_eq!(s.vring_base(0).map(|state| state.num), Ok(7), "it stands where it stood");
}

#[test]
fn m16_regions_come_and_go() {
    let mut s = running();
    let more = single(region(1 << 30, MEMORY, 2 * VA));
    assert_eq!(s.ask(Request::RemMemReg, &more, vec![]), Ok(1), "absent");
    assert_eq!(s.ask(Request::AddMemReg, &more, vec![memfd(MEMORY)]), Ok(0));
    assert_eq!(s.ask(Request::AddMemReg, &more, vec![memfd(MEMORY)]), Ok(1), "twice");
    assert!(s.slots[0].is_running());
    assert_eq!(s.ask(Request::RemMemReg, &more, vec![]), Ok(0));
    assert!(s.slots[0].is_running());
    let under = single(region(0, MEMORY, VA));
    assert_eq!(s.ask(Request::AddMemReg, &more, vec![memfd(MEMORY)]), Ok(0));
    assert_eq!(s.ask(Request::RemMemReg, &under, vec![]), Ok(0), "under a running ring");
    assert!(!s.slots[0].is_running());
    assert_eq!(s.times("ring_outside_memory"), 1);
    assert_eq!(s.ask(Request::AddMemReg, &under, vec![memfd(MEMORY)]), Ok(0));
    assert!(s.slots[0].is_running(), "and back");
}

#[test]
fn m17_a_descriptor_beside_rem_mem_reg() {
    let mut s = negotiated(1);
    assert_eq!(s.ask(Request::RemMemReg, &single(region(0, MEMORY, VA)), vec![memfd(4096)]), Ok(0));
    assert!(s.memory.is_empty());
}

#[test]
fn slots_without_configure_mem_slots() {
    let mut s = session(1);
    let add = s.send(37, 0, single(region(0, MEMORY, VA)).as_bytes(), vec![memfd(MEMORY)]);
    assert_eq!(add, Err("not_negotiated"));
    assert_eq!(s.get(Request::GetMaxMemSlots), 509);
}

#[test]
fn a_ring_across_two_regions_is_refused() {
    let half = MEMORY / 2;
    let halves = [region(0, half, VA), MemoryRegion { mmap_offset: half, ..region(half, half, VA + half) }];
    let file = memfd(MEMORY);
    let fds = vec![file.try_clone().expect("dup"), file];
    let mut s = negotiated(1);
    assert_eq!(s.ask(Request::SetMemTable, table(&halves).as_slice(), fds), Ok(0));
    assert_eq!(s.state(Request::SetVringNum, 0, 256), Ok(0));
    let across = VringAddr { desc: VA + half - 16, ..addr(0) };
    assert_eq!(s.ask(Request::SetVringAddr, &across, vec![]), Ok(0));
    assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(1));
    assert_eq!(s.ask(Request::SetVringAddr, &addr(0), vec![]), Ok(0));
    assert!(s.slots[0].is_running());
}

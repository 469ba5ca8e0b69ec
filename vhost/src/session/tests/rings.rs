//! The ring messages: numbers out of range, changes while running, starting and stopping.

use super::*;

/// Requests that carry a [`VringState`], and those that carry a [`vring_fd`].
const BY_STATE: [Request; 4] =
    [Request::SetVringNum, Request::SetVringBase, Request::SetVringEnable, Request::GetVringBase];
const BY_FD: [Request; 3] = [Request::SetVringKick, Request::SetVringCall, Request::SetVringErr];

#[test]
fn c16_ring_sizes() {
    let mut s = negotiated(1);
    for size in [0, 3, 255, 32_769, 65_535, 65_536, 65_792, 1 << 31, u32::MAX] {
        assert_eq!(s.state(Request::SetVringNum, 0, size), Ok(1), "{size}");
    }
    for size in [1, 2, 256, 32_768] {
        assert_eq!(s.state(Request::SetVringNum, 0, size), Ok(0), "{size}");
    }
    assert_eq!(s.times("ring_size"), 9);
}

#[test]
fn c16_packed_ring_sizes() {
    let mut s = negotiated_packed(1);
    for size in [0, 32_769, 65_535, 65_536, 65_792, 1 << 31, u32::MAX] {
        assert_eq!(s.state(Request::SetVringNum, 0, size), Ok(1), "{size}");
    }
    for size in [1, 2, 3, 255, 256, 257, 32_767, 32_768] {
        assert_eq!(s.state(Request::SetVringNum, 0, size), Ok(0), "{size}");
    }
    assert_eq!(s.times("ring_size"), 7);
}

#[test]
fn c16_packed_bases() {
    let ready = |size: u32, base: Option<u32>| {
        let mut s = negotiated_packed(1);
        assert_eq!(s.state(Request::SetVringNum, 0, size), Ok(0));
        if let Some(base) = base {
            assert_eq!(s.state(Request::SetVringBase, 0, base), Ok(0), "judged when the ring starts");
        }
        assert_eq!(s.ask(Request::SetVringAddr, &addr(0), vec![]), Ok(0));
        let started = s.ask(Request::SetVringKick, &0u64, vec![event()]);
        (started, s)
    };
    for (size, base) in [(255, 255), (255, 255 | 0x8000), (256, 3 | 256 << 16), (1, 1), (100, u32::MAX)] {
        let (started, s) = ready(size, Some(base));
        assert_eq!(started, Ok(1), "{base:#x} in a ring of {size}");
        assert!(!s.slots[0].is_running());
        assert_eq!(s.times("ring_base"), 1);
    }
    for (size, base, stands) in [
        (256, None, 0x8000_8000),
        (256, Some(0), 0),
        (256, Some(0x8000), 0x8000_8000),
        (255, Some(0x80fe), 0x80fe_80fe),
        (3, Some(0x0002_0002), 0x0002_0002),
        (256, Some(0x8003_8007), 0x8003_8003),
    ] {
        let (started, mut s) = ready(size, base);
        assert_eq!(started, Ok(0), "{base:?}");
        assert!(s.slots[0].is_running());
        assert_eq!(s.vring_base(0).map(|state| state.num), Ok(stands), "{base:?} in a ring of {size}");
    }
    assert_eq!(negotiated_packed(1).vring_base(0).map(|state| state.num), Ok(0x8000_8000), "never set up");
}

/// The driver's and the device's event suppression structures take 4 bytes each, and are aligned to 4.
#[test]
fn c17_packed_addresses() {
    let mut s = negotiated_packed(1);
    let good = addr(0);
    for bad in [
        VringAddr { desc: good.desc + 8, ..good },
        VringAddr { avail: good.avail + 2, ..good },
        VringAddr { used: good.used + 2, ..good },
    ] {
        assert_eq!(s.ask(Request::SetVringAddr, &bad, vec![]), Ok(1), "{bad:?}");
    }
    assert_eq!(s.times("ring_alignment"), 3);
    let end = VA + MEMORY;
    for (place, due) in [
        (VringAddr { desc: end - 255 * 16, avail: end - 4, used: end - 4, ..good }, 0),
        (VringAddr { desc: end - 254 * 16, ..good }, 1),
        (VringAddr { avail: end, ..good }, 1),
        (VringAddr { used: VA - 4, ..good }, 1),
    ] {
        let mut s = negotiated_packed(1);
        assert_eq!(s.state(Request::SetVringNum, 0, 255), Ok(0));
        assert_eq!(s.ask(Request::SetVringAddr, &place, vec![]), Ok(0));
        assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(due), "{place:?}");
        assert_eq!(s.slots[0].is_running(), due == 0);
        assert_eq!(s.times("ring_outside_memory"), due);
    }
}

/// A ring that ran as one format does not go on as the other where it stood, and not at all if its size is no size there.
#[test]
fn c18_another_format_while_running() {
    let split = net::F_VERSION_1 | net::F_PROTOCOL_FEATURES;
    let packed = split | net::F_RING_PACKED;
    let mut s = running();
    for (features, stands) in [(packed, 0x8000_8000), (split, 0)] {
        assert_eq!(s.ask(Request::SetFeatures, &features, vec![]), Ok(0));
        assert!(s.slots[0].is_running());
        assert_eq!(s.vring_base(0).map(|state| state.num), Ok(stands));
        assert_eq!(s.ask(Request::SetVringAddr, &addr(0), vec![]), Ok(0));
        assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(0));
    }
    assert_eq!(s.ask(Request::SetFeatures, &packed, vec![]), Ok(0));
    assert_eq!(s.state(Request::SetVringNum, 0, 255), Ok(0));
    assert!(s.slots[0].is_running());
    assert_eq!(s.ask(Request::SetFeatures, &split, vec![]), Ok(0));
    assert!(!s.slots[0].is_running());
    assert_eq!(s.times("ring_size"), 1);
}

#[test]
fn c16_bases() {
    let mut s = negotiated(1);
    assert_eq!(s.state(Request::SetVringBase, 0, 65_536), Ok(1));
    assert_eq!(s.state(Request::SetVringBase, 0, 65_535), Ok(0));
    assert_eq!(s.vring_base(0).map(|state| state.num), Ok(65_535));
}

#[test]
fn c17_addresses() {
    let mut s = negotiated(1);
    let good = addr(0);
    for bad in [
        VringAddr { desc: good.desc + 1, ..good },
        VringAddr { desc: good.desc + 8, ..good },
        VringAddr { avail: good.avail + 1, ..good },
        VringAddr { used: good.used + 2, ..good },
        VringAddr { flags: 1, log: 0x1234, ..good },
        VringAddr { flags: u32::MAX, ..good },
    ] {
        assert_eq!(s.ask(Request::SetVringAddr, &bad, vec![]), Ok(1), "{bad:?}");
    }
    let end = VA + MEMORY;
    for outside in [
        VringAddr { desc: end, ..good },
        VringAddr { desc: end - 16, ..good },
        VringAddr { avail: end - 2, ..good },
        VringAddr { used: VA - 4, ..good },
        VringAddr { used: u64::MAX - 3, ..good },
        VringAddr { desc: 0, avail: 0, used: 0, ..good },
    ] {
        let mut s = negotiated(1);
        assert_eq!(s.state(Request::SetVringNum, 0, 256), Ok(0));
        assert_eq!(s.ask(Request::SetVringAddr, &outside, vec![]), Ok(0), "judged when the ring starts");
        assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(1), "{outside:?}");
        assert!(!s.slots[0].is_running());
        assert_eq!(s.times("ring_outside_memory"), 1);
    }
}

#[test]
fn c17_addresses_before_size_and_memory() {
    let mut s = session(1);
    assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(0));
    assert_eq!(s.ask(Request::SetVringAddr, &addr(0), vec![]), Ok(0));
    assert_eq!(s.state(Request::SetVringNum, 0, 256), Ok(0));
    assert!(!s.slots[0].is_running(), "no memory yet");
    let one = table(&[region(0, MEMORY, VA)]);
    assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![memfd(MEMORY)]), Ok(0));
    assert!(s.slots[0].is_running(), "complete now");
    assert!(s.is_up(), "enabled, as PROTOCOL_FEATURES was not negotiated");
}

#[test]
fn c18_changed_while_running() {
    let mut s = running();
    let moved = VringAddr { index: 0, ..addr(3) };
    assert_eq!(s.state(Request::SetVringNum, 0, 128), Ok(0));
    assert_eq!(s.ask(Request::SetVringAddr, &moved, vec![]), Ok(0));
    assert_eq!(s.ask(Request::SetVringKick, &vring_fd::NO_FD, vec![]), Ok(0));
    assert_eq!(s.ask(Request::SetVringCall, &0u64, vec![event()]), Ok(0));
    assert_eq!(s.ask(Request::SetVringErr, &0u64, vec![event()]), Ok(0));
    assert_eq!(s.ask(Request::SetFeatures, &(net::F_VERSION_1 | net::F_PROTOCOL_FEATURES), vec![]), Ok(0));
    assert!(s.slots[0].is_running());
    assert_eq!(s.vring_base(0).map(|state| state.num), Ok(7), "it stands where it stood");
    let mut s = running();
    assert_eq!(s.state(Request::SetVringBase, 0, 100), Ok(0));
    assert!(s.slots[0].is_running());
    assert_eq!(s.vring_base(0).map(|state| state.num), Ok(100));
}

#[test]
fn c18_moved_out_of_memory_while_running() {
    let mut s = running();
    let outside = VringAddr { desc: VA + MEMORY, ..addr(0) };
    assert_eq!(s.ask(Request::SetVringAddr, &outside, vec![]), Ok(1));
    assert!(!s.slots[0].is_running(), "neither here nor there");
    assert_eq!(s.ask(Request::SetVringAddr, &addr(0), vec![]), Ok(0));
    assert!(s.slots[0].is_running());
}

#[test]
fn c20_ring_numbers() {
    for index in [2, 0x100, 0x102, 0x1_0000, u32::MAX] {
        for request in BY_STATE {
            let answer = negotiated(1).state(request, index, 1);
            let due = if request == Request::GetVringBase { Err("ring_index") } else { Ok(1) };
            assert_eq!(answer, due, "{request:?} {index}");
        }
        assert_eq!(negotiated(1).ask(Request::SetVringAddr, &VringAddr { index, ..addr(0) }, vec![]), Ok(1));
    }
    for value in [2, 0xff, 0x200, 0x1_0000, 1 << 32, !vring_fd::NO_FD] {
        for request in BY_FD {
            assert_eq!(negotiated(1).ask(request, &value, vec![event()]), Ok(1), "{request:?} {value:#x}");
        }
    }
    let mut most = negotiated(128);
    assert_eq!(most.state(Request::SetVringNum, 255, 256), Ok(0));
    assert_eq!(most.ask(Request::SetVringKick, &255u64, vec![event()]), Ok(0));
}

#[test]
fn c21_enable_flood() {
    let mut s = running();
    for i in 0..10_000 {
        assert_eq!(s.state(Request::SetVringEnable, 0, i & 1), Ok(0));
    }
    assert!(s.is_up());
    for value in [2, 0x100, u32::MAX] {
        assert_eq!(s.state(Request::SetVringEnable, 0, value), Ok(1));
    }
    assert!(s.is_up());
}

#[test]
fn c15_enabled_by_message_or_from_the_start() {
    let mut s = running();
    assert!(!s.is_up(), "PROTOCOL_FEATURES: disabled until a message says otherwise");
    assert_eq!(s.state(Request::SetVringEnable, 0, 1), Ok(0));
    assert!(s.is_up());
    assert_eq!(s.ask(Request::SetFeatures, &net::F_VERSION_1, vec![]), Ok(0));
    assert!(s.is_up(), "without it: enabled");
    assert_eq!(s.state(Request::SetVringEnable, 0, 0), Ok(1), "and no message to change that");
}

#[test]
fn qemu_enables_before_it_sets_features() {
    let mut s = session(1);
    let protocol_features = s.get(Request::GetProtocolFeatures);
    assert_eq!(s.ask(Request::SetProtocolFeatures, &protocol_features, vec![]), Ok(0));
    assert_eq!(s.state(Request::SetVringEnable, 0, 1), Ok(0));
    let features = s.get(Request::GetFeatures);
    assert_eq!(s.ask(Request::SetFeatures, &features, vec![]), Ok(0));
    let one = table(&[region(0, MEMORY, VA)]);
    assert_eq!(s.ask(Request::SetMemTable, one.as_slice(), vec![memfd(MEMORY)]), Ok(0));
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(s.is_up());
}

#[test]
fn c23_get_vring_base() {
    let mut s = negotiated(1);
    assert_eq!(s.vring_base(1), Ok(VringState { index: 1, num: 0 }), "never set up");
    let mut s = running();
    assert_eq!(s.vring_base(0), Ok(VringState { index: 0, num: 7 }));
    assert!(!s.slots[0].is_running());
    assert_eq!(s.vring_base(0), Ok(VringState { index: 0, num: 7 }), "twice");
    assert_eq!(s.state(Request::SetVringNum, 0, 256), Ok(0));
    assert_eq!(s.ask(Request::SetVringKick, &0u64, vec![event()]), Ok(0));
    assert!(!s.slots[0].is_running(), "its addresses were forgotten");
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert!(s.slots[0].is_running());
}

#[test]
fn descriptors_that_are_no_eventfds() {
    for request in BY_FD {
        let mut s = negotiated(1);
        assert_eq!(s.ask(request, &0u64, vec![memfd(4096)]), Ok(1));
        assert_eq!(s.times("not_an_eventfd"), 1);
    }
}

/// A7: the port was removed while its control thread was at a message. What it does when it goes on has no effect.
#[test]
fn a07_nothing_starts_in_a_slot_that_is_retired() {
    let mut s = running();
    let end = Instant::now() + Duration::from_secs(10);
    assert!(s.slots.iter().all(|slot| slot.retire(end)));
    assert!(!s.slots[0].is_running());
    let table = table(&[region(0, MEMORY, VA)]);
    assert_eq!(s.ask(Request::SetMemTable, table.as_slice(), vec![memfd(MEMORY)]), Ok(0));
    assert_eq!(s.set_up_ring(0), Ok(0));
    assert_eq!(s.set_up_ring(1), Ok(0));
    assert!(s.slots.iter().all(|slot| !slot.is_running()));
    s.end();
}

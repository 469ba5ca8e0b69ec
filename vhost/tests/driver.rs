//! The driver's rings against the naive device of `driver_device`.

mod driver_device;

use std::num::Wrapping;
use std::time::Duration;

use driver_device::{Chain, Device};
use proptest::prelude::*;
use vhost::driver::{
    Cut, GuestRam, Kicks, NetHdr, PostError, RamConfig, RingConfig, RingConfigError, RingError, RxRing,
    TxRing,
};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1};
use vhost::wire::ring::USED_F_NO_NOTIFY;

const CUTS: [Cut; 4] =
    [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 1, rest: 7 }, Cut::Pieces { first: 40, rest: 100 }];

fn ram(bytes: usize) -> GuestRam {
    GuestRam::new(RamConfig { bytes, gpa_base: 0x4000_0000, ..RamConfig::default() }).unwrap()
}

fn tx(config: RingConfig) -> (TxRing, Device) {
    let ram = ram(usize::from(config.size) * 512 + (4 << 20));
    let ring = TxRing::new(&ram, config).unwrap();
    let device = Device::new(ring.queue().split_ring().expect("a split ring"), &ram, config.base);
    (ring, device)
}

fn rx(config: RingConfig) -> (RxRing, Device) {
    let ram = ram(usize::from(config.size) * 512 + (4 << 20));
    let mut ring = RxRing::new(&ram, config).unwrap();
    let device = Device::new(ring.queue().split_ring().expect("a split ring"), &ram, config.base);
    ring.refill();
    (ring, device)
}

fn frame(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (Wrapping(n) * Wrapping(2_654_435_761) + Wrapping(i * 97)).0 as u8).collect()
}

fn hdr(n: u64) -> NetHdr {
    NetHdr {
        flags: n as u8,
        gso_type: 1,
        gso_size: n as u16,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

/// What the device is to find.
fn on_the_ring(hdr: NetHdr, hdr_len: usize, frame: &[u8]) -> Vec<u8> {
    [&hdr.to_bytes()[..hdr_len], frame].concat()
}

/// A packet as the device writes it, mergeable.
fn merged(num_buffers: u16, frame: &[u8]) -> Vec<u8> {
    on_the_ring(NetHdr { num_buffers, ..NetHdr::default() }, 12, frame)
}

#[test]
fn transmits_in_every_size_from_before_the_wrap() {
    for size in (0..=15).map(|bit| 1u16 << bit) {
        let config = RingConfig { size, base: 0xfff0, buffer_bytes: 128, ..RingConfig::default() };
        let (mut ring, mut device) = tx(config);
        for n in 0..2 * u64::from(size) + 40 {
            let sent = frame(n, 60 + (n % 50) as usize);
            ring.send(hdr(n), &sent).unwrap();
            let chain = device.take().expect("it was published");
            assert_eq!(device.read(&chain), on_the_ring(hdr(n), 10, &sent), "size {size}, frame {n}");
            device.give(chain.head.into(), 0);
            device.publish(false);
        }
        assert_eq!(ring.reclaim(), Ok(1));
        assert_eq!(ring.room(), usize::from(size));
    }
}

#[test]
fn transmits_through_every_cut_direct_and_indirect() {
    for (cut, indirect, features) in CUTS
        .into_iter()
        .flat_map(|cut| [(cut, false), (cut, true)])
        .flat_map(|(cut, indirect)| [(cut, indirect, 0), (cut, indirect, F_VERSION_1 | F_EVENT_IDX)])
    {
        let features = features | if indirect { F_INDIRECT_DESC } else { 0 };
        let config = RingConfig {
            size: 128,
            base: 0xffc0,
            buffer_bytes: 300,
            cut,
            indirect,
            features,
            ..RingConfig::default()
        };
        let (mut ring, mut device) = tx(config);
        let hdr_len = if features & F_VERSION_1 != 0 { 12 } else { 10 };
        for n in 0..1000 {
            let sent = frame(n, (n % 289) as usize);
            ring.send(hdr(n), &sent).unwrap();
            let chain = device.take().unwrap();
            assert_eq!(chain.indirect, indirect);
            assert!(cut != Cut::HeaderApart || chain.pieces[0].len == hdr_len);
            assert_eq!(
                device.read(&chain),
                on_the_ring(hdr(n), hdr_len as usize, &sent),
                "{cut:?}, {indirect}, {n}"
            );
            device.give(chain.head.into(), 0);
            device.publish(false);
        }
    }
}

#[test]
fn fills_the_ring_and_says_so() {
    let (mut ring, mut device) = tx(RingConfig { size: 8, buffer_bytes: 128, ..RingConfig::default() });
    for n in 0..8 {
        ring.post(hdr(n), &frame(n, 60)).unwrap();
    }
    assert_eq!(ring.post(hdr(8), &[0; 60]), Err(PostError::Full));
    assert!(device.take().is_none(), "nothing was published yet");
    ring.publish();
    assert_eq!(device.take().map(|chain| chain.head), Some(0));
    device.give(0, 0);
    device.publish(false);
    assert_eq!(ring.send(hdr(8), &[0; 119]), Err(PostError::TooLong { len: 119, room: 118 }));
    ring.send(hdr(8), &[0; 118]).unwrap();
}

#[test]
fn prepared_frames_circulate_with_a_word_changed() {
    let (mut ring, mut device) = tx(RingConfig { size: 16, buffer_bytes: 128, ..RingConfig::default() });
    ring.prepare(|i, slot| {
        slot.write(0, &frame(i as u64, 64));
        60 + i % 4
    });
    let mut number = 0u64;
    for round in 0..100 {
        let posted = ring.post_prepared(5, |slot| {
            slot.set_word(16, number);
            number += 1;
        });
        assert_eq!(posted, 5);
        for i in 0..5 {
            let chain = device.take().unwrap();
            let bytes = device.read(&chain);
            assert_eq!(bytes.len(), 10 + 60 + (chain.head % 4) as usize);
            assert_eq!(bytes[26..34], (round * 5 + i as u64).to_le_bytes());
            assert_eq!(bytes[10..26], frame(chain.head.into(), 16));
            device.give(chain.head.into(), 0);
        }
        device.publish(false);
        assert_eq!(ring.reclaim(), Ok(5));
    }
}

#[test]
fn receives_in_every_size_from_before_the_wrap() {
    for size in (0..=15).map(|bit| 1u16 << bit) {
        let features = F_VERSION_1 | F_MRG_RXBUF;
        let config = RingConfig { size, base: 0xfff0, buffer_bytes: 128, features, ..RingConfig::default() };
        let (mut ring, mut device) = rx(config);
        let mut got = Vec::new();
        for n in 0..2 * u64::from(size) + 40 {
            let sent = frame(n, 60 + (n % 50) as usize);
            assert_eq!(ring.recv(&mut got), Ok(None));
            let chain = device.take().expect("it is kept full");
            let len = device.write(&chain, &merged(1, &sent));
            device.give(chain.head.into(), len as u32);
            device.publish(false);
            assert_eq!(ring.recv(&mut got).unwrap().unwrap().num_buffers, 1);
            assert_eq!(got, sent, "size {size}, frame {n}");
        }
    }
}

#[test]
fn receives_through_every_cut() {
    for cut in CUTS {
        let config = RingConfig { size: 128, buffer_bytes: 300, cut, ..RingConfig::default() };
        let (mut ring, mut device) = rx(config);
        let mut got = Vec::new();
        for n in 0..1000 {
            let sent = frame(n, (n % 289) as usize);
            let chain = device.take().unwrap();
            let len = device.write(&chain, &on_the_ring(hdr(n), 10, &sent));
            device.give(chain.head.into(), len as u32);
            device.publish(false);
            assert_eq!(ring.recv(&mut got), Ok(Some(hdr(n))));
            assert_eq!(got, sent);
        }
    }
}

/// Writes `frame` as one packet over as many buffers as it takes.
fn deliver(device: &mut Device, frame: &[u8], buffer_bytes: usize) {
    let num_buffers = (12 + frame.len()).div_ceil(buffer_bytes) as u16;
    let packet = merged(num_buffers, frame);
    let mut done = 0;
    for _ in 0..num_buffers {
        let chain = device.take().unwrap();
        let len = device.write(&chain, &packet[done..]);
        device.give(chain.head.into(), len as u32);
        done += len;
    }
    device.publish(false);
}

#[test]
fn gathers_merged_buffers() {
    let features = F_VERSION_1 | F_MRG_RXBUF;
    let config = RingConfig { size: 64, base: 0xffe0, buffer_bytes: 128, features, ..RingConfig::default() };
    let (mut ring, mut device) = rx(config);
    let mut got = Vec::new();
    for len in (0..2000).chain([8000, 64 * 128 - 12]) {
        let sent = frame(len as u64, len);
        deliver(&mut device, &sent, 128);
        let frames = ring.poll(9, |part| {
            assert_eq!(part.buffers(), (12 + len).div_ceil(128));
            if len >= 8 {
                let at = len - 8;
                assert_eq!(part.word(at).to_le_bytes(), sent[at..]);
                assert_eq!(part.word(at / 2).to_le_bytes(), sent[at / 2..at / 2 + 8]);
            }
            part.copy_to(&mut got);
        });
        assert_eq!((frames, &got), (Ok(1), &sent));
        ring.refill();
    }
}

#[test]
#[should_panic(expected = "beyond the frame's end")]
fn a_read_ends_with_the_frame() {
    let features = F_VERSION_1 | F_MRG_RXBUF;
    let (mut ring, mut device) =
        rx(RingConfig { size: 8, buffer_bytes: 128, features, ..RingConfig::default() });
    deliver(&mut device, &[0; 200], 128);
    let _ = ring.poll(1, |frame| {
        let _ = frame.word(193);
    });
}

fn rx_with_one_taken(features: u64) -> (RxRing, Device, Chain) {
    let (ring, mut device) = rx(RingConfig { size: 8, buffer_bytes: 128, features, ..RingConfig::default() });
    let chain = device.take().unwrap();
    (ring, device, chain)
}

#[test]
fn a_lying_device_is_named_and_stays_named() {
    let features = F_VERSION_1 | F_MRG_RXBUF;
    type Lie<'a> = &'a dyn Fn(&mut Device);
    let lies: [(Lie<'_>, RingError); 7] = [
        (&|d| d.give(8, 12), RingError::UsedId { at: 0, id: 8 }),
        (&|d| d.give(u32::MAX, 12), RingError::UsedId { at: 0, id: u32::MAX }),
        (&|d| d.give(0, 129), RingError::UsedLen { at: 0, len: 129, room: 128 }),
        (&|d| d.give(0, 11), RingError::UsedLen { at: 0, len: 11, room: 128 }),
        (&|d| (0..9).for_each(|_| d.give(0, 12)), RingError::UsedIdx { idx: 9, next: 0, posted: 8 }),
        (&|d| d.next_used = 0xffff, RingError::UsedIdx { idx: 0xffff, next: 0, posted: 8 }),
        (
            &|d| {
                d.next_avail = 0;
                let chain = d.take().unwrap();
                d.write(&chain, &merged(2, &[]));
                d.give(0, 12);
            },
            RingError::NumBuffers { at: 0, num_buffers: 2, there: 1 },
        ),
    ];
    for (lie, name) in lies {
        let (mut ring, mut device, _) = rx_with_one_taken(features);
        lie(&mut device);
        device.publish(false);
        assert_eq!(ring.poll(32, |_| ()), Err(name));
        assert_eq!(ring.poll(32, |_| ()), Err(name), "latched");
    }
}

#[test]
fn a_buffer_returned_twice_is_seen() {
    let (mut ring, mut device) = tx(RingConfig { size: 8, ..RingConfig::default() });
    ring.post_prepared(2, |_| ());
    device.give(0, 0);
    device.give(0, 0);
    device.publish(false);
    assert_eq!(ring.reclaim(), Err(RingError::UsedId { at: 1, id: 0 }));
}

#[test]
fn in_order_batches_need_one_used_entry() {
    let features = F_IN_ORDER;
    let (mut ring, mut device) = tx(RingConfig { size: 16, base: 0xfff8, features, ..RingConfig::default() });
    for batch in (1..=16).chain([3, 5, 1, 9]) {
        assert_eq!(ring.post_prepared(batch, |_| ()), batch);
        let heads: Vec<_> = (0..batch).map(|_| device.take().unwrap().head).collect();
        let start = device.next_used;
        device.give(heads[batch - 1].into(), 0);
        device.next_used = start.wrapping_add(batch as u16);
        device.publish(false);
        assert_eq!(ring.reclaim(), Ok(batch));
        assert_eq!(ring.room(), 16);
    }
    ring.post_prepared(4, |_| ());
    let wrong = u32::from((device.take().unwrap().head + 2) % 16);
    device.give(wrong, 0);
    device.publish(false);
    let at = device.next_used.wrapping_sub(1);
    assert_eq!(ring.reclaim(), Err(RingError::UsedId { at, id: wrong }), "not the next, and no batch either");
}

#[test]
fn kicks_only_when_asked() {
    let (mut ring, device) = tx(RingConfig { size: 256, ..RingConfig::default() });
    assert!(ring.send(hdr(0), &[0; 60]).is_ok());
    assert_eq!(ring.queue().kicks_sent(), 1);
    device.set_flags(USED_F_NO_NOTIFY);
    ring.send(hdr(0), &[0; 60]).unwrap();
    assert_eq!(ring.queue().kicks_sent(), 1);
    assert!(!ring.publish(), "nothing new, no kick");

    let features = F_EVENT_IDX;
    let (mut ring, device) = tx(RingConfig { size: 256, base: 0xfffe, features, ..RingConfig::default() });
    device.set_avail_event(0);
    let kicks: Vec<_> = (0..4)
        .map(|_| {
            ring.post(hdr(0), &[0; 60]).unwrap();
            ring.publish()
        })
        .collect();
    assert_eq!(kicks, [false, false, true, false], "only past the event");

    let (mut ring, _) = tx(RingConfig { size: 256, kicks: Kicks::Never, ..RingConfig::default() });
    ring.send(hdr(0), &[0; 60]).unwrap();
    assert_eq!(ring.queue().kicks_sent(), 0);
}

#[test]
fn wants_calls_only_while_it_waits() {
    for features in [0, F_EVENT_IDX] {
        let event_idx = features != 0;
        let (mut ring, mut device) = tx(RingConfig { size: 256, features, ..RingConfig::default() });
        for round in 0..1000 {
            ring.post_prepared(100, |_| ());
            (0..100).for_each(|_| {
                let head = device.take().unwrap().head;
                device.give(head.into(), 0);
            });
            assert!(!device.publish(event_idx), "a call wanted in round {round}");
            assert_eq!(ring.reclaim(), Ok(100));
        }
        let call = ring.queue().call_fd().try_clone_to_owned().unwrap();
        assert!(!ring.queue_mut().wait_used(Duration::from_millis(1)).unwrap());
        std::thread::scope(|threads| {
            ring.post_prepared(1, |_| ());
            threads.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let head = device.take().unwrap().head;
                device.give(head.into(), 0);
                if device.publish(event_idx) {
                    rustix::io::write(&call, &1u64.to_ne_bytes()).unwrap();
                }
            });
            assert!(ring.queue_mut().wait_used(Duration::from_secs(10)).unwrap());
        });
        assert_eq!(ring.reclaim(), Ok(1));
    }
}

#[test]
fn what_no_ring_can_be_is_refused() {
    let ram = ram(1 << 20);
    let refused = |config| TxRing::new(&ram, config).unwrap_err();
    for size in [0, 3, 65_535] {
        assert!(matches!(refused(RingConfig { size, ..RingConfig::default() }), RingConfigError::Size(_)));
    }
    let cut = Cut::Pieces { first: 1, rest: 1 };
    let config = RingConfig { size: 32, buffer_bytes: 33, cut, ..RingConfig::default() };
    assert!(matches!(refused(config), RingConfigError::Pieces { pieces: 33, .. }));
    assert!(matches!(refused(RingConfig { indirect: true, ..config }), RingConfigError::Indirect));
    let cut = Cut::Pieces { first: 0, rest: 1 };
    assert!(matches!(refused(RingConfig { cut, ..config }), RingConfigError::Empty { .. }));
    assert!(matches!(refused(RingConfig { buffer_bytes: 10, ..config }), RingConfigError::Empty { .. }));
    assert!(matches!(refused(RingConfig { size: 32_768, ..RingConfig::default() }), RingConfigError::Ram(_)));
}

proptest! {
    /// A device that returns buffers in any order gets each frame as it was sent, and each slot stays in circulation.
    #[test]
    fn any_order_of_return(
        bits in 0u32..8,
        base in any::<u16>(),
        cut in 0usize..3,
        steps in prop::collection::vec((0usize..6, any::<u32>()), 1..200),
    ) {
        let cut = [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 20, rest: 30 }][cut];
        let size = 8 << bits;
        let config = RingConfig { size, base, cut, buffer_bytes: 128, ..RingConfig::default() };
        let (mut ring, mut device) = tx(config);
        let mut held: Vec<Chain> = Vec::new();
        let mut n = 0u64;
        for (burst, choice) in steps {
            ring.reclaim().unwrap();
            for _ in 0..burst {
                let sent = frame(n, 60 + (n % 58) as usize);
                match ring.post(hdr(n), &sent) {
                    Ok(()) => n += 1,
                    Err(PostError::Full) => prop_assert_eq!(held.len(), ring.queue().slots()),
                    Err(error) => prop_assert!(false, "{}", error),
                }
                ring.publish();
                if let Some(chain) = device.take() {
                    let sent = frame(n - 1, 60 + ((n - 1) % 58) as usize);
                    prop_assert_eq!(device.read(&chain), on_the_ring(hdr(n - 1), 10, &sent));
                    prop_assert!(held.iter().all(|other| other.head != chain.head), "one head twice");
                    held.push(chain);
                }
            }
            for i in 0..(choice % 7) as usize {
                if !held.is_empty() {
                    let chain = held.swap_remove((choice as usize + 13 * i) % held.len());
                    device.give(chain.head.into(), 0);
                }
            }
            device.publish(false);
        }
        ring.reclaim().unwrap();
        prop_assert_eq!(ring.queue().in_flight(), held.len());
    }
}

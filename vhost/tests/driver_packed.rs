//! The driver's packed rings against the naive device of `driver_device`.

mod driver_device;

use std::num::Wrapping;
use std::time::Duration;

use driver_device::packed::{PackedChain, PackedDevice};
use proptest::prelude::*;
use vhost::driver::{
    Cut, GuestRam, NetHdr, PostError, RamConfig, RingConfig, RingConfigError, RingError, RxRing, TxRing,
};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_MRG_RXBUF, F_RING_PACKED, F_VERSION_1};
use vhost::wire::packed::{EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, Position};

const FEATURES: u64 = F_VERSION_1 | F_RING_PACKED;
const CUTS: [Cut; 4] =
    [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 1, rest: 7 }, Cut::Pieces { first: 40, rest: 100 }];

fn config(size: u16) -> RingConfig {
    RingConfig { size, buffer_bytes: 128, features: FEATURES, ..RingConfig::default() }
}

fn ram(bytes: usize) -> GuestRam {
    GuestRam::new(RamConfig { bytes, gpa_base: 0x4000_0000, ..RamConfig::default() }).unwrap()
}

fn tx(config: RingConfig) -> (TxRing, PackedDevice) {
    let ram = ram(usize::from(config.size) * 512 + (4 << 20));
    let ring = TxRing::new(&ram, config).unwrap();
    let device = PackedDevice::new(ring.queue().packed_ring().unwrap(), &ram, ring.queue().base());
    (ring, device)
}

fn rx(config: RingConfig) -> (RxRing, PackedDevice) {
    let ram = ram(usize::from(config.size) * 512 + (4 << 20));
    let mut ring = RxRing::new(&ram, config).unwrap();
    let device = PackedDevice::new(ring.queue().packed_ring().unwrap(), &ram, ring.queue().base());
    ring.refill();
    (ring, device)
}

fn frame(n: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (Wrapping(n) * Wrapping(2_654_435_761) + Wrapping(i * 97)).0 as u8).collect()
}

/// Header and frame as they lie in a buffer.
fn packet(num_buffers: u16, frame: &[u8]) -> Vec<u8> {
    [&NetHdr { num_buffers, ..NetHdr::default() }.to_bytes()[..], frame].concat()
}

fn give(device: &mut PackedDevice, chain: &PackedChain, len: u32) {
    device.give(chain.id, len, chain.descs);
}

#[test]
fn transmits_in_every_size_at_every_position() {
    for size in (1..=33).chain([256, 1000, 32_768]) {
        let (mut ring, mut device) = tx(RingConfig { base: size / 2 + 1, ..config(size) });
        assert_eq!(ring.queue().slots(), usize::from(size));
        for n in 0..4 * u64::from(size.min(300)) + 7 {
            let sent = frame(n, 60 + (n % 50) as usize);
            ring.send(NetHdr::default(), &sent).unwrap();
            let chain = device.take().expect("it was published");
            assert!(device.take().is_none(), "one, and no more");
            assert_eq!(device.read(&chain), packet(0, &sent), "size {size}, frame {n}");
            give(&mut device, &chain, 0);
        }
        assert_eq!(ring.reclaim(), Ok(1));
        assert_eq!(ring.room(), usize::from(size));
    }
}

#[test]
fn transmits_through_every_cut_direct_and_indirect() {
    for (cut, indirect) in CUTS.into_iter().flat_map(|cut| [(cut, false), (cut, true)]) {
        let features = FEATURES | if indirect { F_INDIRECT_DESC } else { 0 };
        let (mut ring, mut device) =
            tx(RingConfig { buffer_bytes: 300, cut, indirect, features, ..config(127) });
        for n in 0..500 {
            let sent = frame(n, (n % 289) as usize);
            ring.send(NetHdr::default(), &sent).unwrap();
            let chain = device.take().unwrap();
            assert_eq!(chain.indirect, indirect);
            assert!(cut != Cut::HeaderApart || chain.pieces[0].len == 12);
            assert_eq!(device.read(&chain), packet(0, &sent), "{cut:?}, {indirect}, {n}");
            give(&mut device, &chain, 0);
        }
    }
}

/// A burst is shown whole, by its first descriptor's flags.
#[test]
fn shows_nothing_before_it_publishes() {
    let (mut ring, mut device) = tx(config(8));
    for n in 0..8 {
        ring.post(NetHdr::default(), &frame(n, 60)).unwrap();
    }
    assert_eq!(ring.post(NetHdr::default(), &[0; 60]), Err(PostError::Full));
    assert!(device.take().is_none(), "nothing was published yet");
    ring.publish();
    for n in 0..8 {
        let chain = device.take().expect("all at once");
        assert_eq!(device.read(&chain), packet(0, &frame(n, 60)));
        give(&mut device, &chain, 0);
    }
    assert_eq!(ring.reclaim(), Ok(8));
}

/// Writes `frame` as one packet over as many buffers as it takes.
fn deliver(device: &mut PackedDevice, frame: &[u8], buffer_bytes: usize) {
    let num_buffers = (12 + frame.len()).div_ceil(buffer_bytes) as u16;
    let packet = packet(num_buffers, frame);
    let mut done = 0;
    for _ in 0..num_buffers {
        let chain = device.take().unwrap();
        let len = device.write(&chain, &packet[done..]);
        give(device, &chain, len as u32);
        done += len;
    }
}

#[test]
fn gathers_merged_buffers() {
    for (size, cut) in [(64, Cut::Whole), (63, Cut::Whole), (200, Cut::HeaderApart)] {
        let features = FEATURES | F_MRG_RXBUF;
        let (mut ring, mut device) = rx(RingConfig { base: 50, cut, features, ..config(size) });
        let mut got = Vec::new();
        for len in (0..1000).chain([6000, 63 * 128 - 12]) {
            let sent = frame(len as u64, len);
            deliver(&mut device, &sent, 128);
            let frames = ring.poll(9, |part| {
                assert_eq!(part.buffers(), (12 + len).div_ceil(128));
                part.copy_to(&mut got);
            });
            assert_eq!((frames, &got), (Ok(1), &sent));
            ring.refill();
        }
    }
}

#[test]
fn a_lying_device_is_named_and_stays_named() {
    type Lie<'a> = &'a dyn Fn(&mut PackedDevice);
    let lies: [(Lie<'_>, RingError); 6] = [
        (&|d| d.give(8, 12, 1), RingError::UsedId { at: 0, id: 8 }),
        (&|d| d.give(0xffff, 12, 1), RingError::UsedId { at: 0, id: 0xffff }),
        (&|d| (0..2).for_each(|_| d.give(0, 12, 1)), RingError::UsedId { at: 1, id: 0 }),
        (&|d| d.give(0, 129, 1), RingError::UsedLen { at: 0, len: 129, room: 128 }),
        (&|d| d.give(0, 11, 1), RingError::UsedLen { at: 0, len: 11, room: 128 }),
        (
            &|d| {
                let chain = d.take().unwrap();
                d.write(&chain, &packet(2, &[]));
                give(d, &chain, 12);
            },
            RingError::NumBuffers { at: 0, num_buffers: 2, there: 1 },
        ),
    ];
    for (lie, name) in lies {
        let (mut ring, mut device) = rx(RingConfig { features: FEATURES | F_MRG_RXBUF, ..config(8) });
        lie(&mut device);
        assert_eq!(ring.poll(32, |_| ()), Err(name));
        assert_eq!(ring.poll(32, |_| ()), Err(name), "latched");
    }
}

#[test]
fn in_order_batches_need_one_used_descriptor() {
    let features = FEATURES | F_IN_ORDER;
    for cut in [Cut::Whole, Cut::HeaderApart] {
        let (mut ring, mut device) = tx(RingConfig { base: 11, cut, features, ..config(34) });
        let slots = ring.queue().slots();
        for batch in (1..=slots).chain([3, 5, 1, 9]) {
            assert_eq!(ring.post_prepared(batch, |_| ()), batch);
            let chains: Vec<_> = (0..batch).map(|_| device.take().unwrap()).collect();
            device.give(chains[batch - 1].id, 0, chains.iter().map(|chain| chain.descs).sum());
            assert_eq!(ring.reclaim(), Ok(batch));
            assert_eq!(ring.room(), slots);
        }
        // Only slots that are with the device are a batch.
        ring.post_prepared(2, |_| ());
        let chain = device.take().unwrap();
        let wrong = (chain.id + 2) % slots as u16;
        device.give(wrong, 0, 1);
        assert!(matches!(ring.reclaim(), Err(RingError::UsedId { id, .. }) if id == u32::from(wrong)));
    }
}

#[test]
fn kicks_only_when_asked() {
    for features in [0, F_EVENT_IDX] {
        let (mut ring, device) = tx(RingConfig { features: FEATURES | features, ..config(256) });
        let mut kicks = |flags, at| {
            device.set_event(flags, at);
            ring.post(NetHdr::default(), &[0; 60]).unwrap();
            ring.publish()
        };
        let start = Position::START;
        assert!(kicks(EVENT_F_ENABLE, start));
        assert!(!kicks(EVENT_F_DISABLE, start));
        assert!(kicks(3, start), "what means nothing is no reason to be silent");
        let event_idx = features != 0;
        let event = start.after(5, 256);
        let got: Vec<_> = (0..4).map(|_| kicks(EVENT_F_DESC, event)).collect();
        assert_eq!(got, [!event_idx, !event_idx, true, !event_idx], "only at the event");
    }
}

#[test]
fn wants_calls_only_while_it_waits() {
    for features in [0, F_EVENT_IDX] {
        let (mut ring, mut device) = tx(RingConfig { features: FEATURES | features, ..config(99) });
        for round in 0..1000 {
            ring.post_prepared(40, |_| ());
            (0..40).for_each(|_| {
                let chain = device.take().unwrap();
                give(&mut device, &chain, 0);
            });
            assert!(!device.is_call_wanted(), "a call wanted in round {round}");
            assert_eq!(ring.reclaim(), Ok(40));
        }
        let call = ring.queue().call_fd().try_clone_to_owned().unwrap();
        assert!(!ring.queue_mut().wait_used(Duration::from_millis(1)).unwrap());
        std::thread::scope(|threads| {
            ring.post_prepared(1, |_| ());
            threads.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                let chain = device.take().unwrap();
                give(&mut device, &chain, 0);
                if device.is_call_wanted() {
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
    for size in [0, 32_769, 65_535] {
        assert!(matches!(refused(config(size)), RingConfigError::Size(_)));
    }
    let cut = Cut::Pieces { first: 1, rest: 1 };
    assert!(matches!(
        refused(RingConfig { buffer_bytes: 33, cut, ..config(32) }),
        RingConfigError::Pieces { pieces: 33, .. }
    ));
    assert!(matches!(refused(RingConfig { indirect: true, ..config(32) }), RingConfigError::Indirect));
}

proptest! {
    /// A device that returns buffers in any order gets each frame as it was sent, and each slot stays in circulation.
    #[test]
    fn any_order_of_return(
        size in 3u16..300,
        base in any::<u16>(),
        cut in 0usize..3,
        steps in prop::collection::vec((0usize..6, any::<u32>()), 1..200),
    ) {
        // At most 3 pieces, in any ring.
        let cut = [Cut::Whole, Cut::HeaderApart, Cut::Pieces { first: 20, rest: 60 }][cut];
        let (mut ring, mut device) = tx(RingConfig { base, cut, ..config(size) });
        let mut held: Vec<PackedChain> = Vec::new();
        let mut n = 0u64;
        for (burst, choice) in steps {
            ring.reclaim().unwrap();
            for _ in 0..burst {
                let sent = frame(n, 60 + (n % 56) as usize);
                match ring.post(NetHdr::default(), &sent) {
                    Ok(()) => n += 1,
                    Err(PostError::Full) => prop_assert_eq!(held.len(), ring.queue().slots()),
                    Err(error) => prop_assert!(false, "{}", error),
                }
                ring.publish();
                if let Some(chain) = device.take() {
                    prop_assert_eq!(device.read(&chain), packet(0, &frame(n - 1, 60 + ((n - 1) % 56) as usize)));
                    prop_assert!(held.iter().all(|other| other.id != chain.id), "one id twice");
                    held.push(chain);
                }
            }
            for i in 0..(choice % 7) as usize {
                if !held.is_empty() {
                    let chain = held.swap_remove((choice as usize + 13 * i) % held.len());
                    give(&mut device, &chain, 0);
                }
            }
        }
        ring.reclaim().unwrap();
        prop_assert_eq!(ring.queue().in_flight(), held.len());
    }
}

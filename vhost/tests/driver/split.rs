//! What only split rings have: heads, indices, flags for kicks.

use vhost::driver::{Kicks, RingConfig, RingConfigError, RingError, TxRing};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_MRG_RXBUF, F_VERSION_1};
use vhost::wire::ring::USED_F_NO_NOTIFY;

use crate::driver_device::Device;
use crate::driver_device::split::SplitDevice;
use crate::rig::{Split, config, deliver, hdr, merged, rx, tx};

const MERGED: u64 = F_VERSION_1 | F_MRG_RXBUF;

fn small() -> RingConfig {
    RingConfig { base: 0, ..config::<Split>(8) }
}

#[test]
fn a_size_that_is_no_power_of_two_is_refused() {
    let ram = vhost::driver::GuestRam::new(vhost::driver::RamConfig::default()).unwrap();
    let refused = TxRing::new(&ram, RingConfig { size: 3, ..small() }).unwrap_err();
    assert!(matches!(refused, RingConfigError::Size(3)));
}

#[test]
#[should_panic(expected = "beyond the frame's end")]
fn a_read_ends_with_the_frame() {
    let (mut ring, mut device) = rx::<Split>(RingConfig { features: MERGED, ..small() });
    deliver(&mut device, &[0; 200], 128);
    let _ = ring.poll(1, |frame| {
        let _ = frame.word(193);
    });
}

#[test]
fn a_lying_device_is_named_and_stays_named() {
    type Lie<'a> = &'a dyn Fn(&mut SplitDevice);
    let lies: [(Lie<'_>, RingError); 7] = [
        (&|d| d.give_entry(8, 12), RingError::UsedId { at: 0, id: 8 }),
        (&|d| d.give_entry(u32::MAX, 12), RingError::UsedId { at: 0, id: u32::MAX }),
        (&|d| d.give_entry(0, 129), RingError::UsedLen { at: 0, len: 129, room: 128 }),
        (&|d| d.give_entry(0, 11), RingError::UsedLen { at: 0, len: 11, room: 128 }),
        (&|d| (0..9).for_each(|_| d.give_entry(0, 12)), RingError::UsedIdx { idx: 9, next: 0, posted: 8 }),
        (&|d| d.next_used = 0xffff, RingError::UsedIdx { idx: 0xffff, next: 0, posted: 8 }),
        (
            &|d| {
                d.next_avail = 0;
                let chain = d.take().unwrap();
                d.write(&chain, &merged(2, &[]));
                d.give(&chain, 12);
            },
            RingError::NumBuffers { at: 0, num_buffers: 2, there: 1 },
        ),
    ];
    for (lie, name) in lies {
        let (mut ring, mut device) = rx::<Split>(RingConfig { features: MERGED, ..small() });
        device.take().expect("a buffer");
        lie(&mut device);
        device.publish();
        assert_eq!(ring.poll(32, |_| ()), Err(name));
        assert_eq!(ring.poll(32, |_| ()), Err(name), "latched");
    }
}

#[test]
fn a_buffer_returned_twice_is_seen() {
    let (mut ring, mut device) = tx::<Split>(small());
    ring.post_prepared(2, |_| ());
    device.give_entry(0, 0);
    device.give_entry(0, 0);
    device.publish();
    assert_eq!(ring.reclaim(), Err(RingError::UsedId { at: 1, id: 0 }));
}

#[test]
fn in_order_what_is_not_the_next_is_no_batch_either() {
    let (mut ring, mut device) = tx::<Split>(RingConfig { features: F_IN_ORDER, ..config::<Split>(16) });
    ring.post_prepared(4, |_| ());
    let (at, wrong) = (device.next_used, u32::from((device.take().unwrap().id + 2) % 16));
    device.give_entry(wrong, 0);
    device.publish();
    assert_eq!(ring.reclaim(), Err(RingError::UsedId { at, id: wrong }));
}

#[test]
fn kicks_only_when_asked() {
    let (mut ring, device) = tx::<Split>(config::<Split>(256));
    assert!(ring.send(hdr(0), &[0; 60]).is_ok());
    assert_eq!(ring.queue().kicks_sent(), 1);
    device.set_flags(USED_F_NO_NOTIFY);
    ring.send(hdr(0), &[0; 60]).unwrap();
    assert_eq!(ring.queue().kicks_sent(), 1);
    assert!(!ring.publish(), "nothing new, no kick");

    let features = F_EVENT_IDX;
    let (mut ring, device) = tx::<Split>(RingConfig { base: 0xfffe, features, ..config::<Split>(256) });
    device.set_avail_event(0);
    let kicks: Vec<_> = (0..4)
        .map(|_| {
            ring.post(hdr(0), &[0; 60]).unwrap();
            ring.publish()
        })
        .collect();
    assert_eq!(kicks, [false, false, true, false], "only past the event");

    let (mut ring, _) = tx::<Split>(RingConfig { kicks: Kicks::Never, ..config::<Split>(256) });
    ring.send(hdr(0), &[0; 60]).unwrap();
    assert_eq!(ring.queue().kicks_sent(), 0);
}

//! What only packed rings have: buffer ids, and event suppression by position.

use vhost::driver::{NetHdr, RingConfig, RingError};
use vhost::wire::net::{F_EVENT_IDX, F_IN_ORDER, F_MRG_RXBUF};
use vhost::wire::packed::{EVENT_F_DESC, EVENT_F_DISABLE, EVENT_F_ENABLE, Position};

use crate::driver_device::Device;
use crate::driver_device::packed::PackedDevice;
use crate::rig::{Format, Packed, config, merged, rx, tx};

fn small(features: u64) -> RingConfig {
    RingConfig { base: 0, features: Packed::FEATURES | features, ..config::<Packed>(8) }
}

#[test]
fn a_lying_device_is_named_and_stays_named() {
    type Lie<'a> = &'a dyn Fn(&mut PackedDevice);
    let lies: [(Lie<'_>, RingError); 5] = [
        (&|d| d.give_desc(8, 12, 1), RingError::UsedId { at: 0, id: 8 }),
        (&|d| d.give_desc(0xffff, 12, 1), RingError::UsedId { at: 0, id: 0xffff }),
        (&|d| d.give_desc(0, 129, 1), RingError::UsedLen { at: 0, len: 129, room: 128 }),
        (&|d| d.give_desc(0, 11, 1), RingError::UsedLen { at: 0, len: 11, room: 128 }),
        (
            &|d| {
                let chain = d.take().unwrap();
                d.write(&chain, &merged(2, &[]));
                d.give(&chain, 12);
            },
            RingError::NumBuffers { at: 0, num_buffers: 2, there: 1 },
        ),
    ];
    for (lie, name) in lies {
        let (mut ring, mut device) = rx::<Packed>(small(F_MRG_RXBUF));
        lie(&mut device);
        assert_eq!(ring.poll(32, |_| ()), Err(name));
        assert_eq!(ring.poll(32, |_| ()), Err(name), "latched");
    }
}

#[test]
fn a_slot_that_comes_back_twice_is_taken_once() {
    let (mut ring, mut device) = rx::<Packed>(small(F_MRG_RXBUF));
    let chain = device.take().unwrap();
    device.write(&chain, &merged(1, &[]));
    (0..2).for_each(|_| device.give_desc(chain.id, 12, 1));
    assert_eq!(ring.poll(32, |_| ()), Ok(1));
    assert_eq!(ring.poll(32, |_| ()), Err(RingError::UsedId { at: 1, id: 0 }));
}

#[test]
fn in_order_only_slots_that_are_with_the_device_are_a_batch() {
    let (mut ring, mut device) = tx::<Packed>(RingConfig { size: 34, ..small(F_IN_ORDER) });
    ring.post_prepared(2, |_| ());
    let wrong = device.take().unwrap().id + 2;
    device.give_desc(wrong, 0, 1);
    assert_eq!(ring.reclaim(), Err(RingError::UsedId { at: 0, id: wrong.into() }));
}

#[test]
fn kicks_only_when_asked() {
    for features in [0, F_EVENT_IDX] {
        let (mut ring, device) = tx::<Packed>(RingConfig { size: 256, ..small(features) });
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

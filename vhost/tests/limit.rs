//! A13: a guest's queue takes as few frames at a time as it is asked to, and none is lost by it.

mod sleeper;

use sleeper::{RINGS, Sleeper};
use vhost::driver::{Kicks, NetHdr};

#[test]
fn a13_a_burst_is_as_short_as_was_asked() {
    for features in RINGS {
        let mut lcore = Sleeper::new();
        let mut guest = lcore.connect(features, Kicks::AsAsked);
        let mut send = || (0..20).for_each(|_| guest.send(&[0x42; 60], NetHdr::default()).unwrap());
        send();
        lcore.rx.limit_bursts(8);
        assert_eq!([(); 4].map(|()| lcore.poll()), [8, 8, 4, 0]);
        send();
        lcore.rx.limit_bursts(0);
        assert_eq!((lcore.poll(), lcore.poll()), (1, 1), "one at least");
        lcore.rx.limit_bursts(mbuf::MAX_BURST);
        assert_eq!(lcore.poll(), 18);
    }
}

//! A10, S11: one port cannot take the mbufs that others need.

mod fat;

use std::sync::atomic::Ordering::SeqCst;

use fat::{LONG, Net, Port, eventually, mac, tcp};
use pmd::offload::OffloadSet;
use vswitch::Mac;

/// The receivers that stand still.
const SLOW: usize = 8;
/// As the daemon's default pool.
const MBUFS: usize = 8192;

/// A hog and a victim on one lcore, with a receiver of the victim's; on the other lcore, which stands still until it is told,
/// the receivers of the hog's.
struct Crowd {
    net: Net,
    hog: Port,
    victim: Port,
    near: Port,
}

const VICTIM: usize = 1;
const NEAR: usize = 2;
const FAR: usize = 3;

impl Crowd {
    fn new(lcores: usize) -> Self {
        let mut net = Net::new(lcores, MBUFS);
        let [hog, victim, near] = [(); 3].map(|()| net.add(0, OffloadSet::NONE));
        (0..SLOW).for_each(|_| drop(net.add(lcores - 1, OffloadSet::NONE)));
        Self { net, hog, victim, near }
    }

    fn slow(&self) -> &[Port] {
        &self.net.ports[FAR..]
    }

    /// `body`, while the receivers' lcore stands still.
    fn while_stopped(&self, body: impl FnOnce()) {
        let held: Vec<_> = self.slow().iter().map(|p| p.wire.stop.lock().unwrap()).collect();
        // It is in the middle of a burst from here on.
        self.victim.send(tcp(mac(FAR), mac(VICTIM), 6, 0));
        eventually("the victim's was taken", || self.victim.waiting() == 0);
        body();
        drop(held);
    }

    /// The victim sends 600 frames to its receiver nearby and 200 to one of the slow ones; none is lost for want of an mbuf.
    fn victim_is_served(&self) {
        let (near, before) = (self.near.packets(), self.slow()[0].packets());
        self.while_stopped(|| {
            for n in 0..800 {
                let to = if n % 4 == 0 { FAR } else { NEAR };
                self.victim.send(tcp(mac(to), mac(VICTIM), 6, 0));
            }
            eventually("the near one has all of its", || self.near.packets() == near + 600);
        });
        assert_eq!(self.victim.wire.starved.load(SeqCst), 0, "its receive queue always has mbufs");
        eventually("the far one has all of its", || self.slow()[0].packets() >= before + 200);
    }

    /// The hog has sent more than the pool holds: its frames were dropped for a reason that is its own.
    fn hog_pays(&self) {
        assert_eq!(self.victim.wire.starved.load(SeqCst), 0);
        assert_eq!(self.hog.wire.starved.load(SeqCst), 0, "its own receive queue is one, too");
        let dropped = |port: &Port| self.net.totals_of(port).drops_by_name().collect::<Vec<_>>();
        let why = dropped(&self.hog);
        assert!(why.iter().any(|(name, n)| *name == "handover_quota" && *n > 0), "{why:?}");
        assert_eq!(dropped(&self.victim), []);
    }
}

/// A10, unicast: 64 KiB frames to eight ports whose lcore stands still, then a victim.
#[test]
fn a10_long_frames_to_slow_ports_leave_mbufs_to_others() {
    let crowd = Crowd::new(2);
    crowd.while_stopped(|| {
        (0..1600).for_each(|n| crowd.hog.send(tcp(mac(FAR + n % SLOW), mac(0), LONG, 0)));
        eventually("the hog's were taken", || crowd.hog.waiting() == 0);
        let out = crowd.net.pool.balance().out;
        assert!(out < MBUFS * 3 / 4, "{out} of {MBUFS}");
        for n in 0..800 {
            let to = if n % 4 == 0 { FAR } else { NEAR };
            crowd.victim.send(tcp(mac(to), mac(VICTIM), 6, 0));
        }
        eventually("the near one has all of its", || crowd.near.packets() == 600);
    });
    crowd.net.settle();
    crowd.hog_pays();
    crowd.victim_is_served();
    crowd.net.settle();
}

/// A10, flood: each frame goes to all eight of them.
#[test]
fn a10_floods_of_long_frames_own_their_bytes_once() {
    let crowd = Crowd::new(2);
    let long = LONG.div_ceil(crowd.net.pool.data_room()) + 1;
    crowd.while_stopped(|| {
        (0..16).for_each(|_| crowd.hog.send(tcp(Mac::BROADCAST, mac(0), LONG, 0)));
        eventually("the hog's were taken", || crowd.hog.waiting() == 0);
        let out = crowd.net.pool.balance().out;
        // The victim's own frame is there, too.
        assert!(out <= 16 * long + 1, "{out} mbufs out for 16 frames of {long}");
        (0..400).for_each(|_| crowd.hog.send(tcp(Mac::BROADCAST, mac(0), LONG, 0)));
        eventually("the hog's were taken", || crowd.hog.waiting() == 0);
    });
    crowd.net.settle();
    // The first has the victim's, too.
    let got: Vec<_> = crowd.slow()[1..].iter().map(Port::packets).collect();
    assert!(got[0] > 16 && got.iter().all(|n| *n == got[0]), "{got:?}");
    crowd.hog_pays();
    crowd.victim_is_served();
    crowd.net.settle();
}

/// Short frames fill the rings of many slow ports just as well.
#[test]
fn a10_short_frames_count_too() {
    let mut crowd = Crowd::new(2);
    (0..8).for_each(|_| drop(crowd.net.add(1, OffloadSet::NONE)));
    crowd.while_stopped(|| {
        for n in 0..16 * 1500 {
            crowd.hog.send(tcp(mac(FAR + n % 16), mac(0), 6, 0));
        }
        eventually("the hog's were taken", || crowd.hog.waiting() == 0);
        assert_eq!(crowd.hog.wire.starved.load(SeqCst), 0);
    });
    crowd.net.settle();
    crowd.hog_pays();
    crowd.victim_is_served();
    crowd.net.settle();
}

/// S11: whatever is held for others, and by however many, receive queues find mbufs: a burst for each lcore at least.
#[test]
fn s11_receive_queues_have_a_reserve() {
    let pool = fat::pool(MBUFS);
    let mut held = Vec::new();
    let first = pool.alloc(1).unwrap();
    while let Ok(copy) = first.duplicate() {
        held.push(copy);
        assert!(held.len() <= MBUFS);
    }
    assert!(pool.balance().free >= MBUFS / 8, "that is what the copies were refused for");
    for lcore in 0..mbuf::MAX_LCORES.min(MBUFS / 8 / mbuf::MAX_BURST) {
        let mut burst = mbuf::Burst::new();
        pool.alloc_bulk(&mut burst, mbuf::MAX_BURST, 2).unwrap_or_else(|_| panic!("lcore {lcore} starves"));
        held.extend(burst.drain());
    }
    held.clear();
    assert!(first.duplicate().is_ok(), "and they are given copies again");
}

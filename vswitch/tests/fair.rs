//! A13, S13: who has much to do keeps nobody waiting who has little.

mod fat;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fat::{Frame, LONG, Net, Port, eventually, mac, tcp};
use pmd::offload::OffloadSet;
use vswitch::Mac;

/// Bytes that ports are sent between two visits of a queue that has nothing, at most: as many as a fast machine copies in 50 us,
/// and what cannot be interrupted. A burst of 64 KiB frames is 2 MiB, and its flood to nine ports 18 MiB.
const MOST_BYTES: u64 = 2 << 20;
/// The same as time. Others may have the CPU, so the median counts; 32 turns with such a flood take 100 ms and more.
const MOST_NS: u64 = 20_000_000;
const RECEIVERS: usize = 8;

/// One at a time: each has lcores that never rest.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One lcore: a hog at place 0, its receivers behind it, then those that have nothing.
struct Crowd {
    net: Net,
    silent: Vec<Port>,
}

impl Crowd {
    fn new(silent: usize) -> Self {
        let mut net = Net::new(1, 8192);
        (0..=RECEIVERS).for_each(|_| drop(net.add(0, OffloadSet::NONE)));
        let silent = (0..silent).map(|_| net.add(0, OffloadSet::NONE)).collect();
        Self { net, silent }
    }

    /// What lies between two visits of those that have nothing, while the hog sends this frame without end.
    fn gaps(&self, frame: Frame) -> Vec<(u64, u64)> {
        let hog = &self.net.ports[0];
        *hog.wire.endless.lock().unwrap() = Some(frame);
        // Until everybody is known to have nothing.
        std::thread::sleep(Duration::from_millis(500));
        self.silent.iter().for_each(|port| port.wire.watching.store(true, SeqCst));
        std::thread::sleep(Duration::from_millis(1500));
        let gaps: Vec<_> = self.silent.iter().flat_map(Port::gaps).collect();
        *hog.wire.endless.lock().unwrap() = None;
        gaps
    }
}

fn assert_short(mut gaps: Vec<(u64, u64)>, queues: usize) {
    assert!(gaps.len() > 20 * queues, "visited {} times in 1.5 s", gaps.len());
    let bytes = gaps.iter().map(|gap| gap.0).max().unwrap();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes between two visits");
    gaps.sort_unstable_by_key(|gap| gap.1);
    let median = gaps[gaps.len() / 2].1;
    assert!(median <= MOST_NS, "{median} ns between two visits");
}

#[test]
fn a13_idle_queues_are_visited_during_a_flood_of_long_frames() {
    let _alone = alone();
    let crowd = Crowd::new(1);
    assert_short(crowd.gaps(tcp(Mac::BROADCAST, mac(0), LONG, 0)), 1);
    crowd.net.settle();
}

#[test]
fn a13_idle_queues_are_visited_while_a_flood_is_cut_into_tiny_segments() {
    let _alone = alone();
    let crowd = Crowd::new(1);
    assert_short(crowd.gaps(tcp(Mac::BROADCAST, mac(0), LONG, 64)), 1);
    crowd.net.settle();
    assert!(crowd.net.ports.iter().all(|p| p.wire.cut.load(SeqCst) == 0), "cut once, not by each");
}

#[test]
fn a13_one_long_packet_is_cut_into_tiny_segments_for_one_receiver() {
    let _alone = alone();
    let crowd = Crowd::new(1);
    assert_short(crowd.gaps(tcp(mac(1), mac(0), LONG, 64)), 1);
    crowd.net.settle();
}

#[test]
fn s13_a_hundred_idle_queues_are_visited_beside_long_frames() {
    let _alone = alone();
    let crowd = Crowd::new(100);
    assert_short(crowd.gaps(tcp(mac(1), mac(0), LONG, 0)), 100);
    crowd.net.settle();
}

/// What another lcore handed over keeps nobody waiting, either.
#[test]
fn a13_idle_queues_are_visited_while_long_frames_are_handed_over() {
    let _alone = alone();
    let mut net = Net::new(2, 8192);
    net.add(0, OffloadSet::NONE);
    (0..RECEIVERS).for_each(|_| drop(net.add(1, OffloadSet::NONE)));
    let silent = net.add(1, OffloadSet::NONE);
    let crowd = Crowd { net, silent: vec![silent] };
    assert_short(crowd.gaps(tcp(Mac::BROADCAST, mac(0), LONG, 0)), 1);
    crowd.net.settle();
}

/// A segment of a flooded packet is the same as its receivers would have cut it, and the sums agree.
#[test]
fn a13_a_flooded_packet_is_cut_once() {
    let _alone = alone();
    let crowd = Crowd::new(1);
    let hog = &crowd.net.ports[0];
    hog.send(tcp(Mac::BROADCAST, mac(0), LONG, 1448));
    hog.send(tcp(Mac::BROADCAST, mac(0), 100, 0));
    crowd.net.settle();
    let segments = LONG.div_ceil(1448) as u64;
    for port in &crowd.net.ports[1..] {
        assert_eq!((port.packets(), port.wire.cut.load(SeqCst)), (segments + 1, 0));
        assert_eq!(port.wire.bytes.load(SeqCst), LONG as u64 + segments * 54 + 154);
    }
}

/// Fair in time: who floods long frames to ten ports has a tenth of the frames of one who sends them to one.
#[test]
fn s13_two_hogs_share_time_and_not_packets() {
    let _alone = alone();
    let mut net = Net::new(1, 8192);
    (0..=RECEIVERS + 2).for_each(|_| drop(net.add(0, OffloadSet::NONE)));
    let sent = |n: usize| net.totals_of(&net.ports[n]).rx_packets;
    *net.ports[0].wire.endless.lock().unwrap() = Some(tcp(Mac::BROADCAST, mac(0), LONG, 0));
    *net.ports[1].wire.endless.lock().unwrap() = Some(tcp(mac(2), mac(1), LONG, 0));
    eventually("the hog floods", || sent(0) > 200);
    let before = [sent(0), sent(1)];
    std::thread::sleep(Duration::from_millis(1500));
    let [flooded, straight] = [sent(0) - before[0], sent(1) - before[1]];
    net.ports[..2].iter().for_each(|p| *p.wire.endless.lock().unwrap() = None);
    assert!(straight > 4 * flooded && flooded > 0, "{straight} beside {flooded}");
    net.settle();
}

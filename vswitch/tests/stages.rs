//! Cycles by stage: counted while that is asked for, each packet in each stage, and not otherwise.

mod fake;

use std::time::{Duration, Instant};

use fake::{Net, frame, mac};
use vswitch::{LcoreStages, Mac, Placement, Stage, StageCount};

const FRAMES: u32 = 1000;

/// Switches over, and waits until every lcore has turned since.
fn set_stages(net: &Net, on: bool) {
    net.switch.set_stages(on);
    let polls = || net.switch.stats().lcores.iter().map(|l| l.polls).collect::<Vec<_>>();
    let (before, start) = (polls(), Instant::now());
    while polls().iter().zip(&before).any(|(now, then)| now < &(then + 3)) {
        assert!(start.elapsed() < Duration::from_secs(20), "an lcore stands still");
        std::thread::yield_now();
    }
}

/// Sends frames from the first port's station to the second one's and the third one's in turn.
fn send(net: &Net) {
    (0..FRAMES).for_each(|n| net.ports[0].send(frame(mac(1 + n % 2), mac(0), n)));
    net.settle();
}

/// A station behind each of three ports, on lcores as told.
fn net(lcores: usize, on: [usize; 3]) -> Net {
    let mut net = Net::new(lcores);
    for (n, lcore) in on.into_iter().enumerate() {
        net.add(&format!("p{n}"), 1, &Placement { lcores: vec![lcore] });
    }
    for (n, port) in net.ports.iter().enumerate() {
        port.send(frame(Mac::BROADCAST, mac(n as u32), 0));
        net.settle();
    }
    net
}

fn numbers(net: &Net) -> [u16; 3] {
    [0, 1, 2].map(|at: usize| net.ports[at].id.number())
}

/// What is counted while the frames are sent.
fn counted(net: &Net) -> Vec<LcoreStages> {
    let before = net.switch.stages();
    send(net);
    net.switch.stages().into_iter().zip(&before).map(|(now, then)| now.since(then)).collect()
}

#[test]
fn each_packet_is_counted_in_each_stage() {
    let net = net(1, [0; 3]);
    let [from, to, other] = numbers(&net);
    set_stages(&net, true);
    let stages = &counted(&net)[0];
    let all = u64::from(FRAMES);
    for (stage, packets) in [
        (Stage::Receive(from), all),
        (Stage::LookUp, all),
        (Stage::Sort, all),
        (Stage::Transmit(to), all / 2),
        (Stage::Transmit(other), all / 2),
        (Stage::Publish, all),
    ] {
        let count = stages.count(stage);
        assert_eq!(count.packets, packets, "{stage:?}");
        assert!(count.cycles > 0 && count.times > 0, "{stage:?}: {count:?}");
    }
    assert!(stages.count(Stage::Empty).times > 0);
    assert_eq!(stages.iter().count(), 7, "nothing else happened: {:?}", stages.iter().collect::<Vec<_>>());
}

#[test]
fn a_hand_over_is_counted_at_both_ends() {
    let net = net(2, [0, 1, 0]);
    let [from, to, other] = numbers(&net);
    set_stages(&net, true);
    let [near, far] = &counted(&net)[..] else { panic!("two lcores") };
    let half = u64::from(FRAMES) / 2;
    assert_eq!(near.count(Stage::Receive(from)).packets, 2 * half);
    assert_eq!(near.count(Stage::HandOver).packets, half);
    assert_eq!(near.count(Stage::Transmit(other)).packets, half);
    assert_eq!(near.count(Stage::Transmit(to)), StageCount::default());
    assert_eq!(far.count(Stage::TakeOver).packets, half);
    assert_eq!(far.count(Stage::Transmit(to)).packets, half);
    assert_eq!(far.count(Stage::LookUp), StageCount::default(), "looked up where they came in");
}

#[test]
fn nothing_is_counted_when_it_is_off() {
    let net = net(1, [0; 3]);
    assert!(net.switch.stages().iter().all(|l| l.iter().next().is_none()), "off at first");
    set_stages(&net, true);
    send(&net);
    set_stages(&net, false);
    assert!(counted(&net).iter().all(|l| l.iter().next().is_none()));
    net.assert_exact();
}

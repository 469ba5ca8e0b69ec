//! S17: ports come and go while packets flow, and nobody else loses one.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use fake::{FakePort, Net, UNTAGGED, frame, mac, tag};
use pmd::{PortCounters, Queues};
use vswitch::{Mac, Placement, SwitchError};

/// Frames on their way at most: what the ring between two lcores holds, and no receiver has to lose one.
const WINDOW: u64 = 512;

/// Sends numbered frames from one port to another until told to stop; returns how many.
fn flow(from: FakePort, src: u32, to: FakePort, dst: u32, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    std::thread::spawn(move || {
        let mut sent = 0;
        while !stop.load(SeqCst) {
            if u64::from(sent) < to.wires[0].tagged.load(SeqCst) + WINDOW {
                (0..32).for_each(|n| from.send(frame(mac(dst), mac(src), sent + n)));
                sent += 32;
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        sent
    })
}

fn come_and_go(lcores: usize, times: usize) {
    let mut net = Net::with_ports(lcores, 2);
    let (a, b) = (net.ports[0].clone(), net.ports[1].clone());
    // Both are known before anybody comes, so that no flood reaches the guest ports but on purpose.
    a.send(frame(mac(2), mac(1), UNTAGGED));
    b.send(frame(mac(1), mac(2), UNTAGGED));
    net.settle();
    a.received();
    b.received();
    let stop = Arc::new(AtomicBool::new(false));
    let flows = [
        flow(a.clone(), 1, b.clone(), 2, Arc::clone(&stop)),
        flow(b.clone(), 2, a.clone(), 1, Arc::clone(&stop)),
    ];
    let mut got = [Vec::new(), Vec::new()];
    for n in 0..times {
        let visitor = net.add("visitor", 1 + n % 2, &Placement::default());
        visitor.send(frame(mac(1), mac(100 + n as u32 % 7), UNTAGGED));
        a.send(frame(mac(100 + n as u32 % 7), mac(1), UNTAGGED));
        if n % 3 == 0 {
            std::thread::yield_now();
        }
        let home = net.switch.remove_port(visitor.id).unwrap();
        assert_eq!((home.rx.len(), home.tx.len()), (1 + n % 2, 1 + n % 2), "the halves come home");
        assert_eq!(net.switch.fdb().held_by(visitor.id), 0);
        assert!(matches!(net.switch.remove_port(visitor.id), Err(SwitchError::NoSuchPort(_))));
        net.ports.pop();
        got[0].extend(a.received());
        got[1].extend(b.received());
    }
    stop.store(true, SeqCst);
    let sent = flows.map(|f| f.join().unwrap());
    net.settle();
    got[0].extend(a.received());
    got[1].extend(b.received());
    for (got, sent) in got.iter().zip([sent[1], sent[0]]) {
        let tags: Vec<_> = got.iter().map(|f| tag(f)).filter(|t| *t != UNTAGGED).collect();
        assert!(tags.iter().copied().eq(0..sent), "{} of {sent} in order", tags.len());
    }
    net.assert_exact();
}

#[test]
fn s17_a_thousand_times_on_one_lcore() {
    come_and_go(1, 1000);
}

#[test]
fn s17_a_thousand_times_on_two_lcores() {
    come_and_go(2, 1000);
}

#[test]
fn a_port_that_could_not_be_opened_gives_its_number_back() {
    let mut net = Net::new(1);
    let id = net.switch.reserve_port("a").unwrap();
    assert!(matches!(net.switch.reserve_port("a"), Err(SwitchError::DuplicateName(_))));
    assert!(!net.switch.ports()[0].attached);
    let queues = net.switch.remove_port(id).unwrap();
    assert!(queues.rx.is_empty() && queues.tx.is_empty());
    assert!(matches!(
        net.switch.attach(id, Queues::default(), PortCounters::default()),
        Err(SwitchError::NoSuchPort(_))
    ));
    assert!(net.switch.ports().is_empty());
}

#[test]
fn ports_are_attached_once_and_where_there_are_lcores() {
    let mut net = Net::with_ports(2, 1);
    let id = net.ports[0].id;
    let again = net.switch.attach(id, Queues::default(), PortCounters::default());
    assert!(matches!(again, Err(SwitchError::AlreadyAttached(_))));
    let id = net.switch.reserve_port("b").unwrap();
    let placement = Placement { lcores: vec![7] };
    let wrong = net.switch.attach_placed(id, Queues::default(), PortCounters::default(), &placement);
    assert!(matches!(wrong, Err(SwitchError::NoSuchLcore(7))));
}

#[test]
fn stopping_brings_all_halves_home() {
    let mut net = Net::new(2);
    for n in 0..5 {
        net.add(&format!("p{n}"), n + 1, &Placement::default());
    }
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    let home = net.switch.stop().unwrap();
    let counts: Vec<_> = home.iter().map(|(_, q)| (q.rx.len(), q.tx.len())).collect();
    assert_eq!(counts, [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
}

//! Starting, pinning, idling and stopping of lcores.

mod fake;

use std::time::{Duration, Instant};

use fake::{Net, frame, mac};
use vswitch::{IdlePolicy, LcoreConfig, Mac, Placement, Switch, SwitchConfig, SwitchError};

fn config(lcores: &[(usize, Option<usize>)]) -> SwitchConfig {
    let lcores = lcores.iter().map(|(id, cpu)| LcoreConfig { id: *id, cpu: *cpu }).collect();
    SwitchConfig { lcores, ..SwitchConfig::default() }
}

fn error(config: SwitchConfig) -> SwitchError {
    match Switch::start(config) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn bad_lcores_are_named() {
    assert!(matches!(error(config(&[])), SwitchError::NoLcores));
    assert!(matches!(error(config(&[(3, None), (3, None)])), SwitchError::DuplicateLcore(3)));
    let no_such_cpu = error(config(&[(0, None), (1, Some(1023))])).to_string();
    assert!(no_such_cpu.contains("1023") && no_such_cpu.contains("allowed"), "{no_such_cpu}");
    let many: Vec<_> = (0..65).map(|id| (id, None)).collect();
    assert!(matches!(error(config(&many)), SwitchError::TooManyLcores(65)));
}

#[test]
fn a_pinned_lcore_runs_where_it_was_put() {
    let cpus = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..1024).find(|c| cpus.is_set(*c)).unwrap();
    let switch = Switch::start(config(&[(7, Some(cpu))])).unwrap();
    let stats = switch.stats().lcores[0];
    assert_eq!((stats.id, stats.cpu), (7, Some(cpu)));
    let task = std::fs::read_dir("/proc/self/task").unwrap().find_map(|t| {
        let path = t.unwrap().path();
        let is_it = std::fs::read_to_string(path.join("comm")).is_ok_and(|c| c.trim() == "lcore7");
        is_it.then(|| std::fs::read_to_string(path.join("status")).unwrap())
    });
    let status = task.expect("a thread of the lcore's name");
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(allowed.trim(), cpu.to_string());
}

#[test]
fn an_idle_lcore_sleeps_and_wakes() {
    let net = Net::with_ports(1, 2);
    let polls = || net.switch.stats().lcores[0].polls;
    let start = Instant::now();
    loop {
        let before = polls();
        std::thread::sleep(Duration::from_millis(20));
        if polls() - before <= 20_000 / 50 {
            break;
        }
        assert!(start.elapsed().as_secs() < 20, "it never naps");
    }
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    net.settle();
    assert_eq!(net.ports[1].received().len(), 1);
    let stats = net.switch.stats().lcores[0];
    assert_eq!(stats.packets, 1);
    assert!(stats.idle_cycles > stats.busy_cycles);
}

/// Queue n of a port's is turned by the n-th lcore from the port's own on. What stays with one lcore goes through no ring; what
/// another one owns the receiver of goes through one, that is, is counted by two lcores.
#[test]
fn queues_spread_over_lcores_and_a_handover_costs_one_ring() {
    const PACKETS: u64 = 100;
    for lcores in 1..=4 {
        let mut net = Net::new(lcores);
        let a = net.add("a", lcores, &Placement::default());
        let b = net.add("b", 1, &Placement::default());
        b.send(frame(Mac::BROADCAST, mac(2), 0));
        net.settle();
        let counted = || net.switch.stats().lcores.iter().map(|l| l.packets).collect::<Vec<_>>();
        let before = counted();
        for wire in &a.wires {
            (0..PACKETS as u32).for_each(|n| wire.send(frame(mac(2), mac(1), n)));
        }
        net.settle();
        let gained: Vec<_> = counted().iter().zip(&before).map(|(now, before)| now - before).collect();
        let mut expected = vec![PACKETS; lcores];
        expected[usize::from(b.id.number()) % lcores] += PACKETS * (lcores as u64 - 1);
        assert_eq!(gained, expected, "{lcores} lcores");
        assert_eq!(b.received().len() as u64, PACKETS * lcores as u64);
        net.assert_exact();
    }
}

#[test]
fn spinning_lcores_end_too() {
    let switch = Switch::start(SwitchConfig { idle: IdlePolicy::Spin, ..config(&[(0, None)]) }).unwrap();
    assert!(switch.stop().unwrap().is_empty());
}

/// S20: the control path stays responsive and says who it waits for; what was asked for can be asked for again.
#[test]
fn s20_an_lcore_that_stands_still_is_named() {
    let mut net = Net::new(2);
    let on = |lcore| Placement { lcores: vec![lcore] };
    net.add("a", 1, &on(0));
    let stuck = net.add("b", 1, &on(1));
    net.switch.set_patience(Duration::from_millis(100));
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    net.settle();
    let wire = stuck.wires[0].clone();
    let held = wire.hold();
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 1));
    let start = Instant::now();
    while net.ports[0].wires[0].waiting() > 0 || net.switch.stats().lcores[0].packets < 2 {
        assert!(start.elapsed().as_secs() < 10);
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(50));
    let removed = net.switch.remove_port(stuck.id);
    assert!(matches!(removed, Err(SwitchError::NotQuiescing(1, _))), "{removed:?}");
    assert!(
        net.switch.ports().iter().any(|p| p.id == stuck.id && !p.attached),
        "it keeps its number meanwhile"
    );
    drop(held);
    net.switch.set_patience(Duration::from_secs(10));
    let home = net.switch.remove_port(stuck.id).unwrap();
    assert_eq!((home.rx.len(), home.tx.len()), (1, 1));
    net.ports.pop();
    net.settle();
    net.assert_exact();
}

#[test]
fn who_only_looks_does_not_wait_for_an_lcore() {
    let mut net = Net::new(1);
    net.add("a", 1, &Placement::default());
    let stuck = net.add("b", 1, &Placement::default());
    let wire = stuck.wires[0].clone();
    let held = wire.hold();
    net.ports[0].send(frame(Mac::BROADCAST, mac(1), 0));
    while net.ports[0].wires[0].waiting() > 0 {
        std::thread::yield_now();
    }
    let view = net.switch.view().clone();
    let remover = std::thread::spawn(move || {
        let home = net.switch.remove_port(stuck.id);
        (net, home)
    });
    let start = Instant::now();
    while view.ports().iter().any(|p| p.id == stuck.id && p.attached) {
        assert!(start.elapsed() < Duration::from_secs(5), "the removal never began");
        std::thread::yield_now();
    }
    let stats = view.stats();
    assert_eq!(stats.ports.len(), 2, "the port is there as long as it is waited for");
    view.set_stages(true);
    assert_eq!((view.stages().len(), view.port_by_name("b")), (1, Some(stuck.id)));
    assert!(!remover.is_finished(), "the removal still waits");
    drop(held);
    let (mut net, home) = remover.join().unwrap();
    assert_eq!(home.unwrap().tx.len(), 1);
    net.ports.pop();
    net.settle();
    net.assert_exact();
    drop(net);
    assert_eq!(view.stats().ports.len(), 1, "it outlives the switch");
}

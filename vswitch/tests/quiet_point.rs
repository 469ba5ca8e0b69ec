//! S21: at a quiet point the sums agree exactly, whatever happened before.

mod fake;

use std::sync::atomic::Ordering::SeqCst;

use fake::{Net, frame, mac, numbers};
use pmd::DropReason;
use vswitch::{Mac, Placement};

/// Frames of all kinds from everybody to everybody, nobody and all.
fn any_traffic(net: &Net, frames: u32, seed: u64) {
    let mut next = numbers(seed);
    let ports = net.ports.len() as u64;
    for n in 0..frames {
        let (from, to) = (next() % ports, next() % (ports + 2));
        let dst = match next() % 20 {
            0 => Mac::BROADCAST,
            1 => Mac([0x01, 0x80, 0xc2, 0, 0, 3]),
            _ => mac(to as u32 * 10 + (next() % 3) as u32),
        };
        let src = mac(from as u32 * 10 + (next() % 3) as u32);
        let bytes = if next().is_multiple_of(50) { vec![0; 9] } else { frame(dst, src, n) };
        let port = &net.ports[from as usize];
        port.wires[next() as usize % port.wires.len()].send(bytes);
        if n % 64 == 0 {
            std::thread::yield_now();
        }
    }
}

fn run(lcores: usize, queues: usize, seed: u64) {
    let mut net = Net::new(lcores);
    for n in 0..5 {
        net.add(&format!("p{n}"), queues, &Placement::default());
    }
    net.ports[3].wires[0].room.store(100, SeqCst);
    net.ports[4].wires[0].ready.store(false, SeqCst);
    for round in 0..4 {
        any_traffic(&net, 3000, seed + round);
        net.settle();
        net.assert_exact();
        let (got, totals) = (net.ports.iter().map(|p| p.received().len() as u64).sum::<u64>(), net.totals());
        let counted: u64 = net.ports.iter().flat_map(|p| &p.counters.tx).map(|q| q.packets.get()).sum();
        assert_eq!(totals.tx_packets, counted);
        assert!(got > 0 && totals.rx_packets == 3000 * (round + 1));
        assert_eq!(
            totals.rx_bytes,
            net.ports.iter().flat_map(|p| &p.counters.rx).map(|q| q.bytes.get()).sum::<u64>()
        );
    }
    let totals = net.totals();
    for reason in
        [DropReason::ReservedGroup, DropReason::SamePort, DropReason::RxTooShort, DropReason::TxFull]
    {
        assert_ne!(totals.dropped(reason), 0, "{}", reason.name());
    }
    let mut switch = net.switch;
    let ids: Vec<_> = switch.ports().iter().map(|p| p.id).collect();
    for id in ids {
        switch.remove_port(id).unwrap();
    }
    assert_eq!(switch.stats().totals(), totals, "removed ports stay in the sums");
}

#[test]
fn s21_one_lcore_one_queue() {
    run(1, 1, 1);
}

#[test]
fn s21_two_lcores_that_hand_over() {
    run(2, 1, 2);
}

#[test]
fn s21_three_lcores_and_two_queues() {
    run(3, 2, 3);
}

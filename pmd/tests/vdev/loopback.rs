#![expect(unsafe_code, reason = "a borrowed tail has an unsafe constructor")]
// UNSAFETY: one tail segment, on a vector that outlives the packet.

use std::ptr::NonNull;

use mbuf::{Burst, TailSegment};
use pmd::vdev::loopback::{LoopbackPort, pair};
use pmd::{DropReason, Link, Port, QueueEnv};

use crate::frames::{burst, bytes, numbered, numbers, pool};

#[test]
fn what_is_sent_arrives_in_order_and_is_counted() {
    let pool = pool(256);
    let (mut a, mut b) = pair(2, 64).unwrap();
    let mut aq = a.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut bq = b.open(QueueEnv { pool, port: 2 }).unwrap();
    for queue in 0..2 {
        let mut sent = burst(pool, 20);
        assert_eq!(aq.tx[queue].tx_burst(&mut sent), 20);
        let mut got = Burst::new();
        assert_eq!(bq.rx[queue].rx_burst(&mut got), 20);
        assert_eq!(numbers(&got), (0..20).collect::<Vec<u8>>());
        assert!(got.iter().all(|m| m.port() == 2));
        assert_eq!(b.counters().rx[queue].bytes.get(), 1200);
        assert_eq!(a.counters().tx[queue].packets.get(), 20);
    }
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn what_does_not_fit_stays_in_the_burst() {
    let pool = pool(256);
    let mut port = LoopbackPort::to_itself(10).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 1 }).unwrap();
    let mut sent = burst(pool, 16);
    assert_eq!(q.tx[0].tx_burst(&mut sent), 10);
    assert_eq!(numbers(&sent), (10..16).collect::<Vec<u8>>());
    let mut got = Burst::new();
    assert_eq!(q.rx[0].rx_burst(&mut got), 10);
    assert_eq!(numbers(&got), (0..10).collect::<Vec<u8>>());
    assert_eq!(q.tx[0].tx_burst(&mut sent), 6);
    assert_eq!(port.counters().tx[0].packets.get(), 16);
}

#[test]
fn borrowed_tails_are_owned_and_shared_packets_part() {
    let pool = pool(16);
    let mut port = LoopbackPort::to_itself(8).unwrap();
    let mut q = port.open(QueueEnv { pool, port: 7 }).unwrap();
    let mut foreign = vec![9u8; 5000];
    // SAFETY: `foreign` outlives the packet and is not freed before the test's end.
    let tail = [unsafe { TailSegment::new(NonNull::new(foreign.as_mut_ptr()).unwrap(), 5000) }];
    let mut sent = Burst::new();
    let mut tailed = numbered(pool, 1, 64);
    assert!(tailed.set_tail(&tail));
    let shared = numbered(pool, 2, 64);
    let sharer = shared.share();
    sent.push(tailed).unwrap();
    sent.push(shared).unwrap();
    assert_eq!(q.tx[0].tx_burst(&mut sent), 2);
    foreign.fill(0);
    let mut got = Burst::new();
    assert_eq!(q.rx[0].rx_burst(&mut got), 2);
    assert!(bytes(&got[0])[64..].iter().all(|b| *b == 9) && got[0].len() == 5064);
    assert_eq!((got[1].port(), sharer.port()), (7, 0));
    drop((got, sharer));
    assert_eq!(pool.balance().out, 0);
}

#[test]
fn when_the_peer_is_gone_the_link_is_down() {
    let pool = pool(16);
    let (mut a, b) = pair(1, 8).unwrap();
    let mut q = a.open(QueueEnv { pool, port: 1 }).unwrap();
    assert!(a.link() == Link::Up && q.tx[0].is_ready());
    drop(b);
    assert!(a.link() == Link::Down && !q.tx[0].is_ready());
    assert_eq!(q.tx[0].tx_burst(&mut burst(pool, 2)), 2);
    assert_eq!(a.counters().tx[0].drops[DropReason::TxNotReady as usize].get(), 2);
}

#[test]
fn a_ring_of_no_packets_is_refused() {
    assert!(pair(1, 0).unwrap_err().to_string().contains("capacity 0"));
    assert!(pair(0, 8).unwrap_err().to_string().contains("1 to 16"));
}

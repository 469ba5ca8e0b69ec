//! Real threads on real memory: nothing lost, nothing twice, each producer's elements in order.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use ring::{Capacity, Mpmc, spsc};

/// Elements per producer.
const EACH: u64 = if cfg!(miri) { 200 } else { 20_000 };
const PRODUCERS: u64 = 2;
const CONSUMERS: usize = 2;

/// Puts `EACH` boxed elements in, labelled with `producer` in the upper half, in bursts of up to 7.
fn produce(ring: &Mpmc<Box<u64>>, producer: u64) {
    let mut next = 0;
    let mut burst = Vec::with_capacity(7);
    while next < EACH || !burst.is_empty() {
        while burst.len() < burst.capacity() && next < EACH {
            burst.push(Box::new(producer << 32 | next));
            next += 1;
        }
        if ring.enqueue_burst_from(&mut burst).0 == 0 {
            thread::yield_now();
        }
    }
}

/// Takes elements out until all consumers together have `PRODUCERS * EACH`; returns this one's, in order.
fn consume(ring: &Mpmc<Box<u64>>, taken: &AtomicUsize) -> Vec<u64> {
    let mut all = Vec::new();
    let mut burst = Vec::with_capacity(5);
    while taken.load(Relaxed) < (PRODUCERS * EACH) as usize {
        let count = ring.dequeue_burst_into(&mut burst, 5).0;
        if count == 0 {
            thread::yield_now();
        }
        taken.fetch_add(count, Relaxed);
        all.extend(burst.drain(..).map(|v| *v));
    }
    all
}

#[test]
fn mpmc_loses_and_doubles_nothing() {
    let ring = Arc::new(Mpmc::new(Capacity::Exact(13)).unwrap());
    let taken = AtomicUsize::new(0);
    let mut all = thread::scope(|threads| {
        for producer in 0..PRODUCERS {
            let ring = Arc::clone(&ring);
            threads.spawn(move || produce(&ring, producer));
        }
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| threads.spawn(|| consume(&ring, &taken))).collect();
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect::<Vec<_>>()
    });
    for one in &all {
        for producer in 0..PRODUCERS {
            assert!(
                one.iter().filter(|&&v| v >> 32 == producer).is_sorted(),
                "a producer's elements keep their order"
            );
        }
    }
    let mut all: Vec<u64> = all.drain(..).flatten().collect();
    all.sort_unstable();
    let expected = (0..PRODUCERS).flat_map(|producer| (0..EACH).map(move |n| producer << 32 | n));
    assert!(all.into_iter().eq(expected));
    assert!(ring.is_empty());
}

#[test]
fn spsc_keeps_the_order() {
    let (mut tx, mut rx) = spsc::channel(Capacity::PowerOfTwo(8)).unwrap();
    thread::scope(|threads| {
        threads.spawn(move || {
            let mut next = 0;
            while next < EACH {
                let burst: Vec<u64> = (next..EACH.min(next + 5)).collect();
                next += tx.enqueue_burst(&burst).0 as u64;
                if tx.free() == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut burst = Vec::with_capacity(3);
        let mut next = 0;
        while next < EACH {
            if rx.dequeue_burst_into(&mut burst, 3).0 == 0 {
                thread::yield_now();
            }
            for v in burst.drain(..) {
                assert_eq!(v, next);
                next += 1;
            }
        }
    });
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn what_is_inside_is_dropped_with_the_ring() {
    let drops = Arc::new(AtomicUsize::new(0));
    let many = || (0..5).map(|_| Counted(drops.clone())).collect::<Vec<_>>();

    let ring = Mpmc::new(Capacity::Exact(6)).unwrap();
    ring.enqueue_bulk_from(&mut many()).unwrap();
    drop(ring.pop());
    drop(ring.pop());
    let mut more = many();
    assert_eq!(ring.enqueue_burst_from(&mut more).0, 3);
    drop(ring);
    assert_eq!((drops.load(Relaxed), more.len()), (8, 2));
    drop(more);

    let (mut tx, mut rx) = spsc::channel(Capacity::PowerOfTwo(8)).unwrap();
    tx.enqueue_bulk_from(&mut many()).unwrap();
    drop(rx.pop());
    drop(rx);
    assert_eq!(drops.load(Relaxed), 11, "the producer may still put some in");
    tx.push(Counted(drops.clone())).unwrap_or_else(|_| panic!("room"));
    drop(tx);
    assert_eq!(drops.load(Relaxed), 16);
}

//! All interleavings that loom can think of, on very small rings.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p polder-ring --release --test loom`
//!
//! Nobody retries, so every model ends: what a producer could not put in and what nobody took is counted at
//! the end. Most MPMC models bound the number of preemptions ([`bounded`]), so that all together end within a
//! minute on one core; the others are exhaustive. Weakening any one ordering of the crate's table to Relaxed fails at least
//! one model.
#![cfg(loom)]

use std::mem::MaybeUninit;
use std::sync::Mutex;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use ring::{Capacity, Mpmc, spsc};

/// Explores what at most `preemptions` involuntary switches can reach.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Puts two labelled elements in, one by one. Returns those that went in.
fn produce(ring: &Mpmc<Box<u32>>, label: u32) -> Vec<u32> {
    [label, label + 1].into_iter().filter(|&v| ring.push(Box::new(v)).is_ok()).collect()
}

/// Puts `count` labelled elements in, in one burst. Returns those that went in.
fn produce_burst(ring: &Mpmc<Box<u32>>, label: u32, count: usize) -> Vec<u32> {
    let mut src: Vec<_> = (label..).take(count).map(Box::new).collect();
    let (count, _) = ring.enqueue_burst_from(&mut src);
    (label..).take(count).collect()
}

/// Takes up to two elements out, in one burst.
fn consume(ring: &Mpmc<Box<u32>>) -> Vec<u32> {
    let mut taken = Vec::with_capacity(2);
    ring.dequeue_burst_into(&mut taken, 2);
    taken.into_iter().map(|v| *v).collect()
}

/// Empties a ring that nobody else uses any more.
fn drain(ring: &Mpmc<Box<u32>>) -> Vec<u32> {
    std::iter::from_fn(|| ring.pop()).map(|v| *v).collect()
}

/// What came out, by whoever took it, must be what went in, and in order for each producer within one
/// consumer.
fn check(put: Vec<Vec<u32>>, taken: &[Vec<u32>]) {
    for one in taken {
        for label in [10, 20] {
            assert!(one.iter().filter(|&&v| v / 10 * 10 == label).is_sorted());
        }
    }
    let sorted = |all: &mut dyn Iterator<Item = u32>| {
        let mut all: Vec<u32> = all.collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sorted(&mut put.into_iter().flatten()), sorted(&mut taken.iter().flatten().copied()));
}

/// Two producers that put `each` in and two consumers that take a burst, on a ring that holds one element.
fn two_by_two(capacity: usize, each: usize) {
    let ring = Arc::new(Mpmc::new(Capacity::PowerOfTwo(capacity)).unwrap());
    ring.push(Box::new(0)).unwrap();
    let producer = thread::spawn({
        let ring = ring.clone();
        move || produce_burst(&ring, 10, each)
    });
    let consumers = [(); 2].map(|()| {
        let ring = ring.clone();
        thread::spawn(move || consume(&ring))
    });
    let mut put = vec![vec![0], produce_burst(&ring, 20, each)];
    put.push(producer.join().unwrap());
    let mut taken: Vec<Vec<u32>> = consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect();
    taken.push(drain(&ring));
    check(put, &taken);
}

#[test]
fn mpmc_two_producers_two_consumers_capacity_2() {
    bounded(2, || two_by_two(2, 1));
}

#[test]
fn mpmc_two_producers_two_consumers_capacity_4() {
    bounded(1, || two_by_two(4, 2));
}

/// Fewer threads, more preemptions: two producers, the main thread consumes.
#[test]
fn mpmc_two_producers_one_consumer() {
    bounded(3, || {
        let ring = Arc::new(Mpmc::new(Capacity::PowerOfTwo(2)).unwrap());
        let producers = [10, 20].map(|label| {
            let ring = ring.clone();
            thread::spawn(move || produce(&ring, label))
        });
        let mut taken = vec![consume(&ring), consume(&ring)];
        let put = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
        taken.push(drain(&ring));
        check(put, &taken);
    });
}

/// The fault of November 2025: a head from another thread beside an older opposite tail makes room that isn't
/// there. Producers refill what the main thread takes; the room left must never exceed the capacity.
#[test]
fn mpmc_room_is_never_overcounted() {
    bounded(2, || {
        let ring = Arc::new(Mpmc::new(Capacity::Exact(1)).unwrap());
        ring.push(0).unwrap();
        let others = [(); 2].map(|()| {
            let ring = ring.clone();
            thread::spawn(move || (ring.pop(), ring.enqueue_burst(&[1, 2])))
        });
        let mut inside = ring.len();
        assert!(inside <= 1);
        for other in others {
            let (_, (count, left)) = other.join().unwrap();
            assert!(count <= 1 && count + left.0 <= 1);
        }
        inside = ring.len();
        let mut out = [MaybeUninit::uninit(); 4];
        assert_eq!(ring.dequeue_burst(&mut out).0, inside);
    });
}

/// A bystander's two loads may lie apart, but never the wrong way round.
#[test]
fn mpmc_len_stays_within_what_was_put_in() {
    loom::model(|| {
        let ring = Arc::new(Mpmc::new(Capacity::PowerOfTwo(4)).unwrap());
        let other = thread::spawn({
            let ring = ring.clone();
            move || (ring.push(1).is_ok(), ring.pop())
        });
        assert!(ring.len() <= 1);
        assert_eq!(other.join().unwrap(), (true, Some(1)));
    });
}

#[test]
fn spsc_single() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(Capacity::PowerOfTwo(2)).unwrap();
        let producer =
            thread::spawn(move || (0..3_u32).take_while(|&v| tx.push(Box::new(v)).is_ok()).count());
        let mut taken: Vec<u32> = (0..3).filter_map(|_| rx.pop()).map(|v| *v).collect();
        let put = producer.join().unwrap();
        taken.extend(std::iter::from_fn(|| rx.pop()).map(|v| *v));
        assert!(taken.into_iter().eq(0..put as u32));
    });
}

#[test]
fn spsc_bulk_and_burst() {
    loom::model(|| {
        let (mut tx, mut rx) = spsc::channel(Capacity::Exact(3)).unwrap();
        let producer = thread::spawn(move || {
            assert!(tx.enqueue_bulk(&[0_u32, 1]).is_some());
            2 + tx.enqueue_burst(&[2, 3]).0
        });
        let mut taken = Vec::with_capacity(8);
        assert!(rx.len() <= 3 && rx.free() <= 3);
        rx.dequeue_bulk_into(&mut taken, 2);
        rx.dequeue_burst_into(&mut taken, 2);
        let put = producer.join().unwrap();
        rx.dequeue_burst_into(&mut taken, 4);
        assert!(taken.into_iter().eq(0..put as u32));
    });
}

/// Counts drops outside of loom: the count is looked at after all threads have ended.
struct Counted(std::sync::Arc<Mutex<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

#[test]
fn mpmc_drops_what_is_inside() {
    bounded(2, || {
        let drops = std::sync::Arc::new(Mutex::new(0));
        let ring = Arc::new(Mpmc::new(Capacity::PowerOfTwo(2)).unwrap());
        let others = [(); 2].map(|()| {
            let (ring, v) = (ring.clone(), Counted(drops.clone()));
            thread::spawn(move || assert!(ring.push(v).is_ok()))
        });
        drop(ring.pop());
        drop(ring);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*drops.lock().unwrap(), 2);
    });
}

#[test]
fn spsc_drops_what_is_inside_whichever_half_goes_last() {
    loom::model(|| {
        let drops = std::sync::Arc::new(Mutex::new(0));
        let (mut tx, mut rx) = spsc::channel(Capacity::PowerOfTwo(2)).unwrap();
        let all = [Counted(drops.clone()), Counted(drops.clone())];
        let producer = thread::spawn(move || all.into_iter().for_each(|v| assert!(tx.push(v).is_ok())));
        drop(rx.pop());
        drop(rx);
        producer.join().unwrap();
        assert_eq!(*drops.lock().unwrap(), 2);
    });
}

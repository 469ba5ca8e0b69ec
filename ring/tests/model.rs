//! Both rings against a `VecDeque`, one thread, any sequence of operations.
#![cfg(not(loom))]
#![expect(unsafe_code, reason = "reads back what the ring says it has filled")]

use std::collections::VecDeque;
use std::mem::MaybeUninit;

use proptest::prelude::*;
use ring::{Capacity, Left, Mpmc, spsc};

#[derive(Clone, Debug)]
enum Op {
    Push,
    Pop,
    EnqueueBulk(usize),
    EnqueueBurst(usize),
    EnqueueBulkFrom(usize),
    EnqueueBurstFrom(usize),
    DequeueBulk(usize),
    DequeueBurst(usize),
    DequeueBulkInto(usize),
    DequeueBurstInto(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let sized = |f: fn(usize) -> Op| (0..12_usize).prop_map(f);
    prop_oneof![
        Just(Op::Push),
        Just(Op::Pop),
        sized(Op::EnqueueBulk),
        sized(Op::EnqueueBurst),
        sized(Op::EnqueueBulkFrom),
        sized(Op::EnqueueBurstFrom),
        sized(Op::DequeueBulk),
        sized(Op::DequeueBurst),
        sized(Op::DequeueBulkInto),
        sized(Op::DequeueBurstInto),
    ]
}

fn capacity() -> impl Strategy<Value = Capacity> {
    prop_oneof![
        (0..4_u32).prop_map(|n| Capacity::PowerOfTwo(1 << n)),
        (1..11_usize).prop_map(Capacity::Exact)
    ]
}

/// A ring under test beside the queue that it must behave like.
struct Pair<R> {
    ring: R,
    queue: VecDeque<u32>,
    capacity: usize,
    next: u32,
}

/// One match for both rings, whose methods have the same names; `$tx` and `$rx` say which half has them.
macro_rules! step {
    ($pair:ident, $op:ident, $tx:expr, $rx:expr) => {{
        match $op {
            Op::Push => {
                let v = $pair.fresh(1)[0];
                let expected = if $pair.free() > 0 { Ok(()) } else { Err(v) };
                assert_eq!($tx.push(v), expected);
                $pair.queue.extend(expected.map(|()| v));
            }
            Op::Pop => assert_eq!($rx.pop(), $pair.queue.pop_front()),
            Op::EnqueueBulk(n) => {
                let src = $pair.fresh(n);
                let left = $tx.enqueue_bulk(&src);
                $pair.put_bulk(&src, left);
            }
            Op::EnqueueBurst(n) => {
                let src = $pair.fresh(n);
                let done = $tx.enqueue_burst(&src);
                $pair.put_burst(&src, done);
            }
            Op::EnqueueBulkFrom(n) => {
                let src = $pair.fresh(n);
                let mut rest = src.clone();
                let left = $tx.enqueue_bulk_from(&mut rest);
                assert_eq!(rest, if left.is_some() { vec![] } else { src.clone() });
                $pair.put_bulk(&src, left);
            }
            Op::EnqueueBurstFrom(n) => {
                let src = $pair.fresh(n);
                let mut rest = src.clone();
                let done = $tx.enqueue_burst_from(&mut rest);
                assert_eq!(rest, src[done.0..]);
                $pair.put_burst(&src, done);
            }
            Op::DequeueBulk(n) => {
                let mut dst = vec![MaybeUninit::uninit(); n];
                let left = $rx.dequeue_bulk(&mut dst);
                let filled = if left.is_some() { n } else { 0 };
                $pair.take_bulk(n, &initialised(&dst[..filled]), left);
            }
            Op::DequeueBurst(n) => {
                let mut dst = vec![MaybeUninit::uninit(); n];
                let (count, left) = $rx.dequeue_burst(&mut dst);
                $pair.take_burst(n, &initialised(&dst[..count]), left);
            }
            Op::DequeueBulkInto(n) => {
                let mut dst = Vec::with_capacity(n);
                let left = $rx.dequeue_bulk_into(&mut dst, n);
                $pair.take_bulk(n, &dst, left);
            }
            Op::DequeueBurstInto(n) => {
                let mut dst = Vec::with_capacity(n);
                let (count, left) = $rx.dequeue_burst_into(&mut dst, n);
                assert_eq!(count, dst.len());
                $pair.take_burst(n, &dst, left);
            }
        }
        assert_eq!(($rx.len(), $rx.is_empty()), ($pair.queue.len(), $pair.queue.is_empty()));
        assert_eq!(($tx.free(), $tx.capacity()), ($pair.free(), $pair.capacity));
    }};
}

impl<R> Pair<R> {
    fn new(ring: R, capacity: usize) -> Self {
        Self { ring, queue: VecDeque::new(), capacity, next: 0 }
    }

    fn free(&self) -> usize {
        self.capacity - self.queue.len()
    }

    fn fresh(&mut self, n: usize) -> Vec<u32> {
        let start = self.next;
        self.next += n as u32;
        (start..self.next).collect()
    }

    /// `Left` is a lower bound.
    fn check_left(&self, Left(left): Left, expected: usize) {
        assert!(left <= expected, "{left} left, expected {expected} at most");
    }

    fn put_bulk(&mut self, src: &[u32], left: Option<Left>) {
        assert_eq!(left.is_some(), src.len() <= self.free());
        if let Some(left) = left {
            self.queue.extend(src);
            self.check_left(left, self.free());
        }
    }

    fn put_burst(&mut self, src: &[u32], (count, left): (usize, Left)) {
        assert_eq!(count, src.len().min(self.free()));
        self.queue.extend(&src[..count]);
        self.check_left(left, self.free());
    }

    fn take_bulk(&mut self, n: usize, dst: &[u32], left: Option<Left>) {
        assert_eq!(left.is_some(), n <= self.queue.len());
        if let Some(left) = left {
            assert_eq!(dst.len(), n);
            assert!(self.queue.drain(..n).eq(dst.iter().copied()));
            self.check_left(left, self.queue.len());
        } else {
            assert!(dst.is_empty());
        }
    }

    fn take_burst(&mut self, n: usize, dst: &[u32], left: Left) {
        assert_eq!(dst.len(), n.min(self.queue.len()));
        assert!(self.queue.drain(..dst.len()).eq(dst.iter().copied()));
        self.check_left(left, self.queue.len());
    }
}

fn initialised(filled: &[MaybeUninit<u32>]) -> Vec<u32> {
    // SAFETY: callers pass what the ring says it has filled, no more.
    filled.iter().map(|v| unsafe { v.assume_init() }).collect()
}

/// Miri runs the same operations on fewer cases.
fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 8 } else { 256 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn mpmc_is_a_queue(capacity in capacity(), ops in prop::collection::vec(op(), 1..80)) {
        let ring = Mpmc::new(capacity).unwrap();
        let held = ring.capacity();
        let mut pair = Pair::new(ring, held);
        for op in ops {
            step!(pair, op, pair.ring, pair.ring);
        }
    }

    #[test]
    fn spsc_is_a_queue(capacity in capacity(), ops in prop::collection::vec(op(), 1..80)) {
        let halves = spsc::channel(capacity).unwrap();
        let held = halves.0.capacity();
        let mut pair = Pair::new(halves, held);
        for op in ops {
            step!(pair, op, pair.ring.0, pair.ring.1);
        }
    }
}

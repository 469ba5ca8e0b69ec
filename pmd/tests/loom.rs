//! All interleavings that loom can think of, of the gate, and of how a receive queue's lcore goes to sleep and is woken.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p polder-pmd --release --test loom`
//!
//! The gate is the real one. What a kernel does, an eventfd and an epoll set that is watched for edges, is modelled here; so is
//! a peer's side, which is a guest's driver or a card. Weakening any ordering of these to Relaxed fails a model.
#![cfg(loom)]
#![expect(unsafe_code, reason = "reaches what loom watches, and takes up stays")]
// UNSAFETY: loom's cells are reached by pointer, and loom reports whoever is not alone; one `resume` behind its `stay`.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use pmd::gate::{Gate, Inside};

/// A value that loom reports two users at a time of.
type Watched = UnsafeCell<u32>;

fn add_one(inside: &mut Inside<'_, Watched>) -> u32 {
    inside.with_mut(|value| {
        // SAFETY: loom reports it if another thread uses it, too.
        unsafe {
            *value += 1;
            *value
        }
    })
}

#[test]
fn gate_lets_one_in_at_a_time_and_loses_nothing() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Watched::new(0)));
        let data = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                (0..2).filter(|_| gate.try_enter().map(|mut inside| add_one(&mut inside)).is_some()).count()
            }
        });
        add_one(&mut gate.enter());
        let entered = data.join().unwrap();
        assert_eq!(add_one(&mut gate.enter()), entered as u32 + 2);
    });
}

/// A burst stays inside from its first packet to `complete`, which is another call.
#[test]
fn gate_stays_closed_between_stay_and_resume() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Watched::new(0)));
        let data = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                let Some(mut inside) = gate.try_enter() else { return 0 };
                add_one(&mut inside);
                inside.stay();
                // SAFETY: stayed right above.
                let mut inside = unsafe { gate.resume() };
                add_one(&mut inside);
                2
            }
        });
        let seen = add_one(&mut gate.enter());
        let added = data.join().unwrap();
        assert!(seen == 1 || seen == 3, "never in the middle of a stay: {seen}");
        assert_eq!(add_one(&mut gate.enter()), added + 2);
    });
}

/// What the control plane takes out is not used by a burst that begins after that, and not taken out in the middle of one.
#[test]
fn gate_what_is_taken_out_is_out_of_use() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Some(Arc::new(Watched::new(0)))));
        let data = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                for _ in 0..2 {
                    if let Some(inside) = gate.try_enter()
                        && let Some(ring) = inside.as_ref()
                    {
                        // SAFETY: loom reports it if it is used by who took it out, too.
                        ring.with_mut(|value| unsafe { *value += 1 });
                    }
                }
            }
        });
        let ring = gate.enter().take().unwrap();
        // SAFETY: as above.
        let before = ring.with_mut(|value| unsafe { *value });
        data.join().unwrap();
        // SAFETY: as above.
        assert_eq!(ring.with(|value| unsafe { *value }), before, "nobody has used it meanwhile");
    });
}

/// An eventfd in an epoll set, watched for edges: each write makes one, and a wait takes what there is.
struct Edges {
    there: Mutex<bool>,
    came: Condvar,
}

impl Edges {
    fn new() -> Self {
        Self { there: Mutex::new(false), came: Condvar::new() }
    }

    fn write(&self) {
        *self.there.lock().unwrap() = true;
        self.came.notify_one();
    }

    /// Without a time-out: loom reports it if nobody ever writes.
    fn wait(&self) {
        let mut there = self.there.lock().unwrap();
        while !*there {
            there = self.came.wait(there).unwrap();
        }
        *there = false;
    }
}

/// A ring as far as sleep goes: its index, whether its owner wants to be told, and by what.
struct Ring {
    index: AtomicU32,
    armed: AtomicBool,
    edges: Edges,
}

impl Ring {
    fn new() -> Arc<Self> {
        Arc::new(Self { index: AtomicU32::new(0), armed: AtomicBool::new(false), edges: Edges::new() })
    }

    /// The peer: virtio 1.3 2.7.13.4.1, a full fence between moving the index and reading what the device asked for.
    fn put(&self, index: u32) {
        self.index.store(index, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.edges.write();
        }
    }

    /// What `RxQueue::arm` promises: asks to be told, and looks once more. False: there may be something already.
    fn arm(&self, seen: u32) -> bool {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.index.load(Ordering::Relaxed) == seen
    }

    fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// The lcore: takes `all`, and sleeps whenever there is nothing.
    fn take_all(&self, all: u32) {
        let mut seen = 0;
        while seen < all {
            let index = self.index.load(Ordering::Acquire);
            if index != seen {
                seen = index;
                continue;
            }
            if self.arm(seen) {
                self.edges.wait();
            }
            self.disarm();
        }
    }
}

#[test]
fn wake_no_packet_is_slept_through() {
    loom::model(|| {
        let ring = Ring::new();
        let peer = thread::spawn({
            let ring = Arc::clone(&ring);
            move || (1..=2).for_each(|index| ring.put(index))
        });
        ring.take_all(2);
        peer.join().unwrap();
    });
}

/// A peer goes and its ring with it while the lcore sleeps: the control plane nudges, always, behind its change.
#[test]
fn wake_a_change_is_not_slept_through() {
    loom::model(|| {
        let (gate, edges) = (Arc::new(Gate::new(true)), Arc::new(Edges::new()));
        let control = thread::spawn({
            let (gate, edges) = (Arc::clone(&gate), Arc::clone(&edges));
            move || {
                *gate.enter() = false;
                edges.write();
            }
        });
        loop {
            // The control plane inside: the queue refuses to be slept for.
            let Some(there) = gate.try_enter().map(|inside| *inside) else {
                thread::yield_now();
                continue;
            };
            if !there {
                break;
            }
            edges.wait();
        }
        control.join().unwrap();
    });
}

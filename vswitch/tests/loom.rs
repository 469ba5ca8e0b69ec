//! All interleavings that loom can think of, of how lcores are spoken to: mailbox, hand-over, and sleep.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p polder-vswitch --release --test loom`
//!
//! Mailbox, flag and ring are the real ones, their sources compiled in here; the eventfd that ends a sleep is a model. An lcore
//! that sleeps through what was meant for it is a deadlock, which loom reports. Without S1, S2, the last look into the rings, or
//! the flag for what is left in a mailbox, a model fails. B1 and B2 can be weakened: the mailbox's lock orders as much.
#![cfg(loom)]
#![expect(unsafe_code, reason = "reaches what loom watches")]
// UNSAFETY: loom's cells are reached by pointer, and loom reports whoever is not alone.

#[path = "../src/asleep.rs"]
mod asleep;
#[path = "../src/mailbox.rs"]
mod mailbox;
#[path = "../src/sync.rs"]
mod sync;

use asleep::Asleep;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use mailbox::Mailbox;
use ring::Capacity;
use ring::spsc;

/// Explores what at most `preemptions` involuntary switches can reach.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// The doorbell: the real flag, and a model of its eventfd, which the lcore's epoll set watches for edges.
struct Bell {
    asleep: Asleep,
    rung: Mutex<bool>,
    came: Condvar,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { asleep: Asleep::new(), rung: Mutex::new(false), came: Condvar::new() })
    }

    /// As `Doorbell::ring`.
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.came.notify_one();
    }

    /// As `Doorbell::ring_if_asleep`.
    fn ring_if_asleep(&self) {
        if self.asleep.is_to_be_woken() {
            self.ring();
        }
    }

    /// As `Sleeper::sleep`, without a time-out.
    fn sleep(&self, is_quiet: impl FnOnce() -> bool) {
        self.asleep.lie_down();
        if is_quiet() {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.came.wait(rung).unwrap();
            }
            *rung = false;
        }
        self.asleep.get_up();
    }
}

#[test]
fn mailbox_a_command_is_found_with_what_was_written_before_it() {
    loom::model(|| {
        let mailbox = Arc::new(Mailbox::default());
        let written = Arc::new(UnsafeCell::new(0));
        let poster = thread::spawn({
            let (mailbox, written) = (Arc::clone(&mailbox), Arc::clone(&written));
            move || {
                // SAFETY: loom reports it if the other thread uses it, too.
                written.with_mut(|at| unsafe { *at = 7 });
                mailbox.post(1);
            }
        });
        while !mailbox.has_mail() {
            thread::yield_now();
        }
        // It may be refused while the poster holds the box, but then there is mail again.
        loop {
            if let Some(command) = mailbox.take() {
                assert_eq!(command, 1);
                break;
            }
            thread::yield_now();
        }
        // SAFETY: as above.
        assert_eq!(written.with(|at| unsafe { *at }), 7);
        poster.join().unwrap();
    });
}

#[test]
fn mailbox_two_posters_lose_nothing() {
    bounded(2, || {
        let mailbox = Arc::new(Mailbox::default());
        let posters = [1, 2].map(|command| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.post(command))
        });
        let early: Vec<u32> = if mailbox.has_mail() { mailbox.take().into_iter().collect() } else { vec![] };
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        let mut all = early;
        while mailbox.has_mail() {
            all.extend(mailbox.take());
        }
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

/// Posting rings whether the lcore sleeps or not: no command is slept through.
#[test]
fn mail_is_not_slept_through() {
    bounded(3, || {
        let (mailbox, bell) = (Arc::new(Mailbox::default()), Bell::new());
        let poster = thread::spawn({
            let (mailbox, bell) = (Arc::clone(&mailbox), Arc::clone(&bell));
            move || {
                mailbox.post(1);
                bell.ring();
            }
        });
        let mut got = None;
        while got.is_none() {
            if mailbox.has_mail() {
                got = mailbox.take();
                continue;
            }
            bell.sleep(|| !mailbox.has_mail());
        }
        poster.join().unwrap();
    });
}

/// S1, S2: push and ring only if asleep; lie down and look once more.
#[test]
fn handover_is_not_slept_through() {
    bounded(3, || {
        let (mut to, mut from) = spsc::channel(Capacity::PowerOfTwo(4)).unwrap();
        let bell = Bell::new();
        let other = thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                for n in 0..2u32 {
                    to.push(n).unwrap();
                    bell.ring_if_asleep();
                }
            }
        });
        let mut taken = 0;
        while taken < 2 {
            match from.pop() {
                Some(n) => {
                    assert_eq!(n, taken);
                    taken += 1;
                }
                None => bell.sleep(|| from.is_empty()),
            }
        }
        other.join().unwrap();
    });
}

/// Two lcores hand over to a third: one ring wakes for both, and neither is missed.
#[test]
fn handover_from_two_lcores_is_not_slept_through() {
    bounded(2, || {
        let bell = Bell::new();
        let mut rings = Vec::new();
        let others = [1u32, 2].map(|n| {
            let (mut to, from) = spsc::channel(Capacity::PowerOfTwo(2)).unwrap();
            rings.push(from);
            let bell = Arc::clone(&bell);
            thread::spawn(move || {
                to.push(n).unwrap();
                bell.ring_if_asleep();
            })
        });
        let mut sum = 0;
        while sum < 3 {
            let before = sum;
            sum += rings.iter_mut().filter_map(|ring| ring.pop()).sum::<u32>();
            if sum == before {
                bell.sleep(|| rings.iter().all(spsc::Consumer::is_empty));
            }
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// A packet's head as far as the account of what waits goes: `Mbuf::share`, `enter_queue`, `leave_queue` and drop, as there.
struct Head {
    handles: AtomicU32,
    queued: AtomicU32,
}

impl Head {
    fn is_unique(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 1
    }

    fn share(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self) -> bool {
        if self.is_unique() {
            self.queued.store(1, Ordering::Relaxed);
            return true;
        }
        self.queued.fetch_add(1, Ordering::Relaxed) == 0
    }

    fn leave(&self) -> bool {
        if self.is_unique() {
            self.queued.store(0, Ordering::Relaxed);
            return true;
        }
        self.queued.fetch_sub(1, Ordering::Relaxed) == 1
    }

    fn drop_handle(&self) {
        self.handles.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A flood into the rings of two lcores: whoever takes last, and whoever drops first, what the packet holds is taken off as often
/// as it was added, and never before.
#[test]
fn a_flooded_packet_is_taken_off_as_often_as_it_was_added() {
    bounded(3, || {
        let head = Arc::new(Head { handles: AtomicU32::new(1), queued: AtomicU32::new(0) });
        let account = Arc::new(AtomicU32::new(0));
        let mut ways = Vec::new();
        let lcores = [(); 2].map(|()| {
            let (to, mut from) = spsc::channel(Capacity::PowerOfTwo(2)).unwrap();
            ways.push(to);
            let (head, account) = (Arc::clone(&head), Arc::clone(&account));
            thread::spawn(move || {
                let taken = from.pop();
                if let Some(()) = taken {
                    if head.leave() {
                        let before = account.fetch_sub(1, Ordering::Relaxed);
                        assert!(before > 0, "it was added before");
                    }
                    head.drop_handle();
                }
                from
            })
        });
        for way in &mut ways {
            head.share();
            if head.enter() {
                account.fetch_add(1, Ordering::Relaxed);
            }
            way.push(()).unwrap();
        }
        head.drop_handle();
        for lcore in lcores {
            // What was pushed too late for it.
            if lcore.join().unwrap().pop().is_some() {
                if head.leave() {
                    account.fetch_sub(1, Ordering::Relaxed);
                }
                head.drop_handle();
            }
        }
        assert_eq!(account.load(Ordering::Relaxed), 0);
    });
}

//! Two honest guests that talk to each other all the time, and notice everything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vhost::driver::traffic::{Checker, Mode, Sender, StreamConfig, Tally};
use vhost::driver::{QueuePair, VirtioNet, VirtioNetConfig};
use vhost::wire::net::F_RING_PACKED;

use crate::scene::{A, B, PATIENCE, mac};

const RING: u16 = 1024;
/// Frames of a stream on their way: an eighth of the receiver's ring, so that a lost frame is the switch's loss.
const IN_FLIGHT: u64 = 128;
const BATCH: usize = 32;
const FRAME: usize = 300;

/// One of the two.
#[derive(Debug)]
struct Station {
    pair: QueuePair,
    sender: Sender,
    checker: Checker,
    _net: VirtioNet,
}

impl Station {
    fn connect(path: &Path, me: usize, peer: usize) -> Self {
        let defaults = VirtioNetConfig::default();
        // One of them has split rings, the other packed ones.
        let features = defaults.features | if me == B { F_RING_PACKED } else { 0 };
        let config = VirtioNetConfig { features, queue_size: RING, timeout: PATIENCE, ..defaults };
        let mut net = VirtioNet::connect(path, config).expect("an honest guest connects");
        let pair = net.take_pairs().pop().expect("one pair");
        let (src, dst) = (mac(me), mac(peer));
        let stream = StreamConfig { src, dst, stream: me as u16, size: FRAME, mode: Mode::Verify };
        let checker = Checker::new(peer as u16, Mode::Verify);
        Self { pair, sender: Sender::new(stream), checker, _net: net }
    }

    /// Frames sent that `peer` neither has nor misses.
    fn in_flight(&self, peer: &Self) -> u64 {
        let tally = peer.checker.tally();
        self.sender.sent().saturating_sub(tally.received + tally.lost)
    }

    fn send_to(&mut self, peer: &Self) {
        let room = IN_FLIGHT.saturating_sub(self.in_flight(peer)) as usize;
        self.sender.send(&mut self.pair.tx, room.min(BATCH)).expect("an honest ring never breaks");
    }

    fn receive(&mut self) -> usize {
        let checker = &mut self.checker;
        let n = self.pair.rx.poll(BATCH, |frame| checker.check(frame));
        let n = n.expect("an honest ring never breaks");
        if n > 0 {
            self.pair.rx.refill();
        }
        n
    }
}

/// Both, at rest.
#[derive(Debug)]
pub(crate) struct Victims {
    a: Station,
    b: Station,
    /// The longest time in which neither received anything though something was on its way.
    longest_gap: Duration,
}

impl Victims {
    pub(crate) fn connect(a: &Path, b: &Path) -> Self {
        let (a, b) = (Station::connect(a, A, B), Station::connect(b, B, A));
        Self { a, b, longest_gap: Duration::ZERO }
    }

    /// Lets them talk, in a thread of their own.
    pub(crate) fn start(mut self) -> Talking {
        self.longest_gap = Duration::ZERO;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&received));
        let body = move || self.talk(&told, &count);
        let thread = std::thread::Builder::new().name("victims".into()).spawn(body).expect("a thread");
        Talking { thread, stop, received }
    }

    /// Until told to stop; then until all that was sent has come, or long enough.
    fn talk(mut self, stop: &AtomicBool, count: &AtomicU64) -> Self {
        let (mut last, mut deadline) = (Instant::now(), None);
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            if !stopping {
                self.a.send_to(&self.b);
                self.b.send_to(&self.a);
            }
            let received = self.a.receive() + self.b.receive();
            if received > 0 {
                count.fetch_add(received as u64, Ordering::Relaxed);
                self.longest_gap = self.longest_gap.max(last.elapsed());
                last = Instant::now();
            } else {
                std::thread::yield_now();
            }
            if stopping {
                let end = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                if self.under_way() == 0 || Instant::now() > end {
                    return self;
                }
            }
        }
    }

    fn under_way(&self) -> u64 {
        self.a.in_flight(&self.b) + self.b.in_flight(&self.a)
    }

    pub(crate) fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    /// O2: what is wrong with each stream so far, if anything.
    pub(crate) fn harm(&self) -> Vec<Tally> {
        let streams = [(&self.a, &self.b), (&self.b, &self.a)];
        let settled = streams.map(|(from, to)| (from.sender.sent(), to.checker.settle(from.sender.sent())));
        settled.into_iter().filter(|(sent, tally)| !tally.is_clean(*sent)).map(|(_, tally)| tally).collect()
    }

    /// Starts to count anew, after harm that was reported.
    pub(crate) fn forget(&mut self) {
        for (station, (me, peer)) in [(&mut self.a, (A, B)), (&mut self.b, (B, A))] {
            let (src, dst) = (mac(me), mac(peer));
            let stream = StreamConfig { src, dst, stream: me as u16, size: FRAME, mode: Mode::Verify };
            station.sender = Sender::new(stream);
            station.checker = Checker::new(peer as u16, Mode::Verify);
        }
    }
}

/// Both, talking.
#[derive(Debug)]
pub(crate) struct Talking {
    thread: JoinHandle<Victims>,
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
}

impl Talking {
    /// Frames received since the start.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(self) -> Victims {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the victims' thread")
    }
}

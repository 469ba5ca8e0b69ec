//! Endpoints in pairs, turned by a thread each CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vhost::driver::NetHdr;
use vhost::driver::traffic::Tally;

use crate::cpu;
use crate::endpoint::{self, Counts, Endpoint, EndpointSpec, GuestOptions, Work};
use crate::pace::Pace;
use crate::pattern::Pattern;
use crate::probe::{Extent, Layout};

/// Turns between two looks at the clock, where nothing depends on it in between.
const TURNS: u32 = 256;
/// Without a frame for so long, what is on its way is lost.
const STALL: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Endpoints: the first with the second, the third with the fourth ... One alone is its own partner: the device sends
    /// back what it gets.
    pub endpoints: Vec<EndpointSpec>,
    /// How guests drive their rings.
    pub guests: GuestOptions,
    /// What they send.
    pub pattern: Pattern,
    /// Frames of a capture, instead.
    pub replay: Option<Vec<Vec<u8>>>,
    /// What is written into them; `None` for a capture.
    pub extent: Option<Extent>,
    /// Frames posted at once, at most.
    pub burst: usize,
    /// Frames a second each way.
    pub rate: Option<f64>,
    /// Frames on their way, each way, at most.
    pub window: Option<u64>,
    /// Ends after so many frames each way.
    pub count: Option<u64>,
    /// Endpoints that send; the ones behind them are silent.
    pub busy: usize,
    /// Not counted.
    pub warm_up: Duration,
    /// Counted, unless `count` comes first.
    pub seconds: Duration,
    /// CPUs for the threads; pairs are dealt out to them. None: one thread, where the system likes.
    pub cpus: Vec<usize>,
}

impl Plan {
    /// Full load, all of whose frames are numbered: as fast as the device takes them, from all endpoints, on one thread where
    /// the system likes.
    #[must_use]
    pub fn full_load(
        endpoints: Vec<EndpointSpec>,
        guests: GuestOptions,
        pattern: Pattern,
        warm_up: Duration,
        seconds: Duration,
    ) -> Self {
        Self {
            endpoints,
            guests,
            pattern,
            replay: None,
            extent: Some(Extent::default()),
            burst: 64,
            rate: None,
            window: None,
            count: None,
            busy: usize::MAX,
            warm_up,
            seconds,
            cpus: Vec::new(),
        }
    }

    /// What endpoint `from` sends to endpoint `to`.
    fn frames(&self, from: u8, to: u8) -> Vec<Vec<u8>> {
        self.replay.clone().unwrap_or_else(|| self.pattern.frames(from, to))
    }

    fn partner(&self, i: usize) -> usize {
        if self.endpoints.len() == 1 { 0 } else { i ^ 1 }
    }

    fn probe(&self) -> Option<(Layout, Extent)> {
        Some((self.pattern.layout(), self.extent?))
    }

    fn open(&self, i: usize) -> Result<Box<dyn Endpoint>, String> {
        let (number, partner) = (i as u8, self.partner(i) as u8);
        let work = Work {
            number,
            partner,
            frames: Arc::new(self.frames(number, partner)),
            header: if self.replay.is_some() { NetHdr::default() } else { self.pattern.header() },
            probe: self.probe(),
            burst: self.burst,
        };
        endpoint::open(&self.endpoints[i], self.guests, work)
    }
}

/// What became of one direction.
#[derive(Clone, Debug)]
pub struct Way {
    /// Endpoint that sent.
    pub from: usize,
    /// Endpoint that received.
    pub to: usize,
    /// In the counted time.
    pub counts: Counts,
    /// From the start to the end, if frames are numbered.
    pub tally: Option<Tally>,
    /// All frames sent, from the start to the end.
    pub sent: u64,
    /// In the counted time, in ns.
    pub latency: Histogram<u64>,
}

impl Way {
    /// Whether all that was sent came, each once, in order, unchanged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tally.is_some_and(|tally| tally.is_clean(self.sent))
    }
}

/// What became of it all.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Both directions of each pair.
    pub ways: Vec<Way>,
    /// The counted time.
    pub time: Duration,
}

/// Running counts that anybody may look at: sent and received of each endpoint.
#[derive(Debug)]
pub struct Progress {
    counts: Vec<[AtomicU64; 2]>,
    stop: AtomicBool,
}

impl Progress {
    /// For so many endpoints.
    #[must_use]
    pub fn new(endpoints: usize) -> Arc<Self> {
        let counts = (0..endpoints).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        Arc::new(Self { counts, stop: AtomicBool::new(false) })
    }

    /// Frames sent and received by endpoint `i`.
    #[must_use]
    pub fn of(&self, i: usize) -> [u64; 2] {
        self.counts[i].each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    /// Has all end soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn publish(&self, i: usize, counts: Counts) {
        self.counts[i][0].store(counts.sent, Ordering::Relaxed);
        self.counts[i][1].store(counts.received, Ordering::Relaxed);
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Does it.
///
/// # Errors
/// The first thing that went wrong; everything ends then.
pub fn run(plan: &Plan, progress: &Arc<Progress>) -> Result<Outcome, String> {
    run_then(plan, progress, || ())
}

/// Does it, and does `at_end` when all is said and done and the endpoints are still there.
///
/// # Errors
/// The first thing that went wrong; everything ends then.
pub fn run_then(plan: &Plan, progress: &Arc<Progress>, at_end: impl FnOnce()) -> Result<Outcome, String> {
    let threads = plan.cpus.len().max(1);
    let pairs = plan.endpoints.len().div_ceil(2);
    // One after the other: a device may want to see the first endpoint before it serves the second.
    let mut all: Vec<Option<Box<dyn Endpoint>>> =
        (0..plan.endpoints.len()).map(|i| plan.open(i).map(Some)).collect::<Result<_, _>>()?;
    let done = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for thread in 0..threads.min(pairs) {
            let mine = (0..pairs).filter(|pair| pair % threads == thread);
            let numbers =
                mine.flat_map(|pair| [2 * pair, 2 * pair + 1]).filter(|i| *i < plan.endpoints.len());
            let seats = numbers.filter_map(|i| Some(Seat::new(plan, i, all[i].take()?))).collect();
            let cpu = plan.cpus.get(thread).copied();
            running.push(scope.spawn(move || {
                let done = drive(plan, seats, progress, cpu);
                if done.is_err() {
                    progress.stop();
                }
                done
            }));
        }
        let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
            t.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        };
        running.into_iter().map(join).collect::<Result<Vec<(Outcome, Vec<Seat>)>, String>>()
    })?;
    at_end();
    let time = done.iter().map(|(outcome, _)| outcome.time).max().unwrap_or_default();
    let mut ways: Vec<_> = done.into_iter().flat_map(|(outcome, _)| outcome.ways).collect();
    ways.sort_by_key(|way| way.from);
    Ok(Outcome { ways, time })
}

/// An endpoint at work.
struct Seat {
    number: usize,
    partner: usize,
    endpoint: Box<dyn Endpoint>,
    pace: Pace,
    /// When the counted time began.
    before: Counts,
    /// When it ended.
    after: Counts,
}

impl Seat {
    fn new(plan: &Plan, number: usize, endpoint: Box<dyn Endpoint>) -> Self {
        let (pace, none) = (Pace::new(plan.rate, 0), Counts::default());
        Self { number, partner: plan.partner(number), endpoint, pace, before: none, after: none }
    }
}

fn seat_of(seats: &[Seat], number: usize) -> Option<&Seat> {
    seats.iter().find(|seat| seat.number == number)
}

/// One thread's work. The endpoints come back, so that they end when all have ended.
fn drive(
    plan: &Plan,
    mut seats: Vec<Seat>,
    progress: &Progress,
    cpu: Option<usize>,
) -> Result<(Outcome, Vec<Seat>), String> {
    if let Some(cpu) = cpu {
        cpu::pin(cpu)?;
    }
    let start = Instant::now();
    turn_until(plan, &mut seats, progress, start, plan.warm_up)?;
    for seat in &mut seats {
        seat.endpoint.forget_latency();
        seat.before = seat.endpoint.counts();
    }
    let began = start.elapsed();
    turn_until(plan, &mut seats, progress, start, began + plan.seconds)?;
    let time = start.elapsed() - began;
    for seat in &mut seats {
        seat.after = seat.endpoint.counts();
    }
    drain(&mut seats, progress, start)?;
    let outcome = Outcome { ways: seats.iter().map(|seat| way(plan, &seats, seat)).collect(), time };
    Ok((outcome, seats))
}

/// Sends and receives until a time, or until all was sent.
fn turn_until(
    plan: &Plan,
    seats: &mut [Seat],
    progress: &Progress,
    start: Instant,
    end: Duration,
) -> Result<(), String> {
    // Nobody asks the time in every turn who need not.
    let timed = plan.rate.is_some() || plan.extent.is_some_and(|e| e.latency);
    let turns = if timed { 1 } else { TURNS };
    while !progress.is_to_stop() {
        let now = start.elapsed();
        if now >= end {
            break;
        }
        for _ in 0..turns {
            turn(plan, seats, now.as_nanos() as u64)?;
        }
        for seat in &mut *seats {
            if seat.number >= plan.busy {
                // Floods come to the silent ones, too, and are taken off now and then.
                seat.endpoint.turn(0, now.as_nanos() as u64)?;
            }
            progress.publish(seat.number, seat.endpoint.counts());
        }
        if plan.count.is_some_and(|count| {
            seats.iter().all(|s| s.number >= plan.busy || s.endpoint.counts().sent >= count)
        }) {
            break;
        }
    }
    Ok(())
}

/// One turn of each endpoint.
#[inline]
fn turn(plan: &Plan, seats: &mut [Seat], now_ns: u64) -> Result<(), String> {
    let bounded = plan.window.is_some() || plan.count.is_some();
    for i in 0..seats.len() {
        if seats[i].number >= plan.busy {
            continue;
        }
        let mut most = seats[i].pace.due(now_ns);
        if bounded {
            most = most.min(allowed(plan, seats, i));
        }
        let seat = &mut seats[i];
        if plan.rate.is_none() {
            seat.endpoint.turn(most, now_ns)?;
        } else {
            let before = seat.endpoint.counts().sent;
            seat.endpoint.turn(most, now_ns)?;
            seat.pace.sent((seat.endpoint.counts().sent - before) as usize);
        }
    }
    Ok(())
}

/// Frames that an endpoint may send by window and count.
fn allowed(plan: &Plan, seats: &[Seat], i: usize) -> usize {
    let sent = seats[i].endpoint.counts().sent;
    let left = plan.count.map_or(u64::MAX, |count| count.saturating_sub(sent));
    let came = seat_of(seats, seats[i].partner).map_or(sent, |seat| seat.endpoint.counts().received);
    let room = plan.window.map_or(u64::MAX, |window| (came + window).saturating_sub(sent));
    left.min(room) as usize
}

/// Receives what is still on its way.
fn drain(seats: &mut [Seat], progress: &Progress, start: Instant) -> Result<(), String> {
    let received = |seats: &[Seat]| seats.iter().map(|s| s.endpoint.counts().received).sum::<u64>();
    let sent: u64 = seats.iter().map(|s| s.endpoint.counts().sent).sum();
    let (mut last, mut since) = (received(seats), Instant::now());
    while since.elapsed() < STALL && last < sent {
        let now_ns = start.elapsed().as_nanos() as u64;
        for seat in &mut *seats {
            seat.endpoint.turn(0, now_ns)?;
            progress.publish(seat.number, seat.endpoint.counts());
        }
        let now = received(seats);
        if now != last {
            (last, since) = (now, Instant::now());
        } else {
            std::thread::yield_now();
        }
    }
    Ok(())
}

/// What one endpoint sent, seen from who received it.
fn way(plan: &Plan, seats: &[Seat], from: &Seat) -> Way {
    let to = seat_of(seats, from.partner).unwrap_or(from);
    let by_queue = from.endpoint.sent_by_queue();
    Way {
        from: from.number,
        to: to.number,
        counts: Counts {
            sent: from.after.sent - from.before.sent,
            received: to.after.received - to.before.received,
            bytes: to.after.bytes - to.before.bytes,
        },
        tally: plan.extent.map(|_| to.endpoint.tally(Some(&by_queue))),
        sent: by_queue.iter().sum(),
        latency: to.endpoint.latency().clone(),
    }
}

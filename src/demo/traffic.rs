//! The guests' thread: both guests in turn on one CPU.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use vhost::driver::RingError;
use vhost::driver::traffic::Tally;

use super::counts::{Counts, Shared};
use super::guest::{Guest, Station};
use crate::failure::Failure;

/// Without a frame for so long, what is on its way is lost.
const STALL: Duration = Duration::from_secs(2);
/// Turns between two looks at the clock.
const TURNS: u32 = 256;

/// Two guests at work.
#[derive(Debug)]
pub(super) struct Traffic {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<[Way; 2], Failure>>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) sent: u64,
    pub(super) tally: Tally,
}

impl Traffic {
    /// Starts the thread on `cpu`.
    pub(super) fn start(guests: [Guest; 2], cpu: usize) -> Result<Self, Failure> {
        let [a, b] = guests.map(Station::of);
        let stations = [a, b].map(|s| s.ok_or_else(|| Failure::runtime("a guest has no queue pair")));
        let [a, b] = stations;
        let stations = [a?, b?];
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("guests".into())
            .spawn(move || {
                pin(cpu)?;
                drive(stations, &theirs)
            })
            .map_err(Failure::runtime)?;
        Ok(Self { shared, thread })
    }

    /// What came so far.
    pub(super) fn counts(&self) -> Counts {
        self.shared.look()
    }

    /// Whether nothing came for so long that there is no point in waiting.
    pub(super) fn is_stalled(&self) -> bool {
        self.shared.is_stalled() || self.thread.is_finished()
    }

    /// Stops sending, waits for what is on its way, and says what became of the streams: a to b, b to a.
    pub(super) fn finish(self) -> Result<[Way; 2], Failure> {
        self.shared.stop();
        self.thread.join().unwrap_or_else(|_| Err(Failure::runtime("the guests' thread panicked")))
    }
}

fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| Failure::runtime(format!("CPU {cpu} for the guests: {e}")))
}

/// Sends and receives until told to stop, then receives what is still on its way.
fn drive(mut stations: [Station; 2], shared: &Shared) -> Result<[Way; 2], Failure> {
    let broke = |e: RingError| Failure::runtime(format!("the switch broke a guest's ring: {e}"));
    let mut progress = Instant::now();
    loop {
        let stop = shared.is_to_stop();
        let mut moved = 0;
        for _ in 0..TURNS {
            moved += turn(&mut stations, !stop).map_err(broke)?;
        }
        shared.publish(&stations);
        if moved > 0 {
            progress = Instant::now();
        } else if stop && nothing_in_flight(&stations) {
            break;
        } else if progress.elapsed() > STALL {
            shared.set_stalled();
            break;
        } else {
            // Nothing to do: on a machine of one CPU, the switch has to have its turn.
            thread::yield_now();
        }
    }
    settle(stations)
}

/// One turn of both guests; returns how many frames came.
fn turn(stations: &mut [Station; 2], sending: bool) -> Result<usize, RingError> {
    let [a, b] = stations;
    let received = a.receive()? + b.receive()?;
    if sending {
        a.send_to(b)?;
        b.send_to(a)?;
    }
    Ok(received)
}

fn nothing_in_flight([a, b]: &[Station; 2]) -> bool {
    a.in_flight(b) == 0 && b.in_flight(a) == 0
}

fn settle([a, b]: [Station; 2]) -> Result<[Way; 2], Failure> {
    let way = |from: &Station, to: &Station| Way { sent: from.sent(), tally: to.settle(from.sent()) };
    let ways = [way(&a, &b), way(&b, &a)];
    a.disconnect()?;
    b.disconnect()?;
    Ok(ways)
}

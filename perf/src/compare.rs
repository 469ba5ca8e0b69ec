//! Devices compared: the same generator, in turns, and only runs that the machine did not spoil.

use std::path::PathBuf;
use std::time::Duration;

use crate::endpoint::{EndpointSpec, GuestOptions, GuestSpec};
use crate::pattern::{Pattern, Sizes};
use crate::peers::{Memory, Needs, Peer, Programs, start};
use crate::placement::{Placement, round_trip};
use crate::report::total_mpps;
use crate::run::{Outcome, Plan, Progress, Way, run_then};

/// A path through a device, by what both its guests negotiate and send.
#[derive(Clone, Debug)]
pub struct Path {
    /// How a report names it.
    pub name: String,
    /// The guests' rings.
    pub guests: GuestOptions,
    /// The frames.
    pub pattern: Pattern,
    /// Guests: an even number, each with its partner.
    pub ports: usize,
    /// Queue pairs of each.
    pub queues: u16,
    /// Guests that send; the others are connected and silent.
    pub busy: usize,
}

impl Path {
    fn needs(&self) -> Needs {
        Needs {
            ports: self.ports,
            queues: self.queues,
            stations: self.pattern.macs as usize * self.busy.min(self.ports),
            segmentation: self.pattern.sizes == Sizes::Large,
        }
    }

    fn plan(&self, sockets: &[PathBuf], config: &Config) -> Plan {
        let guest = |path: &PathBuf| GuestSpec { path: path.clone(), queues: self.queues };
        let endpoints = sockets.iter().map(guest).map(EndpointSpec::Guest).collect();
        let load =
            Plan::full_load(endpoints, self.guests, self.pattern, Duration::from_secs(1), config.seconds);
        Plan { busy: self.busy, cpus: vec![config.cpu], ..load }
    }
}

/// How it is compared.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our own programs.
    pub programs: Programs,
    /// The device's CPU.
    pub dut_cpu: usize,
    /// The generator's CPU.
    pub cpu: usize,
    /// The counted time of a run.
    pub seconds: Duration,
    /// Runs that count, of each device.
    pub runs: usize,
    /// Which placement counts; `None`: whichever, if it is the same before and after.
    pub placement: Option<Placement>,
    /// Runs of a device, counted or not, before it is given up.
    pub tries: usize,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Good frames received, all directions together, in Mpps.
    pub mpps: f64,
    /// Bytes of all frames received, all directions together, in Gbit/s.
    pub gbits: f64,
    /// A cache line's round trip before the device was started, and after it was ended.
    pub before: Duration,
    /// See `before`.
    pub after: Duration,
    /// What the device's processes took when all guests were connected and the traffic had ended.
    pub memory: Memory,
}

impl Run {
    /// Whether the machine was the same before and after, and as asked for.
    #[must_use]
    pub fn counts(&self, wanted: Option<Placement>) -> bool {
        let (before, after) = (Placement::of(self.before), Placement::of(self.after));
        let is_fit = !matches!(before, Placement::Unclear | Placement::OneCore);
        before == after && is_fit && wanted.is_none_or(|wanted| wanted == before)
    }
}

/// All runs of one device.
#[derive(Clone, Debug)]
pub struct Series {
    /// The device.
    pub peer: Peer,
    /// Runs that count.
    pub counted: Vec<Run>,
    /// Runs that do not.
    pub discarded: Vec<Run>,
    /// How the one run ended that failed and was forgiven: a device may stumble at its first start.
    pub stumble: Option<String>,
    /// Why there are no more: what it does not offer, or what it said when it failed for the second time.
    pub trouble: Option<String>,
}

/// Median, least and most of the runs that count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Series {
    fn new(peer: Peer) -> Self {
        Self { peer, counted: Vec::new(), discarded: Vec::new(), stumble: None, trouble: None }
    }

    fn fail(&mut self, error: String) {
        match self.stumble.take() {
            None => self.stumble = Some(error),
            Some(_) => self.trouble = Some(error),
        }
    }

    /// Of what `what` says of each run that counts; `None` if none does.
    #[must_use]
    pub fn figures(&self, what: impl Fn(&Run) -> f64) -> Option<Figures> {
        let mut all: Vec<_> = self.counted.iter().map(what).collect();
        all.sort_by(f64::total_cmp);
        Some(Figures { median: median(&all)?, min: *all.first()?, max: *all.last()? })
    }

    /// The most memory that the device took in a run, whether that counts or not.
    #[must_use]
    pub fn memory(&self) -> Option<Memory> {
        self.counted.iter().chain(&self.discarded).map(|run| run.memory).max_by_key(|memory| memory.own())
    }
}

/// The median of sorted numbers.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) { Some((sorted[middle - 1] + upper) / 2.0) } else { Some(upper) }
}

/// Compares `peers` on a path: A B A B, until each has its runs. Tells `said` of each run. A device that fails twice is left
/// out from then on, and its series says why.
pub fn compare(
    config: &Config,
    path: &Path,
    peers: &[Peer],
    said: &mut dyn FnMut(Peer, &Run, bool),
) -> Vec<Series> {
    let mut all: Vec<_> = peers.iter().copied().map(Series::new).collect();
    for _ in 0..config.tries {
        for series in &mut all {
            if series.counted.len() >= config.runs || series.trouble.is_some() {
                continue;
            }
            match run_once(config, path, series.peer) {
                Ok(run) => {
                    let counts = run.counts(config.placement);
                    said(series.peer, &run, counts);
                    if counts { series.counted.push(run) } else { series.discarded.push(run) }
                }
                Err(error) => series.fail(error),
            }
        }
    }
    all
}

fn run_once(config: &Config, path: &Path, peer: Peer) -> Result<Run, String> {
    let before = round_trip(config.dut_cpu, config.cpu)?;
    let device = start(peer, &config.programs, path.needs(), config.dut_cpu)?;
    let mut memory = Err("nothing ran".to_owned());
    let (plan, progress) = (path.plan(&device.sockets, config), Progress::new(path.ports));
    let outcome = run_then(&plan, &progress, || memory = device.memory())?;
    check(path, &outcome)?;
    drop(device);
    let after = round_trip(config.dut_cpu, config.cpu)?;
    let bytes: u64 = outcome.ways.iter().map(|way| way.counts.bytes).sum();
    let gbits = bytes as f64 * 8.0 / outcome.time.as_secs_f64() / 1e9;
    Ok(Run { mpps: total_mpps(&outcome), gbits, before, after, memory: memory? })
}

/// Frames to be segmented must have come whole: segments, and frames that are no good to anybody, do not count as them.
fn check(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let way = |sum: fn(&Way) -> u64| outcome.ways.iter().map(sum).sum::<u64>();
    let (frames, bytes) = (way(|way| way.counts.received), way(|way| way.counts.bytes));
    if frames == 0 {
        return Err("no good frame came through".into());
    }
    if path.pattern.sizes != Sizes::Large {
        return Ok(());
    }
    let whole = frames * path.pattern.sizes.of(0) as u64;
    if bytes == whole { Ok(()) } else { Err(format!("{bytes} bytes came, where whole frames are {whole}")) }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;
    use crate::endpoint::Counts;

    fn run_of(mpps: f64, before: u64, after: u64) -> Run {
        let [before, after] = [before, after].map(Duration::from_nanos);
        Run { mpps, gbits: 0.0, before, after, memory: Memory::default() }
    }

    #[test]
    fn who_fails_twice_is_left_out() {
        let mut series = Series::new(Peer::Ovs);
        series.fail("no good frame".into());
        assert_eq!((series.stumble.as_deref(), &series.trouble), (Some("no good frame"), &None));
        series.fail("not there".into());
        assert_eq!((series.stumble, series.trouble.as_deref()), (None, Some("not there")));
    }

    #[test]
    fn runs_that_the_machine_spoilt_do_not_count() {
        assert!(run_of(1.0, 90, 100).counts(None));
        assert!(run_of(1.0, 90, 100).counts(Some(Placement::Near)));
        assert!(!run_of(1.0, 90, 100).counts(Some(Placement::Far)));
        assert!(run_of(1.0, 500, 500).counts(Some(Placement::Far)), "far is a placement as good as near");
        assert!(!run_of(1.0, 90, 500).counts(None));
        assert!(!run_of(1.0, 36, 36).counts(None));
    }

    #[test]
    fn figures_are_median_least_and_most() {
        let figures = |mpps: &[f64]| {
            let counted = mpps.iter().map(|m| run_of(*m, 90, 90)).collect();
            Series { counted, ..Series::new(Peer::Polder) }.figures(|run| run.mpps)
        };
        assert_eq!(figures(&[3.0, 1.0, 2.0]), Some(Figures { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(figures(&[4.0, 1.0]), Some(Figures { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(figures(&[]), None);
    }

    #[test]
    fn what_is_to_be_segmented_must_come_whole() {
        let path = |sizes| Path {
            name: String::new(),
            guests: GuestOptions::default(),
            pattern: Pattern { sizes, ..Pattern::default() },
            ports: 2,
            queues: 1,
            busy: 2,
        };
        let came = |received, bytes| Outcome {
            ways: vec![Way {
                from: 0,
                to: 1,
                counts: Counts { sent: 9, received, bytes },
                tally: None,
                sent: 9,
                latency: Histogram::new(3).unwrap(),
            }],
            time: Duration::from_secs(1),
        };
        let whole = Sizes::Large.of(0) as u64;
        assert!(check(&path(Sizes::Large), &came(2, 2 * whole)).is_ok());
        // One in pieces, one that had lost its header: their bytes came, and they do not count.
        assert!(check(&path(Sizes::Large), &came(2, 3 * whole)).is_err());
        assert!(check(&path(Sizes::Large), &came(0, 0)).is_err());
        assert!(check(&path(Sizes::Fixed(60)), &came(2, 180)).is_ok());
    }
}

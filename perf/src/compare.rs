//! Devices compared: the same generator, in turns, and only runs that the machine did not spoil.

use std::time::Duration;

use crate::endpoint::{EndpointSpec, GuestOptions, GuestSpec};
use crate::pattern::Pattern;
use crate::peers::{Peer, Programs, start};
use crate::placement::{Placement, round_trip};
use crate::probe::Extent;
use crate::report::total_mpps;
use crate::run::{Plan, Progress, run};

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
    /// Guests that send; the others are connected and silent.
    pub busy: usize,
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
    /// Received, all directions together, in Mpps.
    pub mpps: f64,
    /// A cache line's round trip before the device was started, and after it was ended.
    pub before: Duration,
    /// See `before`.
    pub after: Duration,
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
}

impl Series {
    /// Median, least and most in Mpps of the runs that count; `None` if there are none.
    #[must_use]
    pub fn figures(&self) -> Option<(f64, f64, f64)> {
        let mut all: Vec<_> = self.counted.iter().map(|run| run.mpps).collect();
        all.sort_by(f64::total_cmp);
        Some((median(&all)?, *all.first()?, *all.last()?))
    }
}

/// The median of sorted numbers.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) { Some((sorted[middle - 1] + upper) / 2.0) } else { Some(upper) }
}

/// Compares `peers` on a path: A B A B, until each has its runs. Tells `said` of each run.
///
/// # Errors
/// What a device or the generator says; a device that is not installed, above all.
pub fn compare(
    config: &Config,
    path: &Path,
    peers: &[Peer],
    said: &mut dyn FnMut(Peer, &Run, bool),
) -> Result<Vec<Series>, String> {
    let empty = |peer: &Peer| Series { peer: *peer, counted: Vec::new(), discarded: Vec::new() };
    let mut all: Vec<_> = peers.iter().map(empty).collect();
    for _ in 0..config.tries {
        for series in &mut all {
            if series.counted.len() >= config.runs {
                continue;
            }
            let run = run_once(config, path, series.peer)?;
            let counts = run.counts(config.placement);
            said(series.peer, &run, counts);
            if counts { series.counted.push(run) } else { series.discarded.push(run) }
        }
    }
    Ok(all)
}

fn run_once(config: &Config, path: &Path, peer: Peer) -> Result<Run, String> {
    let before = round_trip(config.dut_cpu, config.cpu)?;
    let device = start(peer, &config.programs, path.ports, config.dut_cpu)?;
    let guest =
        |socket: &std::path::PathBuf| EndpointSpec::Guest(GuestSpec { path: socket.clone(), queues: 1 });
    let plan = Plan {
        endpoints: device.sockets.iter().map(guest).collect(),
        guests: path.guests,
        pattern: path.pattern,
        replay: None,
        extent: Some(Extent::default()),
        burst: 64,
        rate: None,
        window: None,
        count: None,
        busy: path.busy,
        warm_up: Duration::from_secs(1),
        seconds: config.seconds,
        cpus: vec![config.cpu],
    };
    let outcome = run(&plan, &Progress::new(path.ports))?;
    drop(device);
    let after = round_trip(config.dut_cpu, config.cpu)?;
    Ok(Run { mpps: total_mpps(&outcome), before, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(mpps: f64, before: u64, after: u64) -> Run {
        Run { mpps, before: Duration::from_nanos(before), after: Duration::from_nanos(after) }
    }

    #[test]
    fn runs_that_the_machine_spoilt_do_not_count() {
        assert!(run_of(1.0, 90, 100).counts(None));
        assert!(run_of(1.0, 90, 100).counts(Some(Placement::Near)));
        assert!(!run_of(1.0, 90, 100).counts(Some(Placement::Far)));
        assert!(!run_of(1.0, 90, 500).counts(None));
        assert!(!run_of(1.0, 400, 400).counts(None));
        assert!(!run_of(1.0, 36, 36).counts(None));
    }

    #[test]
    fn figures_are_median_least_and_most() {
        let series = |mpps: &[f64]| Series {
            peer: Peer::Polder,
            counted: mpps.iter().map(|m| run_of(*m, 90, 90)).collect(),
            discarded: Vec::new(),
        };
        assert_eq!(series(&[3.0, 1.0, 2.0]).figures(), Some((2.0, 1.0, 3.0)));
        assert_eq!(series(&[4.0, 1.0]).figures(), Some((2.5, 1.0, 4.0)));
        assert_eq!(series(&[]).figures(), None);
    }
}

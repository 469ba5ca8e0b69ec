//! RFC 2544's benchmarks of a switch between two of its ports, both directions at once.
//!
//! | what | here | RFC 2544 |
//! |---|---|---|
//! | throughput | the highest rate at which no frame is lost | §26.1 |
//! | partial drop rate | the highest rate at which at most 0.5 % are | (not the RFC's; FD.io CSIT's PDR) |
//! | latency | at 10, 50 and 90 % of the throughput, of every frame | §26.2 |
//! | back-to-back | the longest burst at full speed of which no frame is lost | §26.4 |
//!
//! The RFC's trials take 60 s and its physical testers never stop; ours take as long as is asked for, and the generator shares
//! the machine with the device. A trial whose frames could not be sent in time counts as one that the device failed: a guest's
//! ring that the device does not empty is its loss. One lost to the machine (a thread that was not run) is not told apart:
//! a trial that fails is tried again once.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::endpoint::{EndpointSpec, GuestOptions};
use crate::pattern::{Pattern, Sizes};
use crate::probe::Extent;
use crate::run::{Outcome, Plan, Progress, Way, run};

/// The RFC's sizes (§9.1) without FCS, and simple IMIX.
pub const SIZES: [Sizes; 8] = [
    Sizes::Fixed(60),
    Sizes::Fixed(124),
    Sizes::Fixed(252),
    Sizes::Fixed(508),
    Sizes::Fixed(1020),
    Sizes::Fixed(1276),
    Sizes::Fixed(1514),
    Sizes::Imix,
];

/// Most frames that may be lost at the partial drop rate: 0.5 %.
const PARTIAL_DROP: f64 = 0.005;
/// A trial at a rate counts if so much of it could be sent.
const IN_TIME: f64 = 0.99;
/// Percent of the throughput at which latency is taken.
pub const LATENCY_LOADS: [u32; 3] = [10, 50, 90];
/// How it is measured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The two endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// How guests drive their rings.
    pub guests: GuestOptions,
    /// MAC addresses on each side.
    pub macs: u32,
    /// One trial's counted time.
    pub trial: Duration,
    /// A search ends when its bounds are so close, in parts of the upper one.
    pub resolution: f64,
    /// The longest burst that is tried, in frames each way.
    pub longest_burst: u64,
    /// The generator's CPU.
    pub cpu: Option<usize>,
}

/// What was found for one size.
#[derive(Clone, Debug)]
pub struct Row {
    /// The size.
    pub size: Sizes,
    /// Received at full load, both directions together, frames a second.
    pub full_load: f64,
    /// RFC 2544's throughput, both directions together; 0 if frames were lost at every rate tried.
    pub throughput: f64,
    /// The partial drop rate, the same.
    pub partial: f64,
    /// At each of [`LATENCY_LOADS`].
    pub latency: Vec<Latency>,
    /// Frames, each way; [`Config::longest_burst`] if more were not tried.
    pub back_to_back: u64,
}

/// The latency at one load.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Percent of the throughput.
    pub load: u32,
    /// What was to be sent, both directions together, frames a second.
    pub wanted: f64,
    /// What was.
    pub sent: f64,
    /// In ns, of all frames.
    pub histogram: Histogram<u64>,
}

impl Latency {
    /// Whether the load was what it says. If not, it is the latency of full rings: stamping frames takes the generator longer
    /// than sending them as they are, or the device was slower than when its throughput was taken.
    #[must_use]
    pub fn is_at_load(&self) -> bool {
        self.sent >= self.wanted * IN_TIME
    }

    /// In us.
    #[must_use]
    pub fn microseconds(&self, percentile: f64) -> f64 {
        self.histogram.value_at_percentile(percentile) as f64 / 1e3
    }
}

/// How many trials [`measure`] makes of a size, about: for a progress bar.
#[must_use]
pub fn trials(config: &Config) -> u64 {
    let steps = (1.0 / config.resolution).log2().ceil() as u64;
    1 + 2 * steps + LATENCY_LOADS.len() as u64 + 10
}

/// Measures one size. Calls `tick` after each trial.
///
/// # Errors
/// What the device or a port did wrong.
pub fn measure(config: &Config, size: Sizes, tick: &dyn Fn()) -> Result<Row, String> {
    let bench = Bench { config, size, tick };
    let full_load = bench.full_load()?;
    let throughput = bench.highest(full_load, 0.0)?;
    let partial = bench.highest(full_load, PARTIAL_DROP)?.max(throughput);
    let latency = if throughput > 0.0 { bench.latency(throughput)? } else { Vec::new() };
    let back_to_back = bench.back_to_back()?;
    Ok(Row { size, full_load, throughput, partial, latency, back_to_back })
}

struct Bench<'c> {
    config: &'c Config,
    size: Sizes,
    tick: &'c dyn Fn(),
}

impl Bench<'_> {
    fn plan(&self) -> Plan {
        let config = self.config;
        let pattern = Pattern { sizes: self.size, macs: config.macs, ..Pattern::default() };
        // Addresses are learned, caches warm.
        let warm_up = config.trial / 5;
        let load = Plan::full_load(config.endpoints.clone(), config.guests, pattern, warm_up, config.trial);
        Plan { cpus: config.cpu.into_iter().collect(), ..load }
    }

    fn run(&self, plan: &Plan) -> Result<Outcome, String> {
        let outcome = run(plan, &Progress::new(plan.endpoints.len()));
        (self.tick)();
        outcome
    }

    fn full_load(&self) -> Result<f64, String> {
        let outcome = self.run(&self.plan())?;
        Ok(outcome.ways.iter().map(|w| w.counts.received).sum::<u64>() as f64 / outcome.time.as_secs_f64())
    }

    /// Whether at most `share` is lost at `rate`, both directions together.
    fn passes(&self, rate: f64, share: f64) -> Result<bool, String> {
        for _ in 0..2 {
            let outcome = self.run(&Plan { rate: Some(rate / 2.0), ..self.plan() })?;
            if keeps(&outcome, rate / 2.0, share) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The highest rate at which at most `share` is lost, by bisection below `full_load`.
    fn highest(&self, full_load: f64, share: f64) -> Result<f64, String> {
        let (mut good, mut bad) = (0.0, full_load);
        while bad - good > full_load * self.config.resolution {
            let rate = (good + bad) / 2.0;
            if self.passes(rate, share)? {
                good = rate;
            } else {
                bad = rate;
            }
        }
        Ok(good)
    }

    fn latency(&self, throughput: f64) -> Result<Vec<Latency>, String> {
        let at = |load: u32| {
            let wanted = throughput * f64::from(load) / 100.0;
            let extent = Some(Extent { latency: true, verify: false });
            let outcome = self.run(&Plan { rate: Some(wanted / 2.0), extent, ..self.plan() })?;
            let sent: u64 = outcome.ways.iter().map(|way| way.counts.sent).sum();
            let sent = sent as f64 / outcome.time.as_secs_f64();
            let mut ways = outcome.ways.into_iter().map(|way| way.latency);
            let mut histogram = ways.next().ok_or("no direction")?;
            for more in ways {
                histogram.add(more).map_err(|e| e.to_string())?;
            }
            Ok(Latency { load, wanted, sent, histogram })
        };
        LATENCY_LOADS.into_iter().map(at).collect()
    }

    fn back_to_back(&self) -> Result<u64, String> {
        let survives = |count: u64| -> Result<bool, String> {
            let plan = Plan {
                count: Some(count),
                warm_up: Duration::ZERO,
                seconds: Duration::from_secs(20),
                ..self.plan()
            };
            Ok(self.run(&plan)?.ways.iter().all(Way::is_clean))
        };
        let longest = self.config.longest_burst;
        if survives(longest)? {
            return Ok(longest);
        }
        let (mut good, mut bad) = (0, longest);
        while bad - good > (bad / 16).max(1) {
            let count = (good + bad) / 2;
            if survives(count)? {
                good = count;
            } else {
                bad = count;
            }
        }
        Ok(good)
    }
}

/// Whether a trial kept `rate` (each way) and lost at most `share`.
fn keeps(outcome: &Outcome, rate: f64, share: f64) -> bool {
    outcome.ways.iter().all(|way| {
        let in_time = way.counts.sent as f64 >= rate * outcome.time.as_secs_f64() * IN_TIME;
        let lost = way.tally.map_or(way.sent, |t| way.sent.saturating_sub(t.received));
        in_time && lost as f64 <= way.sent as f64 * share
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::dut::{Dut, DutConfig};

    #[test]
    fn a_switch_in_this_process_is_measured() {
        let dut = Dut::start(&DutConfig { spin: false, ..DutConfig::default() }).unwrap();
        let config = Config {
            endpoints: dut.guests(),
            guests: GuestOptions::default(),
            macs: 4,
            trial: Duration::from_millis(20),
            resolution: 0.5,
            longest_burst: 500,
            cpu: None,
        };
        let ticks = Cell::new(0);
        let row = measure(&config, Sizes::Imix, &|| ticks.set(ticks.get() + 1)).unwrap();
        assert!(row.full_load > 0.0 && row.partial >= row.throughput, "{row:?}");
        assert!(ticks.get() >= 3, "each trial is told");
        // On a busy machine frames may be lost at every rate, or hardly any be sent in so short a trial.
        assert!(row.throughput == 0.0 || row.latency.len() == LATENCY_LOADS.len(), "{row:?}");
    }

    #[test]
    fn a_load_that_was_not_reached_is_told() {
        let of = |sent| Latency { load: 50, wanted: 2e6, sent, histogram: Histogram::new(3).unwrap() };
        assert!(of(2.1e6).is_at_load() && of(1.99e6).is_at_load());
        assert!(!of(1.9e6).is_at_load());
    }
}

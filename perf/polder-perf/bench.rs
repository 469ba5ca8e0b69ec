//! `polder-perf bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use perf::chart::{self, Words};
use perf::dut::{Dut, DutConfig};
use perf::endpoint::GuestOptions;
use perf::machine::Machine;
use perf::pattern::Sizes;
use perf::rfc2544::{self, Config, LATENCY_LOADS, Latency, Row, SIZES};
use perf::rfc2889;
use perf::say;
use serde_json::{Value, json};

use crate::table::markdown;

/// The longest burst that is tried, in frames each way.
const LONGEST_BURST: u64 = 1 << 20;
/// Stations that appear in the learning rate's trials, and the fastest that is tried.
const LEARNED: u32 = 10_000;
const FASTEST: f64 = 1e6;
/// Trials of the two searches of RFC 2889, about.
const LEARNING_TRIALS: u64 = 14;

#[derive(Parser)]
pub(crate) struct Args {
    /// Two vhost-user sockets that a device under test listens on, separated by a comma; without, Polder's switch in this
    /// process is the device.
    #[arg(long, value_delimiter = ',')]
    ports: Vec<PathBuf>,
    /// Frame sizes in bytes without FCS, or imix, separated by commas. Without: RFC 2544's, and imix.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<Sizes>,
    /// MAC addresses on each side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    macs: u32,
    /// Seconds of a trial.
    #[arg(long, default_value_t = 1.0)]
    trial: f64,
    /// How close the bounds of a search get, in percent of the full load.
    #[arg(long, default_value_t = 2.0)]
    resolution: f64,
    /// The device's CPU, if it is ours.
    #[arg(long, default_value_t = 0)]
    dut_cpu: usize,
    /// The generator's CPU.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// Without RFC 2889 (which needs a device of its own with three ports: ours).
    #[arg(long)]
    no_learning: bool,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Draw the rates into this SVG file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// What RFC 2889 finds.
struct Learning {
    capacity: u32,
    rate: f64,
}

impl Args {
    fn dut(&self) -> Result<Dut, String> {
        match self.ports.len() {
            0 => Dut::start(&self.own()),
            2 => Ok(Dut::outside(self.ports.clone(), 1)),
            n => Err(format!("--ports: {n} sockets; give two, separated by a comma")),
        }
    }

    fn own(&self) -> DutConfig {
        DutConfig { cpu: Some(self.dut_cpu), ..DutConfig::default() }
    }

    fn config(&self, dut: &Dut) -> Result<Config, String> {
        let trial = Duration::try_from_secs_f64(self.trial).map_err(|e| format!("--trial: {e}"))?;
        if !(0.1..=50.0).contains(&self.resolution) {
            return Err("--resolution: 0.1 to 50 percent".into());
        }
        Ok(Config {
            endpoints: dut.guests(),
            guests: GuestOptions::default(),
            macs: self.macs,
            trial,
            resolution: self.resolution / 100.0,
            longest_burst: LONGEST_BURST,
            cpu: Some(self.cpu),
        })
    }

    fn learns(&self) -> bool {
        self.ports.is_empty() && !self.no_learning
    }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let dut = args.dut()?;
    let config = args.config(&dut)?;
    let sizes = if args.sizes.is_empty() { SIZES.to_vec() } else { args.sizes.clone() };
    let bar = progress_bar(args, &config, sizes.len() as u64);
    let mut rows = Vec::new();
    for (n, size) in (1..).zip(&sizes) {
        bar.set_message(format!("RFC 2544, {size} bytes"));
        rows.push(rfc2544::measure(&config, *size, &|| bar.inc(1))?);
        // A search that was shorter than it might have been.
        bar.set_position(n * rfc2544::trials(&config));
    }
    drop(dut);
    let learning = if args.learns() { Some(learn(args, &bar)?) } else { None };
    bar.finish_and_clear();
    if args.json {
        say::out(&as_json(args, &rows, learning.as_ref()))?;
    } else {
        say::out(&tables(args, &rows, learning.as_ref()))?;
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, picture(&rows)?).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

fn progress_bar(args: &Args, config: &Config, sizes: u64) -> ProgressBar {
    let learning = if args.learns() { LEARNING_TRIALS } else { 0 };
    let bar = ProgressBar::new(sizes * rfc2544::trials(config) + learning);
    let form = "{msg:28} {wide_bar} {pos}/{len} trials, {eta} left";
    bar.with_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn learn(args: &Args, bar: &ProgressBar) -> Result<Learning, String> {
    let own = args.own();
    bar.set_message("RFC 2889, caching capacity");
    let capacity = rfc2889::caching_capacity(&own, &|| bar.inc(1))?;
    bar.set_message("RFC 2889, learning rate");
    let rate = rfc2889::learning_rate(&own, LEARNED.min(capacity), FASTEST, &|| bar.inc(1))?;
    Ok(Learning { capacity, rate })
}

/// Below a table with such a row.
const NOT_AT_LOAD: &str = "\n* not the load that was wanted, but the latency of full rings: the generator, which stamps each frame, or the device \
                           was too slow for it";

fn millions(rate: f64) -> String {
    format!("{:.3}", rate / 1e6)
}

fn tables(args: &Args, rows: &[Row], learning: Option<&Learning>) -> String {
    let mut lines = vec![format!("{}\n\n{}\n", Machine::here().text(), how(args))];
    let rates = rows.iter().map(|row| {
        let [full, none, partial] = [row.full_load, row.throughput, row.partial].map(millions);
        vec![row.size.to_string(), full, none, partial, row.back_to_back.to_string()]
    });
    let head = ["bytes", "full load Mpps", "throughput (no loss)", "partial drop (0.5 %)", "back-to-back"];
    lines.push(format!("{}\n", markdown(&head, &rates.collect::<Vec<_>>())));
    let latencies = rows.iter().flat_map(|row| {
        row.latency.iter().map(|at| {
            let points = [50.0, 99.0, 99.9, 100.0].map(|p| format!("{:.1}", at.microseconds(p)));
            let sent = format!("{}{}", millions(at.sent), if at.is_at_load() { "" } else { " *" });
            [vec![row.size.to_string(), format!("{} %", at.load), sent], points.to_vec()].concat()
        })
    });
    let head = ["bytes", "load", "sent Mpps", "p50 us", "p99 us", "p99.9 us", "max us"];
    lines.push(markdown(&head, &latencies.collect::<Vec<_>>()));
    if !rows.iter().flat_map(|row| &row.latency).all(Latency::is_at_load) {
        lines.push(NOT_AT_LOAD.into());
    }
    if let Some(Learning { capacity, rate }) = learning {
        let more = |at_most: bool| if at_most { " or more" } else { "" };
        lines.push(format!("\naddress caching capacity: {capacity}{}", more(*capacity >= rfc2889::MOST - 1)));
        lines.push(format!("address learning rate: {rate:.0} a second{}", more(*rate >= FASTEST)));
    }
    lines.join("\n")
}

/// What the figures mean.
fn how(args: &Args) -> String {
    let device = if args.ports.is_empty() { "Polder, in this process" } else { "the device behind --ports" };
    format!(
        "{device}; two guests, both directions together, {} MAC addresses a side; trials of {} s, search to {} %, latency \
         at {LATENCY_LOADS:?} % of the throughput",
        args.macs, args.trial, args.resolution
    )
}

fn as_json(args: &Args, rows: &[Row], learning: Option<&Learning>) -> Value {
    let row = |row: &Row| {
        let latency = row.latency.iter().map(|at| {
            let [p50, p99, p999, max] = [50.0, 99.0, 99.9, 100.0].map(|p| at.microseconds(p));
            json!({
                "load_percent": at.load, "wanted_pps": at.wanted, "sent_pps": at.sent, "at_load": at.is_at_load(),
                "p50_us": p50, "p99_us": p99, "p99_9_us": p999, "max_us": max,
            })
        });
        json!({
            "size": row.size.to_string(), "full_load_pps": row.full_load, "throughput_pps": row.throughput,
            "partial_drop_pps": row.partial, "back_to_back": row.back_to_back, "latency": latency.collect::<Vec<_>>(),
        })
    };
    let mut value = json!({"machine": Machine::here().json(), "how": how(args), "rfc2544": rows.iter().map(row).collect::<Vec<_>>()});
    if let Some(Learning { capacity, rate }) = learning {
        value["rfc2889"] = json!({"caching_capacity": capacity, "learning_rate": rate});
    }
    value
}

fn picture(rows: &[Row]) -> Result<String, String> {
    let labels: Vec<_> = rows.iter().map(|row| row.size.to_string()).collect();
    let column = |name: &str, of: fn(&Row) -> f64| {
        (name.to_owned(), rows.iter().map(|row| (of(row) / 1e4).round() / 100.0).collect())
    };
    let series = [
        column("full load", |row| row.full_load),
        column("partial drop rate", |row| row.partial),
        column("throughput", |row| row.throughput),
    ];
    let notes = [Machine::here().text()];
    let words = Words {
        title: "Frames a second by size",
        unit: "Mpps, both directions; bytes without FCS",
        notes: &notes,
    };
    chart::bars(words, &labels, &series)
}

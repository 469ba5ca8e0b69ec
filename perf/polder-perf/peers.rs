//! `polder-perf peers`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use perf::chart;
use perf::compare::{Config, Path, Run, Series, compare};
use perf::endpoint::GuestOptions;
use perf::pattern::{Pattern, Sizes};
use perf::peers::{Peer, Programs};
use perf::placement::Placement;
use serde_json::{Value, json};

use crate::table::markdown;

/// Which placements of the two CPUs count.
#[derive(Clone, Copy, ValueEnum)]
enum Wanted {
    Near,
    Far,
    /// Whichever, if it is the same before and after.
    Any,
}

/// Which of a guest's choices a path makes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rings {
    /// Split, mergeable.
    Mergeable,
    /// Split, one buffer a frame.
    NotMergeable,
    /// Split, mergeable, in order.
    InOrder,
    /// Split, mergeable, indirect descriptors.
    Indirect,
    /// Packed, mergeable.
    Packed,
    /// Packed, one buffer a frame.
    PackedNotMergeable,
    /// Packed, mergeable, in order.
    PackedInOrder,
    /// Packed, mergeable, indirect descriptors.
    PackedIndirect,
}

impl Rings {
    fn options(self) -> GuestOptions {
        let packed = matches!(
            self,
            Self::Packed | Self::PackedNotMergeable | Self::PackedInOrder | Self::PackedIndirect
        );
        GuestOptions {
            packed,
            mergeable: !matches!(self, Self::NotMergeable | Self::PackedNotMergeable),
            in_order: matches!(self, Self::InOrder | Self::PackedInOrder),
            indirect: matches!(self, Self::Indirect | Self::PackedIndirect),
            ..GuestOptions::default()
        }
    }
}

#[derive(Parser)]
pub(crate) struct Args {
    /// Devices, separated by commas; the first is what ratios are to.
    #[arg(long, value_delimiter = ',', default_value = "testpmd,polder,ovs")]
    peers: Vec<Peer>,
    /// Frame sizes in bytes without FCS, or imix.
    #[arg(long, value_delimiter = ',', default_value = "60,1514")]
    sizes: Vec<Sizes>,
    /// MAC addresses on each side.
    #[arg(long, value_delimiter = ',', default_value = "1,1000")]
    macs: Vec<u32>,
    /// Kinds of rings.
    #[arg(long, value_delimiter = ',', default_value = "mergeable")]
    rings: Vec<Rings>,
    /// Guests; two of them are busy.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    guests: Vec<usize>,
    /// Runs that count, of each device on each path.
    #[arg(short = 'n', long, default_value_t = 9)]
    runs: usize,
    /// Runs, counted or not, before a device is given up on a path.
    #[arg(long, default_value_t = 30)]
    tries: usize,
    /// Seconds of a run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Which placements of the two CPUs count.
    #[arg(long, value_enum, default_value = "near")]
    placement: Wanted,
    /// The devices' CPU.
    #[arg(long, default_value_t = 0)]
    dut_cpu: usize,
    /// The generator's CPU.
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// The polder to measure; without, the one beside this program.
    #[arg(long)]
    polder: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw the medians into this SVG file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

impl Args {
    fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        for rings in &self.rings {
            for guests in &self.guests {
                for macs in &self.macs {
                    paths.extend(self.sizes.iter().map(|size| path(*rings, *guests, *macs, *size)));
                }
            }
        }
        paths
    }

    fn config(&self) -> Result<Config, String> {
        let mut programs = Programs::beside_this()?;
        if let Some(polder) = &self.polder {
            programs.polder.clone_from(polder);
        }
        let placement = match self.placement {
            Wanted::Near => Some(Placement::Near),
            Wanted::Far => Some(Placement::Far),
            Wanted::Any => None,
        };
        let seconds = Duration::try_from_secs_f64(self.seconds).map_err(|e| format!("--seconds: {e}"))?;
        let (dut_cpu, cpu, runs, tries) = (self.dut_cpu, self.cpu, self.runs, self.tries);
        Ok(Config { programs, dut_cpu, cpu, seconds, runs, placement, tries })
    }
}

fn path(rings: Rings, guests: usize, macs: u32, sizes: Sizes) -> Path {
    let kind = rings.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    let name = format!("{kind}, {sizes} B, {macs} MACs, {guests} guests");
    let pattern = Pattern { sizes, macs, ..Pattern::default() };
    Path { name, guests: rings.options(), pattern, ports: guests, busy: 2 }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let config = args.config()?;
    let versions = args.peers.iter().map(|p| Ok((*p, p.version(&config.programs)?)));
    let versions: Vec<(Peer, String)> = versions.collect::<Result<_, String>>()?;
    let mut all = Vec::new();
    for path in args.paths() {
        let mut said = |peer: Peer, run: &Run, counts: bool| {
            let [before, after] = [run.before, run.after].map(|t| t.as_nanos());
            let mark = if counts { "" } else { "  (does not count)" };
            eprintln!(
                "{}: {:10} {:.3} Mpps, ping-pong {before} and {after} ns{mark}",
                path.name,
                peer.name(),
                run.mpps
            );
        };
        let series = compare(&config, &path, &args.peers, &mut said)?;
        all.push((path.name, series));
    }
    if args.json {
        println!("{}", as_json(args, &versions, &all));
    } else {
        print_table(args, &versions, &all);
    }
    if let Some(file) = &args.svg {
        std::fs::write(file, picture(args, &all)?).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

/// The median of the first device, to which ratios are.
fn base(series: &[Series]) -> Option<f64> {
    series.first()?.figures().map(|(median, _, _)| median)
}

fn print_table(args: &Args, versions: &[(Peer, String)], all: &[(String, Vec<Series>)]) {
    for (peer, version) in versions {
        println!("- {}: {version}; {}", peer.name(), peer.does());
    }
    println!(
        "\nGuests' rings are kept full; the device on CPU {}, the generator on CPU {}; all directions together, Mpps.\n",
        args.dut_cpu, args.cpu
    );
    let rows = all.iter().flat_map(|(name, series)| {
        let base = base(series);
        series.iter().map(move |one| {
            let (median, least, most, ratio) = match one.figures() {
                Some((median, least, most)) => {
                    let ratio = base.map_or_else(|| "-".into(), |base| format!("{:.2}", median / base));
                    (format!("{median:.2}"), format!("{least:.2}"), format!("{most:.2}"), ratio)
                }
                None => ("-".into(), "-".into(), "-".into(), "-".into()),
            };
            let runs = format!("{} ({} discarded)", one.counted.len(), one.discarded.len());
            vec![name.clone(), one.peer.name().into(), median, least, most, ratio, runs]
        })
    });
    println!(
        "{}",
        markdown(&["path", "device", "median", "min", "max", "ratio", "runs"], &rows.collect::<Vec<_>>())
    );
}

fn as_json(args: &Args, versions: &[(Peer, String)], all: &[(String, Vec<Series>)]) -> Value {
    let one_run = |run: &Run| json!({"mpps": run.mpps, "before_ns": run.before.as_nanos() as u64, "after_ns": run.after.as_nanos() as u64});
    let device = |base: Option<f64>, one: &Series| {
        let figures = one.figures();
        json!({
            "device": one.peer.name(),
            "median": figures.map(|f| f.0), "min": figures.map(|f| f.1), "max": figures.map(|f| f.2),
            "ratio": figures.zip(base).map(|(f, base)| f.0 / base),
            "runs": one.counted.iter().map(one_run).collect::<Vec<_>>(),
            "discarded": one.discarded.iter().map(one_run).collect::<Vec<_>>(),
        })
    };
    let paths = all.iter().map(|(name, series)| {
        let base = base(series);
        json!({"path": name, "devices": series.iter().map(|one| device(base, one)).collect::<Vec<_>>()})
    });
    let names: Vec<_> = versions
        .iter()
        .map(|(peer, version)| json!({"device": peer.name(), "version": version, "does": peer.does()}))
        .collect();
    json!({
        "devices": names, "dut_cpu": args.dut_cpu, "cpu": args.cpu, "seconds": args.seconds,
        "paths": paths.collect::<Vec<_>>(),
    })
}

fn picture(args: &Args, all: &[(String, Vec<Series>)]) -> Result<String, String> {
    let labels: Vec<_> = all.iter().map(|(name, _)| name.clone()).collect();
    let bars = args.peers.iter().enumerate().map(|(i, peer)| {
        let median = |series: &Vec<Series>| series.get(i).and_then(Series::figures).map_or(0.0, |f| f.0);
        (
            peer.name().to_owned(),
            all.iter().map(|(_, series)| (median(series) * 100.0).round() / 100.0).collect(),
        )
    });
    chart::bars(
        "Between guests, one core",
        "Mpps, all directions; rings kept full",
        &labels,
        &bars.collect::<Vec<_>>(),
    )
}

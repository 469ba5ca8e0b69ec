//! How devices are compared: what `peers` and `floor` have in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use perf::compare::{Config, Path, Run, compare};
use perf::peers::{Peer, Programs};
use perf::placement::Placement;
use perf::say;

use crate::figures::Report;

/// Which placements of the two CPUs count.
#[derive(Clone, Copy, ValueEnum)]
enum Wanted {
    Near,
    Far,
    /// Whichever, if it is the same before and after.
    Any,
}

#[derive(Parser)]
pub(crate) struct Measuring {
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
    /// The polder that `before` names: another build, measured in the same run.
    #[arg(long)]
    before: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw the medians into this SVG file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

impl Measuring {
    fn config(&self) -> Result<Config, String> {
        let mut programs = Programs::beside_this()?;
        if let Some(polder) = &self.polder {
            programs.polder.clone_from(polder);
        }
        programs.before.clone_from(&self.before);
        let placement = match self.placement {
            Wanted::Near => Some(Placement::Near),
            Wanted::Far => Some(Placement::Far),
            Wanted::Any => None,
        };
        let seconds = Duration::try_from_secs_f64(self.seconds).map_err(|e| format!("--seconds: {e}"))?;
        let (dut_cpu, cpu, runs, tries) = (self.dut_cpu, self.cpu, self.runs, self.tries);
        Ok(Config { programs, dut_cpu, cpu, seconds, runs, placement, tries })
    }

    /// Compares `peers` on all `paths`, and tells.
    pub(crate) fn run(&self, peers: &[Peer], paths: Vec<Path>) -> Result<(), String> {
        let config = self.config()?;
        let versions = peers.iter().map(|peer| Ok((*peer, peer.version(&config.programs)?)));
        let versions = versions.collect::<Result<_, String>>()?;
        let mut all = Vec::new();
        for path in paths {
            let mut said = |peer, run: &Run, counts| say_run(&path, peer, run, counts);
            let series = compare(&config, &path, peers, &mut said);
            for one in &series {
                if let Some(trouble) = &one.trouble {
                    say::err(&format_args!("{}: {}: {trouble}", path.name, one.peer));
                }
            }
            all.push((path.name, series));
        }
        let report = Report { config, versions, all };
        let told: &dyn std::fmt::Display = if self.json { &report.json() } else { &report.text() };
        say::out(told)?;
        match &self.svg {
            Some(file) => {
                std::fs::write(file, report.picture()?).map_err(|e| format!("{}: {e}", file.display()))
            }
            None => Ok(()),
        }
    }
}

fn say_run(path: &Path, peer: Peer, run: &Run, counts: bool) {
    let [before, after] = [run.before, run.after].map(|t| t.as_nanos());
    let mark = if counts { "" } else { "  (does not count)" };
    say::err(&format_args!(
        "{}: {peer:10} {:.3} Mpps, {:.2} Gbit/s, ping-pong {before} and {after} ns{mark}",
        path.name, run.mpps, run.gbits
    ));
}

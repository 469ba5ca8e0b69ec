//! What came of a comparison: a table, an object, a picture.

use perf::chart::{self, Words};
use perf::compare::{Config, Figures, Run, Series};
use perf::machine::Machine;
use perf::peers::Peer;
use serde_json::{Value, json};

use crate::table::markdown;

/// All that is to be told.
pub(crate) struct Report {
    pub(crate) config: Config,
    pub(crate) versions: Vec<(Peer, String)>,
    /// Paths by their names, and each device's runs on them.
    pub(crate) all: Vec<(String, Vec<Series>)>,
}

fn mpps(series: &Series) -> Option<Figures> {
    series.figures(|run| run.mpps)
}

/// What the figures of one path are measured by.
#[derive(Clone, Copy)]
struct Against {
    /// The first device's median.
    first: Option<f64>,
    /// The highest of the floors.
    floor: Option<f64>,
}

impl Against {
    fn of(path: &[Series]) -> Self {
        let median = |series: &Series| mpps(series).map(|figures| figures.median);
        let floors = path.iter().filter(|series| matches!(series.peer, Peer::Floor(_))).filter_map(median);
        Self { first: path.first().and_then(median), floor: floors.max_by(f64::total_cmp) }
    }

    fn ratio(self, figures: Figures) -> Option<f64> {
        self.first.map(|first| figures.median / first)
    }

    fn share(self, figures: Figures) -> Option<f64> {
        self.floor.map(|floor| figures.median / floor)
    }
}

/// A cell: a number, or that there is none.
fn cell(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".into(), |number| format!("{number:.digits$}"))
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

impl Report {
    /// For people, in Markdown.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![format!("{}\n", Machine::here().text())];
        let devices = self.versions.iter();
        lines.extend(devices.map(|(peer, version)| format!("- {peer}: {version}; {}", peer.does())));
        lines.push(format!(
            "\nGuests' rings are kept full; the device on CPU {}, the generator on CPU {}; all directions together. Mpps: median, \
             least and most of n runs of {} s that count, the devices in turns. Ratio: to the first device. Memory in MiB: ordinary \
             pages and hugepages, without the guests' RAM.\n",
            self.config.dut_cpu,
            self.config.cpu,
            self.config.seconds.as_secs_f64()
        ));
        lines.push(self.table());
        for (path, series) in &self.all {
            for one in series {
                let again = |why| format!("- {path}: {}: a run failed and was done again: {why}", one.peer);
                lines.extend(one.stumble.iter().map(again));
                lines.extend(one.trouble.iter().map(|why| format!("- {path}: {}: {why}", one.peer)));
            }
        }
        lines.join("\n")
    }

    fn table(&self) -> String {
        let rows: Vec<_> = self
            .all
            .iter()
            .flat_map(|(path, series)| {
                let against = Against::of(series);
                series.iter().map(move |one| row(path, one, against))
            })
            .collect();
        let head = [
            "path",
            "device",
            "Mpps",
            "min",
            "max",
            "Gbit/s",
            "ratio",
            "share of the floor",
            "n",
            "discarded",
            "memory",
        ];
        markdown(&head, &rows)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let paths = self.all.iter().map(|(path, series)| {
            let against = Against::of(series);
            json!({"path": path, "devices": series.iter().map(|one| device(one, against)).collect::<Vec<_>>()})
        });
        let devices = self.versions.iter().map(
            |(peer, version)| json!({"device": peer.to_string(), "version": version, "does": peer.does()}),
        );
        json!({
            "machine": Machine::here().json(), "devices": devices.collect::<Vec<_>>(),
            "dut_cpu": self.config.dut_cpu, "cpu": self.config.cpu, "seconds": self.config.seconds.as_secs_f64(),
            "paths": paths.collect::<Vec<_>>(),
        })
    }

    /// The medians, as SVG.
    pub(crate) fn picture(&self) -> Result<String, String> {
        let labels = short_labels(self.all.iter().map(|(path, _)| path.as_str()));
        let bars = self.versions.iter().enumerate().map(|(i, (peer, _))| {
            let median = |(_, series): &(String, Vec<Series>)| {
                series.get(i).and_then(mpps).map_or(0.0, |figures| figures.median)
            };
            (peer.to_string(), self.all.iter().map(|path| (median(path) * 100.0).round() / 100.0).collect())
        });
        let mut notes = vec![Machine::here().text()];
        notes.extend(
            self.versions.iter().map(|(peer, version)| format!("{peer}: {version}; {}", peer.does())),
        );
        let words = Words {
            title: "Between guests, one core",
            unit: "Mpps, all directions together; median; the guests' rings kept full",
            notes: &notes,
        };
        chart::bars(words, &labels, &bars.collect::<Vec<_>>())
    }
}

/// The parts of paths' names in which they differ: all have the same number of parts, between commas.
fn short_labels<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts: Vec<Vec<&str>> = paths.map(|path| path.split(", ").collect()).collect();
    let differs = |at: usize| parts.iter().any(|path| path.get(at) != parts[0].get(at));
    let short = |path: &Vec<&str>| {
        let kept: Vec<_> =
            path.iter().enumerate().filter(|(at, _)| differs(*at)).map(|(_, part)| *part).collect();
        if kept.is_empty() { path.join(", ") } else { kept.join(", ") }
    };
    parts.iter().map(short).collect()
}

fn row(path: &str, series: &Series, against: Against) -> Vec<String> {
    let figures = mpps(series);
    let gbits = series.figures(|run| run.gbits).map(|figures| figures.median);
    let share = figures.and_then(|figures| against.share(figures)).map(|share| 100.0 * share);
    vec![
        path.to_owned(),
        series.peer.to_string(),
        cell(figures.map(|f| f.median), 3),
        cell(figures.map(|f| f.min), 3),
        cell(figures.map(|f| f.max), 3),
        cell(gbits, 2),
        cell(figures.and_then(|figures| against.ratio(figures)), 2),
        share.map_or_else(|| "-".into(), |share| format!("{share:.0} %")),
        series.counted.len().to_string(),
        series.discarded.len().to_string(),
        series.memory().map_or_else(|| "-".into(), |m| format!("{} + {}", mib(m.resident), mib(m.huge))),
    ]
}

fn one_run(run: &Run) -> Value {
    json!({
        "mpps": run.mpps, "gbits": run.gbits,
        "before_ns": run.before.as_nanos() as u64, "after_ns": run.after.as_nanos() as u64,
    })
}

fn device(series: &Series, against: Against) -> Value {
    let figures = mpps(series);
    let memory = series
        .memory()
        .map(|m| json!({"resident_bytes": m.resident, "huge_bytes": m.huge, "guests_ram_bytes": m.guests}));
    json!({
        "device": series.peer.to_string(),
        "median": figures.map(|f| f.median), "min": figures.map(|f| f.min), "max": figures.map(|f| f.max),
        "gbits": series.figures(|run| run.gbits).map(|f| f.median),
        "ratio": figures.and_then(|f| against.ratio(f)),
        "share_of_floor": figures.and_then(|f| against.share(f)),
        "memory": memory,
        "stumble": series.stumble,
        "trouble": series.trouble,
        "runs": series.counted.iter().map(one_run).collect::<Vec<_>>(),
        "discarded": series.discarded.iter().map(one_run).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use perf::peers::{Floor, Memory, Programs};

    use super::*;

    fn series(peer: Peer, mpps: f64) -> Series {
        let near = Duration::from_nanos(100);
        let memory = Memory { resident: 3 << 19, huge: 2 << 20, guests: 1 << 30 };
        let run = Run { mpps, gbits: 2.0 * mpps, before: near, after: near, memory };
        Series { peer, counted: vec![run], discarded: Vec::new(), stumble: None, trouble: None }
    }

    fn report() -> Report {
        let floor = |burst| Peer::Floor(Floor { burst, copies: 1 });
        let gone = Series { counted: Vec::new(), trouble: Some("no such".into()), ..series(Peer::Ovs, 0.0) };
        let all = [
            series(Peer::Testpmd, 10.0),
            series(Peer::Polder, 15.0),
            series(floor(32), 40.0),
            series(floor(64), 50.0),
        ];
        let versions = vec![(Peer::Testpmd, "DPDK".into()), (Peer::Polder, "polder 0".into())];
        let programs =
            Programs { polder: "p".into(), before: None, offtheshelf: "o".into(), floor: "f".into() };
        let seconds = Duration::from_secs(2);
        let config = Config { programs, dut_cpu: 0, cpu: 1, seconds, runs: 1, placement: None, tries: 1 };
        Report { config, versions, all: vec![("a path".into(), all.into_iter().chain([gone]).collect())] }
    }

    #[test]
    fn ratios_are_to_the_first_and_shares_are_of_the_highest_floor() {
        let value = report().json();
        let devices = &value["paths"][0]["devices"];
        assert_eq!((&devices[1]["ratio"], &devices[1]["share_of_floor"]), (&1.5.into(), &0.3.into()));
        assert_eq!(devices[2]["share_of_floor"], 0.8);
        assert_eq!((&devices[4]["median"], &devices[4]["trouble"]), (&Value::Null, &"no such".into()));
        assert_eq!(devices[0]["memory"]["huge_bytes"], 2 << 20);
    }

    #[test]
    fn the_table_names_all_that_a_figure_needs() {
        let text = report().text();
        let row = text.lines().find(|line| line.contains(" polder |")).unwrap();
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[3..=8], ["15.000", "15.000", "15.000", "30.00", "1.50", "30 %"]);
        assert_eq!(cells[9..=11], ["1", "0", "1.5 + 2.0"]);
        for word in ["commit ", "CPUs", "- testpmd: DPDK", "- a path: ovs: no such"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let picture = report().picture().unwrap();
        for word in ["polder", "commit ", "testpmd: DPDK", "15"] {
            assert!(picture.contains(word), "{word}");
        }
    }

    #[test]
    fn labels_say_what_differs() {
        let short = |paths: &[&str]| short_labels(paths.iter().copied());
        assert_eq!(short(&["split, 60 B, 1 MAC", "split, 60 B, 9 MACs"]), ["1 MAC", "9 MACs"]);
        assert_eq!(short(&["split, 60 B"]), ["split, 60 B"]);
    }
}

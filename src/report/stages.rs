//! Cycles by stage: the result of the method `stages`, and of `polder stats --stages --json`.

use serde::{Deserialize, Serialize};

use super::Table;
use super::stats::ratio;

/// The longest that the daemon measures, in seconds.
pub(crate) const MOST_SECONDS: u32 = 60;

/// The stage of visits to receive halves that found nothing: no packet's.
const EMPTY: &str = "empty";

/// Where the lcores' cycles went for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stages {
    /// How long was measured.
    pub(crate) seconds: f64,
    /// By number.
    pub(crate) lcores: Vec<LcoreStages>,
}

/// An lcore's stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LcoreStages {
    pub(crate) id: usize,
    /// Those that it went through, in the order in which a packet does; visits that found nothing come last.
    pub(crate) stages: Vec<StageStats>,
}

/// A stage of a packet's way through an lcore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageStats {
    /// `empty`, `dequeue`, `receive`, `take_over`, `look_up`, `sort`, `enqueue`, `transmit`, `hand_over` or `publish`.
    pub(crate) stage: String,
    /// The port, where the stage is one port's alone.
    pub(crate) port: Option<String>,
    /// Packets that went through it, each copy of a flooded one among them.
    pub(crate) packets: u64,
    /// Times that it was gone through: bursts, or visits that found nothing.
    pub(crate) times: u64,
    /// TSC cycles.
    pub(crate) cycles: u64,
}

impl LcoreStages {
    /// Cycles in all stages that packets went through.
    fn busy_cycles(&self) -> u64 {
        self.stages.iter().filter(|s| s.stage != EMPTY).map(|s| s.cycles).sum()
    }

    /// Packets that came to it, from ports and from other lcores.
    fn packets(&self) -> u64 {
        let came = |s: &&StageStats| ["dequeue", "receive", "take_over"].contains(&s.stage.as_str());
        self.stages.iter().filter(came).map(|s| s.packets).sum()
    }
}

/// Stages for people: cycles for each packet that went through, and the share of all cycles that went to packets.
pub(crate) fn stages_table(stages: &Stages) -> String {
    let mut table =
        Table::new(&["LCORE", "STAGE", "PORT", "PACKETS", "TIMES", "CYCLES", "CYCLES/PACKET", "SHARE%"]);
    for lcore in &stages.lcores {
        let busy = lcore.busy_cycles();
        let whole =
            StageStats { stage: "all".into(), packets: lcore.packets(), cycles: busy, ..Default::default() };
        let (empty, stages): (Vec<_>, Vec<_>) = lcore.stages.iter().partition(|s| s.stage == EMPTY);
        for stage in stages.into_iter().chain([&whole]).chain(empty) {
            table.row(stage_row(lcore.id, stage, busy));
        }
    }
    table.to_string()
}

fn stage_row(lcore: usize, stage: &StageStats, busy: u64) -> [String; 8] {
    let is_packets = stage.stage != EMPTY;
    let of_packets = |text: String| if is_packets { text } else { "-".into() };
    [
        lcore.to_string(),
        stage.stage.replace('_', " "),
        stage.port.clone().unwrap_or_default(),
        of_packets(stage.packets.to_string()),
        if stage.times == 0 { "-".into() } else { stage.times.to_string() },
        stage.cycles.to_string(),
        of_packets(format!("{:.1}", ratio(stage.cycles, stage.packets))),
        of_packets(format!("{:.1}", 100.0 * ratio(stage.cycles, busy))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(stage: &str, port: Option<&str>, packets: u64, cycles: u64) -> StageStats {
        StageStats { stage: stage.into(), port: port.map(Into::into), packets, times: 1, cycles }
    }

    fn sample() -> Stages {
        let stages = vec![
            stage(EMPTY, None, 0, 5000),
            stage("dequeue", Some("a"), 30, 300),
            stage("receive", Some("nic"), 10, 300),
            stage("look_up", None, 40, 200),
            stage("enqueue", Some("a"), 40, 800),
        ];
        Stages { seconds: 1.0, lcores: vec![LcoreStages { id: 4, stages }] }
    }

    #[test]
    fn shares_are_of_what_went_to_packets() {
        let text = stages_table(&sample());
        let row = |name: &str| -> Vec<String> {
            let line = text.lines().find(|l| l.contains(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("dequeue"), ["4", "dequeue", "a", "30", "1", "300", "10.0", "18.8"]);
        assert_eq!(row("look up"), ["4", "look", "up", "40", "1", "200", "5.0", "12.5"]);
        assert_eq!(row(" all"), ["4", "all", "40", "-", "1600", "40.0", "100.0"], "the empty visits apart");
        assert_eq!(row(EMPTY), ["4", "empty", "-", "1", "5000", "-", "-"]);
    }

    #[test]
    fn names_that_programs_read() {
        let value = serde_json::to_value(sample()).unwrap();
        let dequeue = &value["lcores"][0]["stages"][1];
        assert_eq!((&dequeue["stage"], &dequeue["port"]), (&"dequeue".into(), &"a".into()));
        assert!(["packets", "times", "cycles"].iter().all(|key| dequeue[key].is_u64()), "{dequeue}");
        assert!(value["lcores"][0]["stages"][3]["port"].is_null());
        assert_eq!(serde_json::from_value::<Stages>(value).unwrap(), sample());
    }
}

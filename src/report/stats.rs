//! Counters: the result of the method `stats`, and of `polder stats --json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Table;

/// Drops by reason; reasons that did not occur are left out.
pub(crate) type Drops = BTreeMap<String, u64>;

/// Everything that counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// By name.
    pub(crate) ports: Vec<PortStats>,
    /// The ports that were removed, summed up.
    pub(crate) removed: RemovedStats,
    /// By number.
    pub(crate) lcores: Vec<LcoreStats>,
    pub(crate) fdb: FdbStats,
    pub(crate) mempool: PoolStats,
    /// Seconds since the daemon was ready.
    pub(crate) uptime_s: f64,
}

/// A port's counters. Of all ports together, removed
/// ones included: rx_packets + flood_copies = tx_packets + drops, when nothing is on its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortStats {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// `up` or `down`.
    pub(crate) link: String,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    /// The port's own, and the switch's for packets that came in by it.
    pub(crate) drops: Drops,
    /// Copies made of packets that came in by it: one less than the ports each was flooded to.
    pub(crate) flood_copies: u64,
    pub(crate) rx_queues: Vec<QueueStats>,
    pub(crate) tx_queues: Vec<QueueStats>,
}

/// What ports counted before they were removed: without them the sums would not agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RemovedStats {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) drops: Drops,
    pub(crate) flood_copies: u64,
}

/// A queue half's counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueStats {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) bursts: u64,
    pub(crate) notifications: u64,
    pub(crate) drops: Drops,
}

/// An lcore's counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LcoreStats {
    pub(crate) id: usize,
    pub(crate) cpu: usize,
    /// Turns of its loop.
    pub(crate) polls: u64,
    pub(crate) packets: u64,
    /// TSC cycles in turns that moved packets.
    pub(crate) busy_cycles: u64,
    /// TSC cycles in turns that did not.
    pub(crate) idle_cycles: u64,
    /// Nanoseconds in which others had its CPU while it could have run; none if the kernel does not tell.
    pub(crate) waited_ns: Option<u64>,
}

/// The forwarding table's counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FdbStats {
    /// Addresses known now.
    pub(crate) entries: u64,
    /// Everything else that the switch counts of it.
    #[serde(flatten)]
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Where the mbufs are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolStats {
    pub(crate) total: usize,
    pub(crate) free: usize,
    pub(crate) cached: usize,
    pub(crate) out: usize,
}

impl LcoreStats {
    /// Share of its cycles in turns that moved packets, 0 to 1.
    pub(crate) fn busy_share(&self) -> f64 {
        ratio(self.busy_cycles, self.busy_cycles + self.idle_cycles)
    }

    /// Busy cycles for each packet.
    pub(crate) fn cycles_per_packet(&self) -> f64 {
        ratio(self.busy_cycles, self.packets)
    }

    /// Milliseconds that it waited for its CPU, as one cell.
    pub(super) fn waited_cell(&self) -> String {
        self.waited_ns.map_or_else(|| "-".into(), |ns| format!("{:.1}", ns as f64 / 1e6))
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            id: self.id,
            cpu: self.cpu,
            polls: self.polls.saturating_sub(earlier.polls),
            packets: self.packets.saturating_sub(earlier.packets),
            busy_cycles: self.busy_cycles.saturating_sub(earlier.busy_cycles),
            idle_cycles: self.idle_cycles.saturating_sub(earlier.idle_cycles),
            waited_ns: self.waited_ns.map(|now| now.saturating_sub(earlier.waited_ns.unwrap_or(0))),
        }
    }
}

/// `a / b`, and 0 if `b` is 0.
pub(super) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

impl PortStats {
    /// All drops together.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

/// Drops as one cell: `tx_full 12, same_port 3`.
pub(super) fn drops_cell(drops: &Drops) -> String {
    drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ")
}

/// All counters for people.
pub(crate) fn stats_table(stats: &Stats) -> String {
    let pool = &stats.mempool;
    format!(
        "{}\n{}\nmempool: {} mbufs, {} free, {} cached, {} out; fdb: {}\n",
        ports(stats),
        lcores(&stats.lcores),
        pool.total,
        pool.free,
        pool.cached,
        pool.out,
        fdb_line(&stats.fdb),
    )
}

fn ports(stats: &Stats) -> Table {
    let mut table = Table::new(&[
        "PORT",
        "KIND",
        "LINK",
        "RX-PACKETS",
        "RX-BYTES",
        "TX-PACKETS",
        "TX-BYTES",
        "DROPPED",
        "BY REASON",
    ]);
    for p in &stats.ports {
        let counts = [p.rx_packets, p.rx_bytes, p.tx_packets, p.tx_bytes, p.dropped()].map(|n| n.to_string());
        let names = [p.name.clone(), p.kind.clone(), p.link.clone()];
        table.row(names.into_iter().chain(counts).chain([drops_cell(&p.drops)]));
    }
    table
}

fn lcores(lcores: &[LcoreStats]) -> Table {
    let mut table = Table::new(&["LCORE", "CPU", "POLLS", "PACKETS", "CYCLES/PACKET", "BUSY%", "WAITED-MS"]);
    for l in lcores {
        table.row([
            l.id.to_string(),
            l.cpu.to_string(),
            l.polls.to_string(),
            l.packets.to_string(),
            format!("{:.0}", l.cycles_per_packet()),
            format!("{:.1}", 100.0 * l.busy_share()),
            l.waited_cell(),
        ]);
    }
    table
}

fn fdb_line(fdb: &FdbStats) -> String {
    let counts = fdb.counts.iter().filter(|(_, n)| **n != 0).map(|(name, n)| format!(", {n} {name}"));
    format!("{} entries{}", fdb.entries, counts.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stats {
        let port = PortStats {
            name: "a".into(),
            kind: "null".into(),
            link: "up".into(),
            rx_packets: 12,
            drops: Drops::from([("tx_full".to_owned(), 2), ("same_port".to_owned(), 1)]),
            ..PortStats::default()
        };
        let lcore = LcoreStats {
            packets: 10,
            busy_cycles: 300,
            idle_cycles: 700,
            waited_ns: Some(12_340_000),
            ..LcoreStats::default()
        };
        Stats { ports: vec![port], lcores: vec![lcore], ..Stats::default() }
    }

    #[test]
    fn names_that_programs_read() {
        let value = serde_json::to_value(sample()).unwrap();
        let port = &value["ports"][0];
        for key in [
            "name",
            "kind",
            "link",
            "rx_packets",
            "rx_bytes",
            "tx_packets",
            "tx_bytes",
            "drops",
            "flood_copies",
        ] {
            assert!(!port[key].is_null(), "{key}");
        }
        for key in ["id", "cpu", "polls", "packets", "busy_cycles", "idle_cycles", "waited_ns"] {
            assert!(value["lcores"][0][key].is_u64(), "{key}");
        }
        assert_eq!(serde_json::from_value::<Stats>(value).unwrap(), sample());
    }

    #[test]
    fn the_table_tells_all() {
        let text = stats_table(&sample());
        assert!(["same_port 1, tx_full 2", "30.0", "12.3"].iter().all(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn nothing_happened_is_no_division_by_zero() {
        let none = LcoreStats::default();
        assert_eq!((none.busy_share(), none.cycles_per_packet()), (0.0, 0.0));
    }
}

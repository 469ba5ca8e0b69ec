//! Rates: what two looks at the counters, some time apart, tell.

use std::time::Duration;

use super::{PortStats, Stats, Table};

/// Rates of all ports and lcores between two looks that lie `span` apart.
pub(crate) fn rates_table(earlier: &Stats, now: &Stats, span: Duration) -> String {
    let mut ports = Table::new(&["PORT", "LINK", "RX-MPPS", "TX-MPPS", "RX-GBIT/S", "TX-GBIT/S", "DROPS/S"]);
    for port in &now.ports {
        let before = earlier.ports.iter().find(|p| p.name == port.name).cloned().unwrap_or_default();
        ports.row(port_row(&before, port, span.as_secs_f64()));
    }
    let mut lcores = Table::new(&["LCORE", "CPU", "MPPS", "CYCLES/PACKET", "BUSY%", "WAITED-MS"]);
    for lcore in &now.lcores {
        let before = earlier.lcores.iter().find(|l| l.id == lcore.id).cloned().unwrap_or_default();
        let delta = lcore.since(&before);
        lcores.row([
            delta.id.to_string(),
            delta.cpu.to_string(),
            format!("{:.3}", delta.packets as f64 / span.as_secs_f64() / 1e6),
            format!("{:.0}", delta.cycles_per_packet()),
            format!("{:.1}", 100.0 * delta.busy_share()),
            delta.waited_cell(),
        ]);
    }
    format!("{ports}\n{lcores}")
}

fn port_row(before: &PortStats, now: &PortStats, seconds: f64) -> [String; 7] {
    // A port of the same name may be a new one, which counts from 0 again.
    let rate = |of: fn(&PortStats) -> u64| of(now).saturating_sub(of(before)) as f64 / seconds;
    [
        now.name.clone(),
        now.link.clone(),
        format!("{:.3}", rate(|p| p.rx_packets) / 1e6),
        format!("{:.3}", rate(|p| p.tx_packets) / 1e6),
        format!("{:.3}", rate(|p| p.rx_bytes) * 8.0 / 1e9),
        format!("{:.3}", rate(|p| p.tx_bytes) * 8.0 / 1e9),
        format!("{:.0}", rate(PortStats::dropped)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_by_time() {
        let port = |rx_packets| PortStats { name: "a".into(), rx_packets, ..PortStats::default() };
        let earlier = Stats { ports: vec![port(1_000_000)], ..Stats::default() };
        let now = Stats { ports: vec![port(5_000_000)], ..Stats::default() };
        assert!(rates_table(&earlier, &now, Duration::from_secs(2)).contains("2.000"));
        assert!(rates_table(&now, &earlier, Duration::from_secs(2)).contains("0.000"), "never negative");
    }
}

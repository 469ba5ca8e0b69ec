//! Ports: results of the methods `port.list` and `port.show`.

use serde::{Deserialize, Serialize};

use super::stats::drops_cell;
use super::{PortStats, QueueStats, Table};

/// A port with all that is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortShow {
    /// As it was asked for.
    pub(crate) spec: String,
    #[serde(flatten)]
    pub(crate) stats: PortStats,
    /// What the port itself tells: name and value, most telling first.
    pub(crate) details: Vec<(String, String)>,
}

/// Ports for people, a line each.
pub(crate) fn port_table(ports: &[PortShow]) -> String {
    let mut table = Table::new(&["PORT", "LINK", "SPEC"]);
    for port in ports {
        table.row([port.stats.name.clone(), port.stats.link.clone(), port.spec.clone()]);
    }
    table.to_string()
}

/// One port for people.
pub(crate) fn port_show(port: &PortShow) -> String {
    let stats = &port.stats;
    let mut table = Table::default();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("port", stats.name.clone());
    line("spec", port.spec.clone());
    line("link", stats.link.clone());
    line("rx", format!("{} packets, {} bytes", stats.rx_packets, stats.rx_bytes));
    line("tx", format!("{} packets, {} bytes", stats.tx_packets, stats.tx_bytes));
    line("flood copies", stats.flood_copies.to_string());
    line("drops", if stats.drops.is_empty() { "none".to_owned() } else { drops_cell(&stats.drops) });
    for (name, value) in &port.details {
        line(name, value.clone());
    }
    format!("{table}\n{}", queues(stats))
}

fn queues(stats: &PortStats) -> Table {
    let mut table = Table::new(&["QUEUE", "PACKETS", "BYTES", "BURSTS", "NOTIFICATIONS", "DROPS"]);
    let mut rows = |way: &str, queues: &[QueueStats]| {
        for (n, q) in queues.iter().enumerate() {
            let counts = [q.packets, q.bytes, q.bursts, q.notifications].map(|n| n.to_string());
            table.row([format!("{way}{n}")].into_iter().chain(counts).chain([drops_cell(&q.drops)]));
        }
    };
    rows("rx", &stats.rx_queues);
    rows("tx", &stats.tx_queues);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_with_details_and_queues() {
        let stats =
            PortStats { name: "a".into(), rx_queues: vec![QueueStats::default()], ..PortStats::default() };
        let port = PortShow { spec: "null".into(), stats, details: vec![("mood".into(), "calm".into())] };
        let text = port_show(&port);
        assert!(text.contains("calm") && text.contains("rx0"), "{text}");
        let value = serde_json::to_value(&port).unwrap();
        assert_eq!(value["name"], "a");
        assert_eq!(serde_json::from_value::<PortShow>(value).unwrap(), port);
        assert!(port_table(&[port]).contains("null"));
    }
}

//! What `polder stats --json` says.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) ports: Vec<PortStats>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortStats {
    pub(crate) name: String,
    pub(crate) link_up: bool,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    /// Frames that left more often than they came: one less than the ports a flooded frame was meant for.
    pub(crate) flood_copies: u64,
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Stats {
    pub(crate) fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("stats {text:?}: {e}"));
        let ports = value["ports"].as_array().unwrap_or_else(|| panic!("no ports in {text}"));
        Self { ports: ports.iter().map(PortStats::from_json).collect() }
    }

    pub(crate) fn port(&self, name: &str) -> &PortStats {
        self.ports.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no port {name} in {self:?}"))
    }

    /// Every packet that came in, and every copy made, went out or was dropped.
    pub(crate) fn is_balanced(&self) -> bool {
        let sum = |of: fn(&PortStats) -> u64| self.ports.iter().map(of).sum::<u64>();
        sum(|p| p.rx_packets) + sum(|p| p.flood_copies) == sum(|p| p.tx_packets) + sum(PortStats::dropped)
    }
}

impl PortStats {
    fn from_json(value: &Value) -> Self {
        let count = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("no count {key} in {value}"));
        let drops = value["drops"].as_object().unwrap_or_else(|| panic!("no drops in {value}"));
        Self {
            name: value["name"].as_str().unwrap_or_else(|| panic!("no name in {value}")).to_owned(),
            link_up: value["link"] == "up",
            rx_packets: count("rx_packets"),
            rx_bytes: value["rx_bytes"].as_u64().unwrap_or(0),
            tx_packets: count("tx_packets"),
            flood_copies: value["flood_copies"].as_u64().unwrap_or(0),
            drops: drops.iter().map(|(k, v)| (k.clone(), v.as_u64().expect("a count of drops"))).collect(),
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }
}

#[test]
fn s21_copies_and_drops_balance() {
    let text = r#"{"ports":[
        {"name":"a","link":"up","rx_packets":3,"tx_packets":1,"flood_copies":1,"drops":{}},
        {"name":"b","link":"up","rx_packets":1,"tx_packets":3,"drops":{"ring_full":1}}]}"#;
    let mut stats = Stats::parse(text);
    assert!(stats.is_balanced());
    assert!(stats.port("a").link_up);
    stats.ports[0].tx_packets = 2;
    assert!(!stats.is_balanced());
}

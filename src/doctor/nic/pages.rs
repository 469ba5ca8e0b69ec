//! Hugepages where a card sits: memory of another node costs each packet a way between sockets.

use super::super::Check;
use super::super::memory::{PACKET_PAGES, pool};
use crate::nic::{Machine, Nic};

/// One check a node that a card sits at. Machines of one node have it said already.
pub(super) fn checks(machine: &Machine, nics: &[Nic]) -> Vec<Check> {
    let online = machine.text("sys/devices/system/node/online").unwrap_or_default();
    if matches!(online.trim(), "" | "0") {
        return Vec::new();
    }
    let mut nodes: Vec<u32> = nics.iter().filter_map(|nic| nic.numa_node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into_iter().filter_map(|node| check(machine, node)).collect()
}

fn check(machine: &Machine, node: u32) -> Option<Check> {
    const NAME: &str = "hugepages-node";
    let folder = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
    let (total, free) = pool(|file| machine.text(&format!("{folder}/{file}")))?;
    let found = format!("node {node}, where a network card sits: {free} of {total} free");
    if free >= PACKET_PAGES {
        return Some(Check::ok(NAME, found));
    }
    let pages = total - free.min(total) + PACKET_PAGES;
    Some(Check::warn(NAME, found, format!("echo {pages} | sudo tee /{folder}/nr_hugepages")))
}

//! The plane's counters at one moment, in the shapes that go over the control socket.

use std::collections::BTreeMap;

use pmd::{DropReason, PortCounters, QueueCounters};
use vswitch::Totals;

use super::plane::{Entry, Plane};
use crate::report::{
    FdbEntry, FdbStats, LcoreStats, PoolStats, PortShow, PortStats, QueueStats, RemovedStats, Stats,
};
use crate::settings::PortName;

/// All counters.
pub(crate) fn stats(plane: &Plane) -> Stats {
    // The switch is asked under the table's lock: no port may go between the two looks.
    let ports = plane.ports();
    let counted = plane.view().stats();
    let of = |entry: &Entry| counted.ports.iter().find(|p| p.id == entry.id).map(|p| &p.totals);
    let ports = ports.iter().filter_map(|(name, entry)| Some(port_stats(name, entry, of(entry)?))).collect();
    let lcores = counted.lcores.iter().map(lcore_stats).collect();
    let balance = plane.pool().balance();
    Stats {
        ports,
        removed: removed_stats(&counted.removed),
        lcores,
        fdb: fdb_stats(&counted.fdb),
        mempool: PoolStats {
            total: balance.total,
            free: balance.free,
            cached: balance.cached,
            out: balance.out,
        },
        uptime_s: plane.uptime().as_secs_f64(),
    }
}

/// All ports, or the one of that name, with all that is known of them.
pub(crate) fn ports(plane: &Plane, only: Option<&PortName>) -> Vec<PortShow> {
    let all = stats(plane).ports;
    let ports = plane.ports();
    let show = |stats: PortStats| {
        let name: PortName = stats.name.parse().ok()?;
        let entry = ports.get(&name)?;
        let details = entry.port.details().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Some(PortShow { spec: entry.spec.to_string(), stats, details })
    };
    let wanted = |p: &PortStats| only.is_none_or(|name| name.to_string() == p.name);
    all.into_iter().filter(wanted).filter_map(show).collect()
}

/// All addresses, in order.
pub(crate) fn fdb(plane: &Plane) -> Vec<FdbEntry> {
    let ports = plane.ports();
    let name_of = |id| ports.iter().find(|(_, e)| e.id == id).map(|(name, _)| name.to_string());
    let shape = |e: vswitch::FdbEntry| {
        let port = name_of(e.port)?;
        Some(FdbEntry {
            mac: e.mac.to_string(),
            vlan: e.vlan,
            port,
            is_static: e.is_static,
            age_s: e.age_s.into(),
        })
    };
    let view = plane.view();
    let mut list: Vec<_> = view.fdb().list(view.now_s()).into_iter().filter_map(shape).collect();
    list.sort_by(|a, b| (a.vlan, &a.mac).cmp(&(b.vlan, &b.mac)));
    list
}

fn port_stats(name: &PortName, entry: &Entry, totals: &Totals) -> PortStats {
    let PortCounters { rx, tx } = entry.port.counters();
    PortStats {
        name: name.to_string(),
        kind: entry.port.kind().to_owned(),
        link: entry.port.link().to_string(),
        rx_packets: totals.rx_packets,
        rx_bytes: totals.rx_bytes,
        tx_packets: totals.tx_packets,
        tx_bytes: totals.tx_bytes,
        drops: drops(totals),
        flood_copies: totals.flood_copies,
        rx_queues: rx.iter().map(|q| queue_stats(q)).collect(),
        tx_queues: tx.iter().map(|q| queue_stats(q)).collect(),
    }
}

fn removed_stats(totals: &Totals) -> RemovedStats {
    RemovedStats {
        rx_packets: totals.rx_packets,
        rx_bytes: totals.rx_bytes,
        tx_packets: totals.tx_packets,
        tx_bytes: totals.tx_bytes,
        drops: drops(totals),
        flood_copies: totals.flood_copies,
    }
}

fn drops(totals: &Totals) -> BTreeMap<String, u64> {
    totals.drops_by_name().map(|(reason, n)| (reason.to_owned(), n)).collect()
}

fn queue_stats(queue: &QueueCounters) -> QueueStats {
    let drops = DropReason::ALL.iter().map(|r| (r.name().to_owned(), queue.drops[*r as usize].get()));
    QueueStats {
        packets: queue.packets.get(),
        bytes: queue.bytes.get(),
        bursts: queue.bursts.get(),
        notifications: queue.notifications.get(),
        drops: drops.filter(|(_, n)| *n != 0).collect(),
    }
}

fn lcore_stats(l: &vswitch::LcoreStats) -> LcoreStats {
    LcoreStats {
        id: l.id,
        cpu: l.cpu.unwrap_or_default(),
        polls: l.polls,
        packets: l.packets,
        busy_cycles: l.busy_cycles,
        idle_cycles: l.idle_cycles,
        waited_ns: l.waited_ns,
    }
}

fn fdb_stats(f: &vswitch::FdbStats) -> FdbStats {
    let counts = [
        ("capacity", f.capacity),
        ("learned", f.learned),
        ("moved", f.moved),
        ("evicted", f.evicted),
        ("expired", f.expired),
        ("flushed", f.flushed),
        ("refused_quota", f.refused_quota),
        ("refused_full", f.refused_full),
        ("refused_static", f.refused_static),
        ("lock_missed", f.lock_missed),
    ];
    FdbStats {
        entries: f.entries,
        counts: counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
    }
}

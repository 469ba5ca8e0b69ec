//! What came of a run, as text and as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::run::{Outcome, Plan, Way};

/// Points of a latency's distribution that are told, in percent, with their names.
const POINTS: [(&str, f64); 4] = [("p50", 50.0), ("p99", 99.0), ("p99_9", 99.9), ("max", 100.0)];

fn mpps(way: &Way, outcome: &Outcome) -> f64 {
    way.counts.received as f64 / outcome.time.as_secs_f64() / 1e6
}

/// Frames received a second, in millions, in all directions together.
#[must_use]
pub fn total_mpps(outcome: &Outcome) -> f64 {
    outcome.ways.iter().map(|way| mpps(way, outcome)).sum()
}

fn latency_json(latency: &Histogram<u64>) -> Value {
    let mut points = serde_json::Map::new();
    for (name, percent) in POINTS {
        points.insert(name.into(), latency.value_at_percentile(percent).into());
    }
    points.insert("frames".into(), latency.len().into());
    Value::Object(points)
}

fn way_json(way: &Way, outcome: &Outcome) -> Value {
    let mut value = json!({
        "from": way.from, "to": way.to, "mpps": mpps(way, outcome),
        "sent": way.counts.sent, "received": way.counts.received, "bytes": way.counts.bytes,
    });
    if let Some(tally) = way.tally {
        value["whole_run"] = json!({
            "sent": way.sent, "received": tally.received, "lost": tally.lost, "duplicated": tally.duplicated,
            "reordered": tally.reordered, "corrupted": tally.corrupted, "foreign": tally.foreign,
            "clean": way.is_clean(),
        });
    }
    if !way.latency.is_empty() {
        value["latency_ns"] = latency_json(&way.latency);
    }
    value
}

/// One object: the sum, and each direction.
#[must_use]
pub fn json(outcome: &Outcome) -> Value {
    let mut value = json!({
        "mpps": total_mpps(outcome),
        "seconds": outcome.time.as_secs_f64(),
        "ways": outcome.ways.iter().map(|way| way_json(way, outcome)).collect::<Vec<_>>(),
    });
    if let [a_to_b, b_to_a] = &outcome.ways[..] {
        (value["to_a"], value["to_b"]) = (mpps(b_to_a, outcome).into(), mpps(a_to_b, outcome).into());
    }
    value
}

/// A few lines: the sum, each direction, what was lost on the way.
#[must_use]
pub fn text(plan: &Plan, outcome: &Outcome) -> String {
    let mut lines = vec![format!("{:.3} Mpps in {:.2} s", total_mpps(outcome), outcome.time.as_secs_f64())];
    for way in &outcome.ways {
        let (from, to) = (&plan.endpoints[way.from], &plan.endpoints[way.to]);
        let gbits = way.counts.bytes as f64 * 8.0 / outcome.time.as_secs_f64() / 1e9;
        lines.push(format!("{from} -> {to}: {:.3} Mpps, {gbits:.2} Gbit/s", mpps(way, outcome)));
        if let Some(tally) = way.tally {
            lines.push(format!(
                "  whole run: {} sent, {} received, {} lost, {} duplicated, {} reordered, {} corrupted, {} foreign",
                way.sent,
                tally.received,
                tally.lost,
                tally.duplicated,
                tally.reordered,
                tally.corrupted,
                tally.foreign
            ));
        }
        if !way.latency.is_empty() {
            let point = |percent| way.latency.value_at_percentile(percent) as f64 / 1e3;
            let told: Vec<_> =
                POINTS.iter().map(|(name, percent)| format!("{name} {:.1}", point(*percent))).collect();
            lines.push(format!("  latency in us: {} ({} frames)", told.join(", "), way.latency.len()));
        }
    }
    lines.join("\n")
}

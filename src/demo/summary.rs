//! What the demo says in the end, and whether all was well.

use std::time::Duration;

use mbuf::PoolBalance;
use serde_json::{Value, json};
use vhost::driver::traffic::Tally;

use super::NAMES;
use super::live::Second;
use super::traffic::Way;

/// The whole run.
#[derive(Debug)]
pub(super) struct Summary {
    /// The switch's and the guests'.
    pub(super) cpus: (usize, usize),
    /// Frame length.
    pub(super) size: u32,
    /// How long frames were sent.
    pub(super) elapsed: Duration,
    /// a to b, b to a.
    pub(super) ways: [Way; 2],
    /// Of the best second, both ways together.
    pub(super) best_mpps: f64,
    /// What the switch says of the whole run.
    pub(super) switch: Second,
    /// Where the mbufs are, now that all ports are gone.
    pub(super) mempool: PoolBalance,
    /// Packets that came into the switch and are in none of its counters.
    pub(super) unaccounted: i64,
}

impl Summary {
    /// Whether every frame came, once, unchanged and in order, and every mbuf is back.
    pub(super) fn is_clean(&self) -> bool {
        let ways = self.ways.iter().all(|w| w.sent > 0 && w.tally.is_clean(w.sent));
        ways && self.pool_is_whole() && self.unaccounted == 0
    }

    fn pool_is_whole(&self) -> bool {
        let p = &self.mempool;
        p.out == 0 && p.free + p.cached == p.total
    }

    fn mpps(&self, received: u64) -> f64 {
        received as f64 / self.elapsed.as_secs_f64().max(1e-3) / 1e6
    }

    fn total(&self, of: fn(&Tally) -> u64) -> u64 {
        self.ways.iter().map(|w| of(&w.tally)).sum()
    }

    /// For programs: one object, one line.
    pub(super) fn as_json(&self) -> String {
        let way = |from: &str, to: &str, w: &Way| {
            json!({
                "from": from, "to": to, "sent": w.sent, "received": w.tally.received, "lost": w.tally.lost,
                "corrupted": w.tally.corrupted, "reordered": w.tally.reordered, "duplicated": w.tally.duplicated,
                "mpps": rounded(self.mpps(w.tally.received)),
            })
        };
        let [a, b] = NAMES;
        let pool = &self.mempool;
        let value = json!({
            "ok": self.is_clean(),
            "seconds": rounded(self.elapsed.as_secs_f64()),
            "size": self.size,
            "switch_cpu": self.cpus.0,
            "guest_cpu": self.cpus.1,
            "sent": self.ways.iter().map(|w| w.sent).sum::<u64>(),
            "received": self.total(|t| t.received),
            "lost": self.total(|t| t.lost),
            "corrupted": self.total(|t| t.corrupted),
            "reordered": self.total(|t| t.reordered),
            "duplicated": self.total(|t| t.duplicated),
            "mpps": rounded(self.mpps(self.total(|t| t.received))),
            "best_mpps": rounded(self.best_mpps),
            "ways": [way(a, b, &self.ways[0]), way(b, a, &self.ways[1])],
            "drops": self.switch.drops,
            "cycles_per_packet": rounded(self.switch.cycles_per_packet),
            "busy_share": rounded(self.switch.busy_share),
            "mempool": {"total": pool.total, "free": pool.free, "cached": pool.cached, "out": pool.out},
            "unaccounted": self.unaccounted,
        });
        format!("{value}\n")
    }

    /// For people.
    pub(super) fn as_text(&self) -> String {
        let [a, b] = NAMES;
        let verdict =
            if self.is_clean() { "every packet came, once, unchanged and in order" } else { "NOT CLEAN" };
        format!(
            "\n{} byte frames for {:.1} s, switch on CPU {}, both guests on CPU {}\n{}{}\
             together {:.3} Mpps, best second {:.3}; {} drops, {:.0} cycles/packet, lcore busy {:.1} %\n\
             mempool: {} mbufs, {} free, {} cached, {} out; packets not accounted for: {}\n{verdict}\n",
            self.size,
            self.elapsed.as_secs_f64(),
            self.cpus.0,
            self.cpus.1,
            self.way_line(a, b, &self.ways[0]),
            self.way_line(b, a, &self.ways[1]),
            self.mpps(self.total(|t| t.received)),
            self.best_mpps,
            self.switch.drops,
            self.switch.cycles_per_packet,
            100.0 * self.switch.busy_share,
            self.mempool.total,
            self.mempool.free,
            self.mempool.cached,
            self.mempool.out,
            self.unaccounted,
        )
    }

    fn way_line(&self, from: &str, to: &str, w: &Way) -> String {
        let t = &w.tally;
        format!(
            "{from} -> {to}  {:.3} Mpps  sent {}  received {}  lost {}  corrupted {}  reordered {}  duplicated {}\n",
            self.mpps(t.received),
            w.sent,
            t.received,
            t.lost,
            t.corrupted,
            t.reordered,
            t.duplicated,
        )
    }
}

/// Three decimals: what a measurement is good for.
fn rounded(x: f64) -> Value {
    json!((x * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let way = Way { sent: 2_000_000, tally: Tally { received: 2_000_000, ..Tally::default() } };
        Summary {
            cpus: (1, 0),
            size: 64,
            elapsed: Duration::from_secs(2),
            ways: [way; 2],
            best_mpps: 2.1,
            switch: Second { drops: 0, cycles_per_packet: 200.0, busy_share: 0.5 },
            mempool: PoolBalance { total: 10, free: 6, cached: 4, out: 0, out_by_owner: Vec::new() },
            unaccounted: 0,
        }
    }

    #[test]
    fn clean_is_all_of_it() {
        assert!(summary().is_clean());
        let spoilt: [fn(&mut Summary); 6] = [
            |s| s.ways[0].tally.lost = 1,
            |s| s.ways[1].tally.corrupted = 1,
            |s| s.ways[1].tally.reordered = 1,
            |s| s.ways[0].sent = 0,
            |s| s.mempool.out = 1,
            |s| s.unaccounted = -1,
        ];
        for spoil in spoilt {
            let mut s = summary();
            spoil(&mut s);
            assert!(!s.is_clean(), "{s:?}");
        }
    }

    #[test]
    fn both_forms_tell_the_same() {
        let s = summary();
        let value: Value = serde_json::from_str(&s.as_json()).unwrap();
        assert_eq!((&value["mpps"], &value["lost"], &value["ok"]), (&json!(2.0), &json!(0), &json!(true)));
        assert!(s.as_text().contains("together 2.000 Mpps") && s.as_text().contains("every packet came"));
    }
}

//! The live table: in place on a terminal, else a line each second.

use std::io::{self, IsTerminal};
use std::time::Duration;

use super::NAMES;
use super::counts::Counts;
use crate::failure::Failure;
use crate::report::{LcoreStats, PortStats, Stats};

/// What the switch did between two looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    /// Packets dropped.
    pub(super) drops: u64,
    /// TSC cycles for each packet, of turns that moved some.
    pub(super) cycles_per_packet: f64,
    /// Share of the lcore's time in such turns.
    pub(super) busy_share: f64,
}

impl Second {
    /// Between two looks.
    pub(super) fn between(earlier: &Stats, now: &Stats) -> Self {
        let dropped = |s: &Stats| s.ports.iter().map(PortStats::dropped).sum::<u64>();
        let none = LcoreStats::default();
        let lcore = now.lcores.first().unwrap_or(&none).since(earlier.lcores.first().unwrap_or(&none));
        Self {
            drops: dropped(now).saturating_sub(dropped(earlier)),
            cycles_per_packet: lcore.cycles_per_packet(),
            busy_share: lcore.busy_share(),
        }
    }
}

/// Shows seconds as they pass, and remembers the best.
#[derive(Debug)]
pub(super) struct Live {
    shown: bool,
    in_place: bool,
    lines: usize,
    seconds: u32,
    best_mpps: f64,
}

impl Live {
    pub(super) fn new(shown: bool) -> Self {
        Self { shown, in_place: io::stdout().is_terminal(), lines: 0, seconds: 0, best_mpps: 0.0 }
    }

    /// Millions of packets that both guests together received in the best second.
    pub(super) fn best_mpps(&self) -> f64 {
        self.best_mpps
    }

    /// Shows what happened within `span`, and the time left.
    pub(super) fn show(
        &mut self,
        switch: &Second,
        earlier: &Counts,
        now: &Counts,
        span: Duration,
        left: Duration,
    ) -> Result<(), Failure> {
        let rate = |way: usize| (now.received[way] - earlier.received[way]) as f64 / span.as_secs_f64() / 1e6;
        let mpps = [rate(0), rate(1)];
        self.best_mpps = self.best_mpps.max(mpps[0] + mpps[1]);
        self.seconds += 1;
        if !self.shown {
            return Ok(());
        }
        let text =
            if self.in_place { self.redraw(switch, mpps, now, left) } else { self.line(switch, mpps, now) };
        crate::ask::print(&text).map(drop)
    }

    fn line(&self, switch: &Second, [ab, ba]: [f64; 2], now: &Counts) -> String {
        let [a, b] = NAMES;
        format!(
            "{:>3} s  {a}->{b} {ab:.3} Mpps  {b}->{a} {ba:.3} Mpps  bad {}  drops {}  {:.0} cycles/packet  lcore busy {:.1} %\n",
            self.seconds,
            now.bad[0] + now.bad[1],
            switch.drops,
            switch.cycles_per_packet,
            100.0 * switch.busy_share,
        )
    }

    fn redraw(&mut self, switch: &Second, mpps: [f64; 2], now: &Counts, left: Duration) -> String {
        let [a, b] = NAMES;
        let row = |from: &str, to: &str, way: usize| {
            format!("{from} -> {to}  {:>8.3}  {:>14}  {:>8}\n", mpps[way], now.received[way], now.bad[way])
        };
        let table = format!(
            "polder demo: guest - virtio-net - switch - virtio-net - guest, {} s left (Ctrl-C ends it)\n\
             WAY         MPPS         PACKETS       BAD\n{}{}\
             drops {}   {:.0} cycles/packet   lcore busy {:.1} %\n",
            left.as_secs(),
            row(a, b, 0),
            row(b, a, 1),
            switch.drops,
            switch.cycles_per_packet,
            100.0 * switch.busy_share,
        );
        let up = if self.lines == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.lines) };
        self.lines = table.lines().count();
        format!("{up}{table}")
    }
}

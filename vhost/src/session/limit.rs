//! A port's share of the log.

use std::time::{Duration, Instant};

/// Lines per [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(5);

/// Lets a few lines per period through and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    period: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether to log a line now; if so, how many were not logged since the last one.
    pub(crate) fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.period.is_none_or(|start| now.saturating_duration_since(start) >= PERIOD) {
            self.period = Some(now);
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s24_ten_lines_in_five_seconds() {
        let mut limit = LogLimit::default();
        let start = Instant::now();
        let logged = (0..1000).filter(|_| limit.allow(start).is_some()).count();
        assert_eq!(logged, 10);
        assert_eq!(limit.allow(start + PERIOD), Some(990));
        assert_eq!(limit.allow(start + PERIOD), Some(0));
    }
}

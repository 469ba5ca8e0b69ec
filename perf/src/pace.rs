//! How fast frames are sent.

use std::str::FromStr;

/// Bytes that a frame takes on an Ethernet wire beside itself: preamble, start, FCS, gap.
const WIRE_OVERHEAD: u64 = 24;

/// A rate, as a command line names it: `max`, `2.5M` (frames a second), `40%` (of a line's bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the device takes them.
    Max,
    /// Frames a second, in each direction.
    Frames(f64),
    /// Percent of the line's rate.
    Percent(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "give max, frames a second (500000, 500k, 2.5M), or percent of --line (40%)".to_owned();
        if text == "max" {
            return Ok(Self::Max);
        }
        let (number, unit) = text.split_at(text.trim_end_matches(['k', 'M', '%']).len());
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if !(number > 0.0 && number.is_finite()) {
            return Err(wrong());
        }
        match unit {
            "" => Ok(Self::Frames(number)),
            "k" => Ok(Self::Frames(number * 1e3)),
            "M" => Ok(Self::Frames(number * 1e6)),
            "%" if number <= 100.0 => Ok(Self::Percent(number)),
            _ => Err(wrong()),
        }
    }
}

impl Rate {
    /// Frames a second for frames of `mean_bytes` (without FCS) on a line of `line_bits` a second; `None`: as fast as
    /// possible.
    #[must_use]
    pub fn frames(self, mean_bytes: f64, line_bits: f64) -> Option<f64> {
        match self {
            Self::Max => None,
            Self::Frames(rate) => Some(rate),
            Self::Percent(percent) => {
                Some(percent / 100.0 * line_bits / (8.0 * (mean_bytes + WIRE_OVERHEAD as f64)))
            }
        }
    }
}

/// Says how many frames may be sent by now.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_ns: Option<f64>,
    start_ns: u64,
    sent: u64,
    /// What was not sent in time is sent later, but no more than this at once.
    most: u64,
}

impl Pace {
    /// From `start_ns` on, `per_second` frames a second.
    #[must_use]
    pub fn new(per_second: Option<f64>, start_ns: u64) -> Self {
        let most = per_second.map_or(u64::MAX, |rate| (rate / 1000.0) as u64 + 64);
        Self { per_ns: per_second.map(|rate| rate / 1e9), start_ns, sent: 0, most }
    }

    /// How many are due now.
    #[inline]
    #[must_use]
    pub fn due(&mut self, now_ns: u64) -> usize {
        let Some(per_ns) = self.per_ns else { return usize::MAX };
        let all = (now_ns.saturating_sub(self.start_ns) as f64 * per_ns) as u64;
        // A generator that was stopped for a while does not make up for it: that would be a burst nobody asked for.
        self.sent = self.sent.max(all.saturating_sub(self.most));
        (all - self.sent.min(all)) as usize
    }

    /// So many were sent.
    #[inline]
    pub fn sent(&mut self, frames: usize) {
        self.sent = self.sent.saturating_add(frames as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("2.5M".parse(), Ok(Rate::Frames(2.5e6)));
        assert_eq!("10k".parse(), Ok(Rate::Frames(1e4)));
        assert_eq!("40%".parse(), Ok(Rate::Percent(40.0)));
        for bad in ["", "0", "-1", "101%", "5G", "inf", "k"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        // RFC 2544's 14,880,952 frames of 64 bytes on 10 Gbit/s.
        let full = Rate::Percent(100.0).frames(60.0, 1e10).unwrap();
        assert!((full - 14_880_952.0).abs() < 1.0, "{full}");
    }

    #[test]
    fn frames_are_due_as_time_goes_by() {
        let mut pace = Pace::new(Some(1e6), 1_000);
        assert_eq!(pace.due(1_000), 0);
        assert_eq!(pace.due(11_000), 10);
        pace.sent(10);
        assert_eq!(pace.due(11_000), 0);
        assert_eq!(pace.due(12_000), 1);
        let late = pace.due(1_000_000_000);
        assert!((1..=1064).contains(&late), "{late} at once after a long rest");
        assert_eq!(Pace::new(None, 0).due(1), usize::MAX);
    }
}

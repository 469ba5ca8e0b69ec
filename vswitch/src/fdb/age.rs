//! Forgetting the silent, a few buckets at a time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::entry::WAYS;
use super::{Fdb, Value};

/// A sweep that takes longer than a moment would hold its lcore up: at most so many buckets a step.
const MAX_STEP: usize = 512;
/// Steps in which a table of usual size is swept once.
const STEPS: usize = 100;

/// Where a sweep stands. One for the lcore that does the sweeping.
#[derive(Debug, Default)]
pub struct Sweep {
    at: usize,
}

impl Fdb {
    /// How long a silent station is remembered.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_secs(u64::from(self.age_s.load(Ordering::Relaxed)))
    }

    /// Changes that, from the next sweep on; 1 s to 30 days, what is beyond is taken as the nearer of the two.
    pub fn set_age(&self, age: Duration) {
        let seconds = age.as_secs().clamp(1, 30 * 86_400);
        self.age_s.store(seconds as u32, Ordering::Relaxed);
    }

    /// One step of a sweep: looks at the next few buckets and takes out whoever was silent for longer than the age.
    /// Takes no lock unless there is one, and stops where it is when the lock is busy.
    pub fn sweep_step(&self, sweep: &mut Sweep, now_s: u32) {
        let age_s = self.age_s.load(Ordering::Relaxed);
        let old = |value: Value| !value.is_static() && value.age_s(now_s) > age_s;
        for _ in 0..(self.buckets.len() / STEPS).clamp(1, MAX_STEP) {
            let bucket = &self.buckets[sweep.at];
            if (0..WAYS).any(|way| bucket.peek(way).is_some_and(|(_, value)| old(value))) {
                let Some(mut writer) = self.try_write() else { return };
                self.tally.expired.add(writer.take_out_where(sweep.at, old));
            }
            sweep.at = (sweep.at + 1) & (self.buckets.len() - 1);
        }
    }
}

//! A token bucket: how often something may happen.

use std::time::{Duration, Instant};

/// Lets `burst` tokens through at once, and so many a second in the long run. It only tells when; its owner waits.
#[derive(Debug)]
pub(super) struct Bucket {
    per_token: Duration,
    burst: Duration,
    /// When it is full again: later by each token taken.
    full_at: Instant,
}

impl Bucket {
    /// Full at first.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let per_token = Duration::from_secs(1) / per_second;
        Self { per_token, burst: per_token * burst, full_at: Instant::now() }
    }

    /// Takes tokens, also some that are not there yet: then the next ones come later.
    pub(super) fn take(&mut self, tokens: u32, now: Instant) {
        self.full_at = self.full_at.max(now) + self.per_token * tokens;
    }

    /// How long there is no token from `now` on.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c21_a_burst_then_the_rate() {
        let mut bucket = Bucket::new(1000, 10);
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(bucket.wait(now), Duration::ZERO);
            bucket.take(1, now);
        }
        bucket.take(1, now);
        assert!(bucket.wait(now) <= Duration::from_millis(1) && bucket.wait(now) > Duration::ZERO);
        bucket.take(16, now);
        assert!(bucket.wait(now) > Duration::from_millis(16));
        assert_eq!(bucket.wait(now + Duration::from_millis(17)), Duration::ZERO);
    }
}

//! Waiting, always with an end.

use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Asks `ready` every 20 ms until it answers; panics with `what` when `limit` has passed.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ready() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(20));
    }
}

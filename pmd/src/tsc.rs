//! The time stamp counter: what a few instructions cost, for whoever wants to know.
//!
//! UNSAFETY: the compiler's function for reading the counter is unsafe, though nothing can go wrong with it.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reads the time stamp counter"))]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Cycles since some moment, by the time stamp counter: it runs at one rate whatever the core does, and differences of two
/// reads on one core are times (Intel SDM vol. 3, 19.17). Some twenty cycles. The read waits for nothing: what stands before
/// it may still be under way, so that one difference may be some ten cycles off, and a sum of many is not.
/// Nanoseconds where there is no such counter.
#[inline(always)]
#[must_use]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is there on every x86-64, touches no memory, and the kernel lets programs use it unless it is
    // told not to, in which case the program ends.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

/// A moment by both clocks, from which the counter's rate is taken.
static ORIGIN: LazyLock<(u64, Instant)> = LazyLock::new(|| (now(), Instant::now()));

/// Starts to measure the counter's rate, for [`to_duration`]. Again: nothing.
pub fn measure_rate() {
    LazyLock::force(&ORIGIN);
}

/// How long `cycles` are, by the rate since [`measure_rate`]. Good to some percent if that was longer ago than `cycles` are.
#[must_use]
pub fn to_duration(cycles: u64) -> Duration {
    let (first, since) = *ORIGIN;
    let (all, time) = (now().saturating_sub(first).max(1), since.elapsed());
    let nanoseconds = u128::from(cycles) * time.as_nanos() / u128::from(all);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let start = now();
        std::thread::sleep(Duration::from_millis(1));
        assert!(now() > start + 100_000, "a tenth of a cycle a nanosecond, at the very least");
    }

    #[test]
    fn cycles_are_times() {
        measure_rate();
        let start = (now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (cycles, time) = (now() - start.0, start.1.elapsed());
        let by_cycles = to_duration(cycles);
        assert!(by_cycles > time / 2 && by_cycles < time * 2, "{by_cycles:?}, not {time:?}");
    }
}

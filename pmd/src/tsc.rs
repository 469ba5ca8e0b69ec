//! The time stamp counter: what a few instructions cost, for whoever wants to know.
//!
//! UNSAFETY: the compiler's function for reading the counter is unsafe, though nothing can go wrong with it.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reads the time stamp counter"))]

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
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let start = now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(now() > start + 100_000, "a tenth of a cycle a nanosecond, at the very least");
    }
}

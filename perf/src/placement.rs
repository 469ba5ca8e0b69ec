//! How far apart two CPUs are, in caches: it decides over any two-core figure, and on a virtual machine it changes.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::cpu;

/// Round trips of one measurement.
const ROUNDS: u32 = 200_000;
/// A round trip below this: the two CPUs are two threads of one core.
const ONE_CORE: Duration = Duration::from_nanos(60);

/// What round trips mean on a family of processors. What lies between the two: the machine was busy, or was changing.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Below: the CPUs share a cache.
    near: Duration,
    /// Above: they do not.
    far: Duration,
}

/// AMD's Zen: two cores of a complex, which share its third level cache, take 40 to 150 ns (Zen 4: 99 to 250 cycles were seen);
/// two complexes take 350 to 600 ns (Zen 4: 385 ns, and 1,300 cycles, were seen).
const ZEN: Bounds = Bounds { near: Duration::from_nanos(220), far: Duration::from_nanos(300) };
/// Intel's mesh, on which all cores of a socket share the last level cache: 80 to 350 ns; two sockets 450 ns and more.
const MESH: Bounds = Bounds { near: Duration::from_nanos(380), far: Duration::from_nanos(420) };

impl Bounds {
    /// Of this machine's processor.
    fn here() -> Self {
        Self::of(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn of(cpuinfo: &str) -> Self {
        if cpuinfo.contains("AuthenticAMD") { ZEN } else { MESH }
    }
}

/// How two CPUs stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A cache line goes there and back in less than 60 ns: they share a core, and slow each other down.
    OneCore,
    /// They share a cache.
    Near,
    /// They share none: another cache complex, or another socket.
    Far,
    /// Neither: the machine was busy, or the CPUs' places changed.
    Unclear,
}

impl Placement {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneCore => "one core",
            Self::Near => "near",
            Self::Far => "far",
            Self::Unclear => "unclear",
        }
    }

    /// What a round trip says on this machine's processor.
    #[must_use]
    pub fn of(round_trip: Duration) -> Self {
        static HERE: LazyLock<Bounds> = LazyLock::new(Bounds::here);
        Self::by(*HERE, round_trip)
    }

    fn by(bounds: Bounds, round_trip: Duration) -> Self {
        match round_trip {
            t if t < ONE_CORE => Self::OneCore,
            t if t < bounds.near => Self::Near,
            t if t > bounds.far => Self::Far,
            _ => Self::Unclear,
        }
    }
}

/// The median of three: how long a cache line takes from CPU `a` to CPU `b` and back.
///
/// # Errors
/// If one of the CPUs is not ours to use, or if they are one.
pub fn round_trip(a: usize, b: usize) -> Result<Duration, String> {
    if a == b {
        return Err(format!("CPU {a} twice: device and generator need one each"));
    }
    let mut all = [measure(a, b, ROUNDS)?, measure(a, b, ROUNDS)?, measure(a, b, ROUNDS)?];
    all.sort_unstable();
    Ok(all[1])
}

fn measure(a: usize, b: usize, rounds: u32) -> Result<Duration, String> {
    let there = CachePadded::new(AtomicU64::new(0));
    let back = CachePadded::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = cpu::pin(b);
            // Unpinned it answers all the same: nobody is left waiting.
            for i in 1..=u64::from(rounds) {
                wait_for(&there, i);
                // ORDERING: P1 Release, pairs with P2: nothing but the number is handed over.
                back.store(i, Ordering::Release);
            }
            pinned
        });
        let ping = scope.spawn(|| {
            let pinned = cpu::pin(a);
            let start = Instant::now();
            for i in 1..=u64::from(rounds) {
                // ORDERING: P1 Release, pairs with P2.
                there.store(i, Ordering::Release);
                wait_for(&back, i);
            }
            pinned.map(|()| start.elapsed() / rounds)
        });
        let panicked = |_| Err("a thread panicked".to_owned());
        echo.join().unwrap_or_else(panicked)?;
        ping.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
    })
}

fn wait_for(word: &AtomicU64, value: u64) {
    // ORDERING: P2 Acquire, pairs with P1.
    while word.load(Ordering::Acquire) < value {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_takes_time_and_has_a_name() {
        let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        assert!(measure(0, last, 100).unwrap() > Duration::ZERO);
        assert_eq!(Placement::of(Duration::from_nanos(90)).name(), "near");
        assert_eq!(Placement::of(Duration::from_nanos(500)).name(), "far");
        let [zen, mesh] = ["vendor_id\t: AuthenticAMD\n", "vendor_id\t: GenuineIntel\n"].map(Bounds::of);
        let name = |bounds, ns| Placement::by(bounds, Duration::from_nanos(ns)).name();
        assert_eq!((name(zen, 385), name(mesh, 385)), ("far", "unclear"), "another complex of a Zen 4");
        assert_eq!((name(zen, 250), name(mesh, 250)), ("unclear", "near"));
        assert!(round_trip(0, 0).is_err() && measure(0, 100_000, 1).is_err());
    }
}

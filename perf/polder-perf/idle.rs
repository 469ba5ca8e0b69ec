//! What a switch costs that has nothing to do, and how soon it is there when a frame comes.
//!
//! Beside each latency stands that of a bare thread that sleeps on an eventfd on the same CPU: what this machine's
//! wake-ups take, without any switch.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use perf::cpu::pin;
use perf::dut::{Dut, DutConfig};
use perf::machine::Machine;
use perf::say;
use pmd::alarm::Alarm;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use vhost::driver::{NetHdr, VirtioNet, VirtioNetConfig};

/// A frame that does not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Two vhost-user sockets of a switch that runs already; without it: Polder in this process.
    #[arg(long, value_delimiter = ',', requires = "pid")]
    ports: Option<Vec<PathBuf>>,
    /// The process whose CPU time counts, with --ports.
    #[arg(long, requires = "ports")]
    pid: Option<u32>,
    /// Seconds in which nothing comes, for the CPU share.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// First frames after silence.
    #[arg(long, default_value_t = 2000)]
    frames: u64,
    /// Silence before each of them, in milliseconds: longer than the switch polls on.
    #[arg(long, default_value_t = 5)]
    gap_ms: u64,
    /// The CPU of the switch's lcore, where the bare thread sleeps, too.
    #[arg(long)]
    dut_cpu: Option<usize>,
    /// The guests' CPU, another one.
    #[arg(long, requires = "dut_cpu")]
    cpu: Option<usize>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The guest that sends, and the one that receives.
struct Guests {
    from: VirtioNet,
    to: VirtioNet,
}

impl Guests {
    fn connect(paths: &[PathBuf]) -> Result<Self, String> {
        let connect = |path: &Path| {
            VirtioNet::connect(path, VirtioNetConfig::default())
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let [a, b] = paths else {
            return Err("--ports: two sockets are due, with a comma between them".into());
        };
        let mut guests = Self { from: connect(a)?, to: connect(b)? };
        // Both are known before anything counts, so that nothing is flooded.
        std::mem::swap(&mut guests.from, &mut guests.to);
        guests.cross([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])?;
        std::mem::swap(&mut guests.from, &mut guests.to);
        guests.first_frame()?;
        Ok(guests)
    }

    /// How long a frame takes from one guest to the other.
    fn first_frame(&mut self) -> Result<Duration, String> {
        self.cross([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
    }

    fn cross(&mut self, src: [u8; 6], dst: [u8; 6]) -> Result<Duration, String> {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&dst);
        frame[6..12].copy_from_slice(&src);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let mut got = Vec::with_capacity(64);
        let start = Instant::now();
        self.from.send(&frame, NetHdr::default()).map_err(|e| e.to_string())?;
        while self.to.recv(&mut got).map_err(|e| e.to_string())?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err("a frame did not come".into());
            }
            std::hint::spin_loop();
        }
        Ok(start.elapsed())
    }
}

/// CPU time that a process has used, user and system (proc(5), stat, fields 14 and 15).
fn cpu_time(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The name may hold anything; the last bracket ends it, and the state is field 3.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
}

/// Percent of a CPU that the process uses while nothing comes.
fn idle_share(pid: u32, seconds: u64) -> Result<f64, String> {
    // The last frames' time is over.
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (cpu_time(pid)?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let used = cpu_time(pid)?.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// Runs `once` so many times, each after a silence.
fn first_ones(
    args: &Args,
    mut once: impl FnMut() -> Result<Duration, String>,
) -> Result<Histogram<u64>, String> {
    let mut times = Histogram::new(3).map_err(|e| e.to_string())?;
    for _ in 0..args.frames {
        std::thread::sleep(Duration::from_millis(args.gap_ms));
        times.record(once()?.as_nanos() as u64).map_err(|e| e.to_string())?;
    }
    Ok(times)
}

/// Wakes a thread that sleeps on an eventfd, and waits until it says so.
fn bare(args: &Args) -> Result<Histogram<u64>, String> {
    let alarm = Alarm::new().map_err(|e| e.to_string())?;
    let (woken, end) = (AtomicU64::new(0), u64::MAX);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            args.dut_cpu.map_or(Ok(()), pin)?;
            while woken.load(Ordering::Relaxed) != end {
                let fd = alarm.as_fd();
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).map_err(|e| e.to_string())?;
                alarm.clear();
                woken.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        });
        let mut count = 0;
        let times = first_ones(args, || {
            let start = Instant::now();
            alarm.raise();
            count += 1;
            while woken.load(Ordering::Relaxed) < count && start.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
            Ok(start.elapsed())
        });
        woken.store(end - 1, Ordering::Relaxed);
        alarm.raise();
        sleeper.join().map_err(|_| "the sleeping thread panicked")??;
        times
    })
}

fn told(args: &Args, share: f64, frames: &Histogram<u64>, bare: &Histogram<u64>) -> String {
    let points = |times: &Histogram<u64>| [50.0, 99.0, 99.9].map(|p| times.value_at_quantile(p / 100.0));
    let (frames, bare) = (points(frames), points(bare));
    if args.json {
        let value = |[p50, p99, p99_9]: [u64; 3]| json!({"p50": p50, "p99": p99, "p99_9": p99_9});
        let all = json!({
            "machine": Machine::here().json(), "idle_cpu_percent": share, "frames": args.frames,
            "first_frame_ns": value(frames), "eventfd_ns": value(bare),
        });
        return all.to_string();
    }
    let us = |ns: u64| ns as f64 / 1e3;
    let line = |name: &str, [p50, p99, p99_9]: [u64; 3]| {
        format!("{name}: p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us", us(p50), us(p99), us(p99_9))
    };
    [
        Machine::here().text(),
        format!("idle: {share:.2} % of a CPU over {} s", args.seconds),
        line(&format!("first frame (n = {})", args.frames), frames),
        line("bare eventfd", bare),
    ]
    .join("\n")
}

/// Measures and tells.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let dut = match &args.ports {
        Some(ports) => Dut::outside(ports.clone(), 1),
        None => Dut::start(&DutConfig { cpu: args.dut_cpu, spin: false, ..DutConfig::default() })?,
    };
    args.cpu.map_or(Ok(()), pin)?;
    let mut guests = Guests::connect(dut.sockets())?;
    let share = idle_share(args.pid.unwrap_or_else(std::process::id), args.seconds)?;
    // Half before and half after, as the machine changes.
    let mut alone = bare(args)?;
    let frames = first_ones(args, || guests.first_frame())?;
    alone.add(bare(args)?).map_err(|e| e.to_string())?;
    say::out(&told(args, share, &frames, &alone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_cpu_time() {
        let (before, start) = (cpu_time(std::process::id()).unwrap(), Instant::now());
        let mut used = Duration::ZERO;
        while used < Duration::from_millis(50) {
            assert!(start.elapsed() < Duration::from_secs(20), "no CPU time counts");
            used = cpu_time(std::process::id()).unwrap() - before;
        }
    }

    #[test]
    fn the_whole_measurement_in_little() {
        let args = Args {
            ports: None,
            pid: None,
            seconds: 1,
            frames: 20,
            gap_ms: 2,
            dut_cpu: None,
            cpu: None,
            json: true,
        };
        run(&args).unwrap();
    }
}

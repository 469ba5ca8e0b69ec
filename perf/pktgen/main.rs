//! pktgen: drives a switch from both sides, as two guests whose rings it keeps full.
//!
//! ```text
//! polder run --port a=vhost-user:/tmp/a --port b=vhost-user:/tmp/b --lcores 0 &
//! pktgen /tmp/a /tmp/b --cpu 1 --seconds 5
//! ```
//! It waits for nobody: each guest sends whatever its ring has room for and takes whatever came, so that the device under
//! test is the bottleneck. It writes one word of each frame it sends and reads one word of each that arrives, as a guest
//! would at least. What the device cannot take is the device's to drop, so frames are counted where they arrive.

mod guest;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use guest::{Guest, Load};

/// Sends between two guests through the device under test, in both directions, and counts what arrives.
#[derive(Parser)]
struct Args {
    /// The first guest's vhost-user socket.
    a: PathBuf,
    /// The second guest's.
    b: PathBuf,
    /// Bytes of a frame, without FCS: 60 to 9000.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(60..=9000))]
    size: u16,
    /// MAC addresses on each side: 1 to the size of a ring.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32_768))]
    macs: u16,
    /// Descriptors of each ring: a power of two.
    #[arg(long, default_value_t = 1024)]
    queue_size: u16,
    /// Most frames posted before looking at the other rings.
    #[arg(long, default_value_t = 64)]
    burst: usize,
    /// Without mergeable receive buffers.
    #[arg(long)]
    no_mergeable: bool,
    /// With VIRTIO_F_IN_ORDER.
    #[arg(long)]
    in_order: bool,
    /// Seconds of warm-up that are not counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Run on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn pin(cpu: usize) -> Result<(), String> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(format!("--cpu {cpu}: no such CPU"));
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|e| format!("--cpu {cpu}: {e}"))
}

/// Turns both guests for `seconds`; returns how many frames each received, and the time it really took.
fn turn(guests: &mut [Guest; 2], burst: usize, seconds: f64) -> Result<([u64; 2], Duration), String> {
    let start = Instant::now();
    let before = guests.each_ref().map(Guest::received);
    while start.elapsed().as_secs_f64() < seconds {
        for _ in 0..256 {
            for guest in &mut *guests {
                guest.turn(burst).map_err(|e| e.to_string())?;
            }
        }
    }
    let after = guests.each_ref().map(Guest::received);
    Ok(([after[0] - before[0], after[1] - before[1]], start.elapsed()))
}

fn run(args: &Args) -> Result<(), String> {
    if let Some(cpu) = args.cpu {
        pin(cpu)?;
    }
    let load = Load {
        size: args.size.into(),
        macs: args.macs.min(args.queue_size),
        queue_size: args.queue_size,
        mergeable: !args.no_mergeable,
        in_order: args.in_order,
    };
    let mut guests = [Guest::connect(&args.a, 0, load)?, Guest::connect(&args.b, 1, load)?];
    turn(&mut guests, args.burst, args.warm_up)?;
    let (received, time) = turn(&mut guests, args.burst, args.seconds)?;
    let mpps = received.map(|n| n as f64 / time.as_secs_f64() / 1e6);
    if args.json {
        let seconds = time.as_secs_f64();
        println!(
            "{}",
            serde_json::json!({"mpps": mpps[0] + mpps[1], "to_a": mpps[0], "to_b": mpps[1], "seconds": seconds})
        );
    } else {
        println!("{:.2} Mpps: {:.2} to a, {:.2} to b", mpps[0] + mpps[1], mpps[0], mpps[1]);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}

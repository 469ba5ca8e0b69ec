//! pktgen: load for a device under test, and what becomes of it.
//!
//! ```text
//! polder run --port a=vhost-user:/tmp/a --port b=vhost-user:/tmp/b --lcores 0 &
//! pktgen /tmp/a /tmp/b --cpu 1 --seconds 5
//! pktgen vfio:0000:01:10.0 vfio:0000:02:10.0 --verify --window 256 --count 1000000
//! ```
//! Endpoints come in pairs, and each sends to its partner. A path is a guest: a virtio-net driver on that vhost-user socket,
//! whose rings are kept full; anything else is a port. It waits for nobody, unless told to: each endpoint sends what there is
//! room for and takes what came, so that the device under test is the bottleneck. It writes one word of each frame and reads
//! one word of each that arrives, as a guest would at least; with `--verify` it writes and checks every byte. What the device
//! cannot take is the device's to drop, so frames are counted where they arrive.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use perf::Span;
use perf::endpoint::{EndpointSpec, GuestOptions};
use perf::pace::Rate;
use perf::pattern::{MIN_FRAME, Pattern, Sizes, replay};
use perf::probe::Extent;
use perf::report;
use perf::run::{Outcome, Plan, Progress, run};
use perf::say;
use vhost::driver::Order;

/// Sends between the endpoints of each pair, in both directions, through the device under test; counts what arrives.
///
/// Exit status: 0, or 1 if something went wrong or, with --verify, if one frame was lost, changed, doubled or out of order.
#[derive(Parser)]
struct Args {
    /// A vhost-user socket's path, guest:PATH[,queues=N], or a port: vfio:BDF, tap:IFACE, af_packet:IFACE ...
    #[arg(required = true, num_args = 1..=128)]
    endpoints: Vec<EndpointSpec>,
    /// Bytes of a frame, without FCS; imix; or 64k: TCP that guests leave to others to segment.
    #[arg(long, default_value_t = Sizes::Fixed(MIN_FRAME))]
    size: Sizes,
    /// MAC addresses on each side.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    macs: u32,
    /// VLAN tags: VID or FIRST-LAST.
    #[arg(long, value_parser = Span::vlans)]
    vlan: Option<Span>,
    /// IPv4 sources: ADDRESS or FIRST-LAST.
    #[arg(long, value_parser = Span::addresses)]
    src_ip: Option<Span>,
    /// IPv4 destinations.
    #[arg(long, value_parser = Span::addresses)]
    dst_ip: Option<Span>,
    /// UDP source ports: PORT or FIRST-LAST.
    #[arg(long, value_parser = Span::ports)]
    src_port: Option<Span>,
    /// UDP destination ports.
    #[arg(long, value_parser = Span::ports)]
    dst_port: Option<Span>,
    /// Send the frames of this capture instead, again and again, as they are.
    #[arg(long, conflicts_with_all = ["verify", "latency", "window"])]
    pcap: Option<PathBuf>,
    /// max, frames a second each way (500k, 2.5M), or percent of --line (40%).
    #[arg(long, default_value = "max")]
    rate: Rate,
    /// Bits a second that --rate's percent are of, in Gbit/s.
    #[arg(long, default_value_t = 10.0)]
    line: f64,
    /// Most frames posted before looking at the other rings.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    burst: u16,
    /// Most frames on their way, each way: nothing is lost then that the device does not lose by itself.
    #[arg(long)]
    window: Option<u64>,
    /// End after so many frames each way.
    #[arg(long)]
    count: Option<u64>,
    /// Number, checksum and check every frame.
    #[arg(long)]
    verify: bool,
    /// Stamp every frame and tell how long it took.
    #[arg(long)]
    latency: bool,
    /// Descriptors of each guest's ring.
    #[arg(long, default_value_t = 1024)]
    queue_size: u16,
    /// With packed rings.
    #[arg(long)]
    packed: bool,
    /// Without mergeable receive buffers.
    #[arg(long)]
    no_mergeable: bool,
    /// With VIRTIO_F_IN_ORDER.
    #[arg(long)]
    in_order: bool,
    /// With indirect descriptors on the guests' transmit rings.
    #[arg(long)]
    indirect: bool,
    /// In which order the guests post free buffers again: same (as they came back), lifo (newest first, as
    /// Linux' driver does) or shuffled.
    #[arg(long, default_value = "same")]
    order: Order,
    /// Have the guests write something else over the headers of receive buffers before they post them again.
    #[arg(long)]
    foreign_headers: bool,
    /// Seconds of warm-up that are not counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Run on this CPU; several, separated by commas: pairs are dealt out to a thread on each.
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    /// A line a second while it runs.
    #[arg(long)]
    live: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Args {
    fn pattern(&self) -> Pattern {
        let default = Pattern::default();
        Pattern {
            sizes: self.size,
            macs: self.macs,
            vlan: self.vlan,
            src_ip: self.src_ip.unwrap_or(default.src_ip),
            dst_ip: self.dst_ip.unwrap_or(default.dst_ip),
            src_port: self.src_port.unwrap_or(default.src_port),
            dst_port: self.dst_port.unwrap_or(default.dst_port),
        }
    }

    fn guests(&self) -> GuestOptions {
        GuestOptions {
            queue_size: self.queue_size,
            packed: self.packed,
            mergeable: !self.no_mergeable,
            in_order: self.in_order,
            indirect: self.indirect,
            order: self.order,
            foreign_headers: self.foreign_headers,
        }
    }

    /// What is to be done, if it makes sense.
    fn plan(&self) -> Result<Plan, String> {
        let (pattern, n) = (self.pattern(), self.endpoints.len());
        if n > 1 && !n.is_multiple_of(2) {
            return Err(format!("{n} endpoints: give pairs, or one alone whose frames come back to it"));
        }
        let extent = Extent { verify: self.verify, latency: self.latency };
        let least = extent.least(pattern.layout());
        if self.pcap.is_none() && (0..12).any(|i| self.size.of(i) < least) {
            return Err(format!(
                "--size {}: what is to be written into a frame needs {least} bytes",
                self.size
            ));
        }
        let frames = self.pcap.as_deref().map(replay).transpose().map_err(|e| e.to_string())?;
        let times = [self.warm_up, self.seconds].map(Duration::try_from_secs_f64);
        let [Ok(warm_up), Ok(seconds)] = times else {
            return Err("--seconds, --warm-up: give seconds".into());
        };
        let mean = frames
            .as_ref()
            .map_or(self.size.mean(), |f| f.iter().map(Vec::len).sum::<usize>() as f64 / f.len() as f64);
        Ok(Plan {
            endpoints: self.endpoints.clone(),
            guests: self.guests(),
            pattern,
            extent: self.pcap.is_none().then_some(extent),
            replay: frames,
            burst: self.burst.into(),
            rate: self.rate.frames(mean, self.line * 1e9),
            window: self.window,
            count: self.count,
            busy: usize::MAX,
            // With a count, all frames count.
            warm_up: if self.count.is_some() { Duration::ZERO } else { warm_up },
            seconds: if self.count.is_some() { Duration::MAX / 4 } else { seconds },
            cpus: self.cpu.clone(),
        })
    }
}

/// Prints a line a second until `done`.
fn show(progress: &Progress, endpoints: usize, done: &std::sync::atomic::AtomicBool) {
    let (start, mut last) = (Instant::now(), [0; 2]);
    let sum = |k: usize| (0..endpoints).map(|i| progress.of(i)[k]).sum::<u64>();
    for second in 1.. {
        while start.elapsed() < Duration::from_secs(second) {
            if done.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = [sum(0), sum(1)];
        let rates = [0, 1].map(|k| (now[k] - last[k]) as f64 / 1e6);
        say::err(&format_args!("{second:4} s  sent {:.3} Mpps  received {:.3} Mpps", rates[0], rates[1]));
        last = now;
    }
}

fn work(args: &Args, plan: &Plan) -> Result<Outcome, String> {
    let progress = Progress::new(plan.endpoints.len());
    if !args.live {
        return run(plan, &progress);
    }
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| show(&progress, plan.endpoints.len(), &done));
        let outcome = run(plan, &progress);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    })
}

/// Does it and tells what came of it. Whether all is well.
fn done(args: &Args) -> Result<bool, String> {
    let plan = args.plan()?;
    let outcome = work(args, &plan)?;
    if args.json {
        say::out(&report::json(&outcome))?;
    } else {
        say::out(&report::text(&plan, &outcome))?;
    }
    Ok(!args.verify || outcome.ways.iter().all(perf::run::Way::is_clean))
}

fn main() -> ExitCode {
    let args = Args::parse();
    say::warnings();
    match done(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::err(&format_args!("pktgen: {error}"));
            ExitCode::FAILURE
        }
    }
}

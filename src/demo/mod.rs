//! `polder demo`: the main job with nothing installed. The switch on one CPU, two guests on another, vhost-user between
//! them, and every packet checked.

mod counts;
mod guest;
mod live;
mod summary;
mod traffic;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;
use vswitch::OnDeath;

use crate::cli::DemoArgs;
use crate::daemon::{Plane, PlaneError, stats};
use crate::failure::Failure;
use crate::report::Stats;
use crate::settings::{Hugepages, MemorySize, PortSetting, Sandbox, Settings, SwitchSetting, allowed_cpus};
use counts::Counts;
use guest::Guest;
use live::{Live, Second};
use summary::Summary;
use traffic::Traffic;

/// How often the run looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);

/// Runs the demo. Status 1 if a packet was lost, changed, doubled or overtaken, or is not accounted for.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let interrupted = interruption()?;
    let dir = tempfile::Builder::new().prefix("polder-demo").tempdir().map_err(Failure::runtime)?;
    let (switch_cpu, guest_cpu) = two_cpus()?;
    let plane = start_switch(switch_cpu, &dir)?;
    let guests = connect_guests(&dir, args.size as usize)?;
    let before = stats(&plane);
    let traffic = Traffic::start(guests, guest_cpu)?;
    let mut live = Live::new(!args.json);
    let started = Instant::now();
    watch(args, &plane, &traffic, &mut live, &interrupted)?;
    let elapsed = started.elapsed();
    let ways = traffic.finish()?;
    let after = stats(&plane);
    plane.remove_all(Duration::from_secs(10));
    let unaccounted = plane.view().stats().totals().unaccounted();
    let summary = Summary {
        cpus: (switch_cpu, guest_cpu),
        size: args.size,
        elapsed,
        ways,
        best_mpps: live.best_mpps(),
        switch: Second::between(&before, &after),
        mempool: plane.pool().balance(),
        unaccounted,
    };
    crate::ask::print(&if args.json { summary.as_json() } else { summary.as_text() })?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn interruption() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(Failure::runtime)?;
    }
    Ok(flag)
}

/// One for the switch, one for the guests; the same one if there is no other.
fn two_cpus() -> Result<(usize, usize), Failure> {
    let allowed = allowed_cpus();
    match (allowed.last(), allowed.first()) {
        (Some(switch), Some(guests)) => Ok((*switch, *guests)),
        _ => Err(Failure::runtime("the system does not tell which CPUs polder may run on")),
    }
}

/// The sockets' names, and the guests'.
const NAMES: [&str; 2] = ["a", "b"];

fn start_switch(cpu: usize, dir: &TempDir) -> Result<Plane, Failure> {
    let port =
        |name: &str| format!("{name}=vhost-user:{}", dir.path().join(name).display()).parse::<PortSetting>();
    let ports = NAMES.map(port).into_iter().collect::<Result<_, _>>().map_err(Failure::runtime)?;
    let settings = Settings {
        ports,
        cpus: vec![cpu],
        switch: SwitchSetting::default(),
        memory: MemorySize::default(),
        hugepages: Hugepages::Auto,
        sandbox: Sandbox::Off,
        control: None,
    };
    let plane = Plane::start(&settings, Hugepages::Off, OnDeath::default())?;
    for port in &settings.ports {
        plane.add(port).map_err(PlaneError::into_failure)?;
    }
    Ok(plane)
}

fn connect_guests(dir: &TempDir, size: usize) -> Result<[Guest; 2], Failure> {
    let mut a = Guest::connect(&dir.path().join(NAMES[0]), 0, 1, size)?;
    let mut b = Guest::connect(&dir.path().join(NAMES[1]), 1, 0, size)?;
    guest::shake_hands(&mut a, &mut b)?;
    Ok([a, b])
}

/// One look at switch and guests.
struct Look {
    stats: Stats,
    counts: Counts,
    at: Instant,
}

impl Look {
    fn now(plane: &Plane, traffic: &Traffic) -> Self {
        Self { stats: stats(plane), counts: traffic.counts(), at: Instant::now() }
    }

    /// Shows what happened since `earlier`.
    fn show(&self, earlier: &Self, live: &mut Live, left: Duration) -> Result<(), Failure> {
        let second = Second::between(&earlier.stats, &self.stats);
        live.show(&second, &earlier.counts, &self.counts, self.at - earlier.at, left)
    }
}

/// Shows each second, until time is up or somebody wants it to end.
fn watch(
    args: &DemoArgs,
    plane: &Plane,
    traffic: &Traffic,
    live: &mut Live,
    interrupted: &AtomicBool,
) -> Result<(), Failure> {
    let whole = Duration::from_secs(args.seconds.into());
    let mut earlier = Look::now(plane, traffic);
    let started = earlier.at;
    let goes_on =
        || started.elapsed() < whole && !interrupted.load(Ordering::Relaxed) && !traffic.is_stalled();
    let mut going = true;
    while going {
        std::thread::sleep(TICK);
        going = goes_on();
        // The last second may be a little short.
        if earlier.at.elapsed() >= if going { SECOND } else { SECOND / 2 } {
            let now = Look::now(plane, traffic);
            now.show(&earlier, live, whole.saturating_sub(started.elapsed()))?;
            earlier = now;
        }
    }
    Ok(())
}

//! l2fwd: every packet that comes in by one port of a pair goes out by the other.
//!
//! ```text
//! cargo run --release -p polder-examples --bin l2fwd -- vhost-user:/tmp/a vhost-user:/tmp/b
//! cargo run --release -p polder-examples --bin l2fwd -- pcap:rx=in.pcap pcap:tx=out.pcap --rewrite-macs --seconds 2
//! ```
//! Read it from the bottom up: `main` makes a pool and ports, `forward` is the whole data plane.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use mbuf::{Burst, LcoreId, Mbuf, Mempool, MempoolConfig};
use pmd::{DropReason, Port, PortError, QueueEnv, RxQueue, TxQueue};
use vhost::VhostUserPort;

/// Forwards between pairs of ports: the first with the second, the third with the fourth ...
#[derive(Parser)]
struct Args {
    /// An even number of ports, each KIND:REST, as for `polder run`.
    #[arg(required = true)]
    specs: Vec<String>,
    /// Set the source to 02:00:00:00:01:PORT and the destination to 02:00:00:00:00:PORT, of the port it leaves by.
    #[arg(long)]
    rewrite_macs: bool,
    /// End after so many seconds; without, at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// Run on this CPU.
    #[arg(long)]
    cpu: Option<usize>,
}

/// One direction: from a port's receive half to its partner's transmit half.
struct Lane {
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    /// Number of the port it leads to.
    to: u8,
}

fn rewrite(mbuf: &mut Mbuf<'_>, to: u8) {
    if let Some([header @ .., _, _]) = mbuf.data_mut().and_then(|d| d.first_chunk_mut::<14>()) {
        *header = [2, 0, 0, 0, 0, to, 2, 0, 0, 0, 1, to];
    }
}

fn forward(lanes: &mut [Lane], rewrite_macs: bool, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for Lane { rx, tx, to } in &mut *lanes {
            let mut burst = Burst::new();
            if rx.rx_burst(&mut burst) == 0 {
                continue;
            }
            if rewrite_macs {
                burst.iter_mut().for_each(|m| rewrite(m, *to));
            }
            tx.tx_burst(&mut burst);
            // Whoever is full drops its own packets; nobody waits.
            tx.drop_burst(&mut burst, DropReason::TxFull);
            drop(burst); // Only without packets in hand may the turn end:
            rx.complete(); // the sender gets its buffers back,
            tx.flush(); // the receiver is told.
        }
    }
}

fn open(spec: &str) -> Result<Box<dyn Port>, PortError> {
    let (kind, rest) = spec.split_once(':').unwrap_or((spec, ""));
    match kind {
        "vhost-user" => Ok(Box::new(VhostUserPort::new(&rest.parse()?)?)),
        _ => pmd::from_spec(kind, rest),
    }
}

fn print_counters(specs: &[String], ports: &[Box<dyn Port>]) {
    for (spec, port) in specs.iter().zip(ports) {
        let counters = port.counters();
        let (rx, tx) = (&counters.rx[0], &counters.tx[0]);
        let drops: u64 = rx.drops.iter().chain(&tx.drops).map(pmd::Counter::get).sum();
        println!(
            "{spec}: link {}, rx {}, tx {}, dropped {drops}",
            port.link(),
            rx.packets.get(),
            tx.packets.get()
        );
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if !args.specs.len().is_multiple_of(2) {
        return Err("give an even number of ports".into());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let pool = Mempool::new(&MempoolConfig::default())?;
    let mut ports = args.specs.iter().map(|s| open(s)).collect::<Result<Vec<_>, _>>()?;
    let mut halves = Vec::new();
    for (number, port) in (0..).zip(&mut ports) {
        halves.push(port.open(QueueEnv { pool, port: number })?);
    }
    let mut lanes = Vec::new();
    for from in 0..halves.len() {
        let to = from ^ 1; // A pair is an even number and the odd one behind it.
        lanes.push(Lane { rx: halves[from].rx.remove(0), tx: halves[to].tx.remove(0), to: to as u8 });
    }
    let lcore = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let _identity = LcoreId::claim(); // A mempool cache of its own.
            pmd::notify::prepare_thread()?; // So that calling a guest never waits.
            if let Some(cpu) = args.cpu {
                let mut set = rustix::thread::CpuSet::new();
                set.set(cpu);
                rustix::thread::sched_setaffinity(None, &set).expect("--cpu names a CPU of this machine");
            }
            forward(&mut lanes, args.rewrite_macs, &stop);
            Ok::<_, pmd::notify::NotifyError>(())
        })
    };
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) && !lcore.is_finished() {
        std::thread::sleep(Duration::from_secs(1));
        print_counters(&args.specs, &ports);
        let over = args.seconds.is_some_and(|s| start.elapsed() >= Duration::from_secs(s));
        stop.fetch_or(over, Ordering::Relaxed);
    }
    lcore.join().map_err(|_| "the lcore panicked")??;
    print_counters(&args.specs, &ports);
    drop(ports); // Whatever their rings held is back in the pool.
    let balance = pool.balance();
    println!(
        "mbufs: {} free + {} cached + {} out = {}",
        balance.free, balance.cached, balance.out, balance.total
    );
    Ok(())
}

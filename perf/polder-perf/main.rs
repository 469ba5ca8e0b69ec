//! polder-perf: benchmarks of a switch, by one command each.
//!
//! ```text
//! polder-perf bench                                 Polder in this process: RFC 2544 for all sizes, RFC 2889
//! polder-perf bench --ports /tmp/a,/tmp/b           any device with two vhost-user ports
//! polder-perf idle                                  CPU time of a switch that is idle, and its wake-ups
//! polder-perf peers --peers testpmd,polder,ovs      the same load through each, in turns
//! polder-perf floor                                 what moving frames costs at the very least
//! ```

mod bench;
mod figures;
mod floor;
mod idle;
mod measuring;
mod peers;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of a switch.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// RFC 2544: throughput, partial drop rate, latency, back-to-back; RFC 2889: address caching capacity, learning rate.
    Bench(bench::Args),
    /// A switch that has nothing to do: its CPU time, and how soon it is there when a frame comes.
    Idle(idle::Args),
    /// Polder beside its peers: the same generator, in turns, placement checked; medians and ratios.
    Peers(peers::Args),
    /// A bare loop that moves frames between two guests' rings and does nothing else: how fast a device could be.
    Floor(floor::Args),
}

fn main() -> ExitCode {
    perf::say::warnings();
    let done = match Args::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Idle(args) => idle::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Floor(args) => floor::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            perf::say::err(&format_args!("polder-perf: {error}"));
            ExitCode::FAILURE
        }
    }
}

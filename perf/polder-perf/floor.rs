//! `polder-perf floor`.

use clap::Parser;
use perf::pattern::Sizes;
use perf::peers::{Floor, Peer};
use vhost::driver::Order;

use crate::measuring::Measuring;
use crate::peers::{Rings, path};

#[derive(Parser)]
pub(crate) struct Args {
    /// Frames moved at once, at most: 1 to 256.
    #[arg(long, value_delimiter = ',', default_value = "32,64,256", value_parser = clap::value_parser!(u16).range(1..=256))]
    bursts: Vec<u16>,
    /// How often each frame is copied: 1, or 2.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u8).range(1..=2))]
    copies: Vec<u8>,
    /// Frame sizes in bytes without FCS, or imix.
    #[arg(long, value_delimiter = ',', default_value = "60,1514")]
    sizes: Vec<Sizes>,
    /// Queue pairs of each guest.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    queues: Vec<u16>,
    #[command(flatten)]
    measuring: Measuring,
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let floors = args
        .copies
        .iter()
        .flat_map(|&copies| args.bursts.iter().map(move |&burst| Peer::Floor(Floor { burst, copies })));
    let paths = args.queues.iter().flat_map(|&queues| {
        args.sizes.iter().map(move |&size| path(Rings::Mergeable, 2, queues, 1, size, Order::Same))
    });
    args.measuring.run(&floors.collect::<Vec<_>>(), paths.collect())
}

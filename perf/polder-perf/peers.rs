//! `polder-perf peers`.

use clap::{Parser, ValueEnum};
use perf::compare::Path;
use perf::endpoint::GuestOptions;
use perf::pattern::{Pattern, Sizes};
use perf::peers::Peer;
use vhost::driver::Order;

use crate::measuring::Measuring;

/// Which of a guest's choices a path makes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rings {
    /// Split, mergeable.
    Mergeable,
    /// Split, one buffer a frame.
    NotMergeable,
    /// Split, mergeable, in order.
    InOrder,
    /// Split, mergeable, indirect descriptors.
    Indirect,
    /// Packed, mergeable.
    Packed,
    /// Packed, one buffer a frame.
    PackedNotMergeable,
    /// Packed, mergeable, in order.
    PackedInOrder,
    /// Packed, mergeable, indirect descriptors.
    PackedIndirect,
}

impl Rings {
    fn options(self) -> GuestOptions {
        let packed = matches!(
            self,
            Self::Packed | Self::PackedNotMergeable | Self::PackedInOrder | Self::PackedIndirect
        );
        GuestOptions {
            packed,
            mergeable: !matches!(self, Self::NotMergeable | Self::PackedNotMergeable),
            in_order: matches!(self, Self::InOrder | Self::PackedInOrder),
            indirect: matches!(self, Self::Indirect | Self::PackedIndirect),
            ..GuestOptions::default()
        }
    }

    /// Rings in order have one order only.
    fn takes(self, order: Order) -> bool {
        order == Order::Same || !self.options().in_order
    }
}

#[derive(Parser)]
pub(crate) struct Args {
    /// Devices, separated by commas; the first is what ratios are to: polder, before (another build of it, see --before), testpmd, testpmd:large (mbufs of 64 KiB), ovs, vpp (a
    /// bridge), vpp:xconnect, offtheshelf. `floor[:BURST[xCOPIES]]` is none: what is left of one that only moves frames. Programs
    /// of DPDK's and of VPP's are those in the PATH.
    #[arg(long, value_delimiter = ',', default_value = "testpmd,polder,ovs,floor")]
    peers: Vec<Peer>,
    /// Frame sizes in bytes without FCS; imix; or 64k: TCP that guests leave to others to segment.
    #[arg(long, value_delimiter = ',', default_value = "60,1514")]
    sizes: Vec<Sizes>,
    /// MAC addresses on each side.
    #[arg(long, value_delimiter = ',', default_value = "1,1000", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    macs: Vec<u32>,
    /// Kinds of rings.
    #[arg(long, value_delimiter = ',', default_value = "mergeable")]
    rings: Vec<Rings>,
    /// In which order guests post free buffers again: same (as they came back), lifo (newest first) or shuffled. In the last two
    /// headers of receive buffers have foreign content, as in a Linux guest.
    #[arg(long, value_delimiter = ',', default_value = "lifo,same")]
    orders: Vec<Order>,
    /// Guests, an even number; two of them are busy.
    #[arg(long, value_delimiter = ',', default_value = "2", value_parser = guests)]
    guests: Vec<usize>,
    /// Queue pairs of each guest, all of them on one core of the device's and one of the generator's.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=16))]
    queues: Vec<u16>,
    #[command(flatten)]
    measuring: Measuring,
}

fn guests(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n: &usize| (2..=128).contains(n) && n.is_multiple_of(2));
    number.ok_or_else(|| "an even number from 2 to 128".into())
}

impl Args {
    fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        for &rings in &self.rings {
            for &guests in &self.guests {
                for &queues in &self.queues {
                    for &macs in &self.macs {
                        for &order in self.orders.iter().filter(|order| rings.takes(**order)) {
                            let path = |&size| path(rings, guests, queues, macs, size, order);
                            paths.extend(self.sizes.iter().map(path));
                        }
                    }
                }
            }
        }
        paths
    }
}

/// Two busy guests among `guests`.
pub(crate) fn path(rings: Rings, guests: usize, queues: u16, macs: u32, sizes: Sizes, order: Order) -> Path {
    let kind = rings.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    let s = |n: usize| if n == 1 { "" } else { "s" };
    let unit = if matches!(sizes, Sizes::Fixed(_) | Sizes::Between(..)) { " B" } else { "" };
    let name = format!(
        "{kind}, {sizes}{unit}, {macs} MAC{}, {order}, {guests} guests, {queues} queue pair{}",
        s(macs as usize),
        s(queues.into())
    );
    let pattern = Pattern { sizes, macs, ..Pattern::default() };
    let options = GuestOptions { order, foreign_headers: order != Order::Same, ..rings.options() };
    Path { name, guests: options, pattern, ports: guests, queues, busy: 2 }
}

pub(crate) fn run(args: &Args) -> Result<(), String> {
    args.measuring.run(&args.peers, args.paths())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_all_combinations() {
        let args = ["peers", "--sizes", "60,64k", "--queues", "1,4", "--guests", "2,64", "--macs", "1,32000"];
        let paths = Args::parse_from(args).paths();
        assert_eq!(paths.len(), 32);
        assert_eq!(paths[0].name, "mergeable, 60 B, 1 MAC, lifo, 2 guests, 1 queue pair");
        assert_eq!(paths[31].name, "mergeable, 64k, 32000 MACs, same, 64 guests, 4 queue pairs");
        let in_order = ["peers", "--sizes", "60", "--rings", "in-order", "--macs", "1"];
        assert_eq!(Args::parse_from(in_order).paths().len(), 1, "rings in order have one order");
        assert!(Args::try_parse_from(["peers", "--guests", "3"]).is_err());
    }
}

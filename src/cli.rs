//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use tracing::level_filters::LevelFilter;

use pmd::bus::pci::Bdf;

use crate::failure::Failure;
use crate::report::MOST_SECONDS;
use crate::settings::{CpuList, Hugepages, MemorySize, PortName, PortSetting, Sandbox};

/// A poll-mode virtual switch and vhost-user backend.
#[derive(Debug, Parser)]
#[command(name = "polder", version, arg_required_else_help = false, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The daemon's control socket [default: /run/polder/control.sock for root, else
    /// $XDG_RUNTIME_DIR/polder/control.sock, else /tmp/polder-UID/control.sock]
    #[arg(long, global = true, value_name = "PATH", env = "POLDER_CONTROL", hide_env_values = true)]
    pub(crate) control: Option<PathBuf>,
    /// What to write to standard error: off, error, warn, info, debug or trace [default: warn; of demo: error]
    #[arg(long, global = true, value_name = "LEVEL", env = "POLDER_LOG", hide_env_values = true)]
    pub(crate) log: Option<LevelFilter>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the switch in the foreground until SIGTERM or SIGINT
    Run(RunArgs),
    /// Show the switch at work between two embedded virtio guests; needs nothing installed
    Demo(DemoArgs),
    /// Look at and change the ports of a running switch
    #[command(subcommand)]
    Port(PortCommand),
    /// Look at and flush the forwarding table of a running switch
    #[command(subcommand)]
    Fdb(FdbCommand),
    /// Counters of a running switch
    Stats(StatsArgs),
    /// Look at what this machine offers, and say how to mend what it lacks
    Doctor(DoctorArgs),
    /// Look at the network cards of this machine, and take them from the kernel or give them back; needs no running switch
    Nic(NicArgs),
}

/// `polder run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML); the other options take precedence over it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A port, for example vm1=vhost-user:/run/vm1.sock,queues=2; repeatable. It replaces the file's port of that name
    #[arg(long = "port", value_name = "NAME=SPEC")]
    pub(crate) ports: Vec<PortSetting>,
    /// CPUs to poll on, one lcore each, for example 0,2-3 [default: one lcore on one CPU]
    #[arg(long, value_name = "LIST")]
    pub(crate) lcores: Option<CpuList>,
    /// Packet memory, for example 64M [default: 64M]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<MemorySize>,
    /// Pages for it: auto, 1g, 2m or off [default: auto]
    #[arg(long, value_name = "KIND")]
    pub(crate) hugepages: Option<Hugepages>,
    /// Rights to give up once it runs: auto keeps what ports need that may still be added, strict what the configured ones
    /// need, off all [default: auto]
    #[arg(long, value_name = "KIND")]
    pub(crate) sandbox: Option<Sandbox>,
}

/// `polder demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long to run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,
    /// Frame length without FCS
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(60..=1514))]
    pub(crate) size: u32,
    /// One JSON object at the end instead of the table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `polder port`
#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// All ports
    List {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Add a port
    Add {
        /// Its name and what it is, for example vm1=vhost-user:/run/vm1.sock
        #[arg(value_name = "NAME=SPEC")]
        port: PortSetting,
    },
    /// Remove a port
    Del {
        /// Its name
        name: PortName,
    },
    /// One port with all its counters
    Show {
        /// Its name
        name: PortName,
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

/// `polder fdb`
#[derive(Debug, Subcommand)]
pub(crate) enum FdbCommand {
    /// All addresses known, and the ports they are behind
    List {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Forget what was learned
    Flush,
}

/// `polder stats`
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Again each second, with rates, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Where the lcores' cycles go, by stage of a packet's way, measured for so many seconds [default: 1, at most 60]. The switch
    /// is a little slower meanwhile
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", conflicts_with = "watch")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SECONDS)))]
    pub(crate) stages: Option<u32>,
}

/// `polder doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// Which machine to look at.
#[derive(Debug, Default, Args)]
pub(crate) struct MachineArgs {
    /// A folder that stands for its root: for tests
    #[arg(long, hide = true, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// `polder nic`
#[derive(Debug, Args)]
pub(crate) struct NicArgs {
    #[command(subcommand)]
    pub(crate) command: NicCommand,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What to do with network cards.
#[derive(Debug, Subcommand)]
pub(crate) enum NicCommand {
    /// All network cards: what they are, who has them, and whether Polder can drive them or why not
    List {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Have a card make virtual functions; prints them, one a line
    Vfs {
        /// Its physical function, for example 0000:01:00.0
        #[arg(value_name = "PF")]
        pf: Bdf,
        /// How many there are to be; 0 takes them all away
        #[arg(value_name = "N")]
        count: u16,
        /// Even if somebody uses those that there are
        #[arg(long)]
        force: bool,
    },
    /// Take a card from the kernel's driver and give it to vfio-pci, for Polder to drive
    Bind {
        /// Where it sits, for example 0000:01:10.0
        #[arg(value_name = "BDF")]
        bdf: Bdf,
        /// Even if its interface is up, so that whoever is reached by it is cut off; and even if it is no network card
        #[arg(long)]
        force: bool,
    },
    /// Give a card back to the kernel's driver
    Unbind {
        /// Where it sits, for example 0000:01:10.0
        #[arg(value_name = "BDF")]
        bdf: Bdf,
        /// Even if a program has it: waits until that lets go
        #[arg(long)]
        force: bool,
    },
}

impl Cli {
    /// Reads the command line. Prints help or the version and returns `None` if that was asked for.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, Failure> {
        match Self::try_parse_from(args) {
            Ok(cli) => Ok(Some(cli)),
            Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                // A reader that went away wants no help.
                let _ = e.print();
                Ok(None)
            }
            Err(e) => Err(Failure::usage(in_one_line(&e))),
        }
    }
}

/// What is wrong and where help is, of clap's several paragraphs.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraphs: Vec<&str> = text.split("\n\n").map(str::trim).collect();
    let what = paragraphs.first().map_or("bad arguments", |p| p.trim_start_matches("error: "));
    let tip = paragraphs.iter().find_map(|p| p.strip_prefix("tip: ")).map(|t| format!("; {t}"));
    let usage = paragraphs.iter().find_map(|p| p.strip_prefix("Usage: ")).map(|u| format!("; usage: {u}"));
    format!("{what}{}", tip.or(usage).unwrap_or_else(|| "; see 'polder help'".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Cli>, Failure> {
        Cli::read(line.split(' ').map(OsString::from))
    }

    #[test]
    fn definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_of_run() {
        let line =
            "polder run --port a=null --port b=null --lcores 0 --control /tmp/c --memory 32M --hugepages off";
        let cli = read(line).unwrap().unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.ports.len(), 2);
        assert_eq!(args.lcores.unwrap().cpus(), [0]);
        assert_eq!(cli.global.control.unwrap(), PathBuf::from("/tmp/c"));
    }

    #[test]
    fn seconds_of_stages() {
        let seconds = |line| match read(line).unwrap().unwrap().command {
            Command::Stats(args) => args.stages,
            _ => panic!("not stats"),
        };
        assert_eq!(seconds("polder stats"), None);
        assert_eq!(seconds("polder stats --stages"), Some(1));
        assert_eq!(seconds("polder stats --stages 7 --json"), Some(7));
    }

    #[test]
    fn errors_are_one_line_with_a_way_out() {
        for line in [
            "polder",
            "polder fly",
            "polder run --prot a=null",
            "polder port add",
            "polder run --port a",
            "polder stats x",
            "polder stats --stages 0",
            "polder stats --stages 61",
            "polder stats --stages --watch",
        ] {
            let failure = read(line).unwrap_err();
            let text = failure.to_string();
            assert!(matches!(failure, Failure::Usage(_)), "{line}");
            assert!(
                text.contains("; ") && !text.contains("error:") && !text.contains('\n'),
                "{line}: {text}"
            );
        }
    }
}

//! Other devices, each with as many vhost-user ports as asked for, on one CPU, as its own manual sets it up.

mod floor;
mod memory;
mod ovs;
mod polder;
mod process;
mod testpmd;
mod vpp;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use process::Process;
use vpp::Layer2;

pub use floor::Floor;
pub use memory::Memory;

/// How long a device may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Polder: a learning switch.
    Polder,
    /// Another build of Polder: what it was before a change.
    Before,
    /// DPDK's testpmd, io forwarding between pairs of ports: no lookup.
    Testpmd,
    /// The same with mbufs that each hold a whole frame of 64 KiB, which nobody's are unless told so.
    TestpmdLarge,
    /// Open vSwitch with DPDK, action NORMAL: a learning switch.
    Ovs,
    /// FD.io VPP, a bridge domain: a learning switch.
    Vpp,
    /// FD.io VPP, cross-connect between pairs of ports: no lookup.
    VppCrossConnect,
    /// vhost-user-backend and virtio-queue, as they are: frames from one port of a pair to the other.
    OffTheShelf,
    /// No device: a loop that moves frames from one port of a pair to the other, and does nothing else.
    Floor(Floor),
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("polder", "") => Ok(Self::Polder),
            ("before", "") => Ok(Self::Before),
            ("testpmd", "") => Ok(Self::Testpmd),
            ("testpmd", "large") => Ok(Self::TestpmdLarge),
            ("ovs", "") => Ok(Self::Ovs),
            ("vpp", "") => Ok(Self::Vpp),
            ("vpp", "xconnect") => Ok(Self::VppCrossConnect),
            ("offtheshelf", "") => Ok(Self::OffTheShelf),
            ("floor", "") => Ok(Self::Floor(Floor::default())),
            ("floor", how) => Ok(Self::Floor(how.parse()?)),
            _ => Err(format!(
                "{text:?}: there are polder, before, testpmd, testpmd:large, ovs, vpp, vpp:xconnect, offtheshelf, floor and \
                 floor:BURST[xCOPIES]"
            )),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Polder => f.write_str("polder"),
            Self::Before => f.write_str("before"),
            Self::Testpmd => f.write_str("testpmd"),
            Self::TestpmdLarge => f.write_str("testpmd:large"),
            Self::Ovs => f.write_str("ovs"),
            Self::Vpp => f.write_str("vpp"),
            Self::VppCrossConnect => f.write_str("vpp:xconnect"),
            Self::OffTheShelf => f.write_str("offtheshelf"),
            Self::Floor(floor) => floor.fmt(f),
        }
    }
}

impl Peer {
    /// What it does with a frame.
    #[must_use]
    pub fn does(self) -> &'static str {
        match self {
            Self::Polder | Self::Before => "learning switch",
            Self::Testpmd => "io: no lookup",
            Self::TestpmdLarge => "io: no lookup; mbufs of 64 KiB",
            Self::Ovs => "NORMAL: learning switch",
            Self::Vpp => "bridge domain: learning switch",
            Self::VppCrossConnect => "cross-connect: no lookup",
            Self::OffTheShelf => {
                "port to port, off-the-shelf crates; one queue pair, split rings, not mergeable"
            }
            Self::Floor(_) => "no device: port to port, no check, no lookup, no count",
        }
    }

    /// What it says its version is; an error if it is not installed.
    ///
    /// # Errors
    /// The program's name and, where there is one, its package's.
    pub fn version(self, programs: &Programs) -> Result<String, String> {
        match self {
            Self::Polder => process::first_line(&programs.polder, &["--version"]),
            Self::Before => process::first_line(programs.before()?, &["--version"]),
            Self::Testpmd | Self::TestpmdLarge => testpmd::version(),
            Self::Ovs => ovs::version(),
            Self::Vpp | Self::VppCrossConnect => vpp::version(),
            Self::OffTheShelf => Ok("vhost-user-backend 0.24, virtio-queue 0.18".into()),
            Self::Floor(_) => Ok(env!("CARGO_PKG_VERSION").into()),
        }
    }
}

/// Where our own programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `polder`.
    pub polder: PathBuf,
    /// Another build of `polder`, if one was named.
    pub before: Option<PathBuf>,
    /// `offtheshelf`.
    pub offtheshelf: PathBuf,
    /// `floor`.
    pub floor: PathBuf,
}

impl Programs {
    /// Beside this program, where cargo puts them all.
    ///
    /// # Errors
    /// If it is not known where this program is.
    pub fn beside_this() -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let folder = this.parent().unwrap_or(Path::new("."));
        let [polder, offtheshelf, floor] = ["polder", "offtheshelf", "floor"].map(|name| folder.join(name));
        Ok(Self { polder, before: None, offtheshelf, floor })
    }

    fn before(&self) -> Result<&Path, String> {
        self.before
            .as_deref()
            .ok_or_else(|| "`before` needs --before PROGRAM, another build of polder".into())
    }
}

/// What a path needs of a device.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Vhost-user ports.
    pub ports: usize,
    /// Queue pairs of each.
    pub queues: u16,
    /// Stations that a learning switch must know, on all ports together.
    pub stations: usize,
    /// Whether frames of 64 KiB go through it whole, to be segmented by whoever needs them small.
    pub segmentation: bool,
}

/// The same, for one start.
struct Setup<'a> {
    /// A port each.
    sockets: &'a [PathBuf],
    queues: u16,
    stations: usize,
    segmentation: bool,
    cpu: usize,
}

/// A device that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// The vhost-user sockets that it listens on.
    pub sockets: Vec<PathBuf>,
    processes: Vec<Process>,
    _folder: tempfile::TempDir,
}

impl Running {
    /// The memory that its processes take, all together.
    ///
    /// # Errors
    /// If one of them has ended.
    pub fn memory(&self) -> Result<Memory, String> {
        self.processes.iter().map(|process| memory::of(process.id())).sum()
    }
}

/// Starts a device on CPU `cpu`, and waits until it listens.
///
/// # Errors
/// What is missing, or what it says.
pub fn start(peer: Peer, programs: &Programs, needs: Needs, cpu: usize) -> Result<Running, String> {
    let folder = tempfile::Builder::new().prefix("peer").tempdir().map_err(|e| e.to_string())?;
    let sockets: Vec<_> = (0..needs.ports).map(|i| folder.path().join(format!("p{i}"))).collect();
    let Needs { queues, stations, segmentation, .. } = needs;
    let setup = Setup { sockets: &sockets, queues, stations, segmentation, cpu };
    let home = folder.path();
    let mut processes = match peer {
        Peer::Polder => polder::start(&programs.polder, home, &setup)?,
        Peer::Before => polder::start(programs.before()?, home, &setup)?,
        Peer::Testpmd => testpmd::start(home, &setup, testpmd::USUAL)?,
        Peer::TestpmdLarge => testpmd::start(home, &setup, testpmd::LARGE)?,
        Peer::Ovs => ovs::start(home, &setup)?,
        Peer::Vpp => vpp::start(home, &setup, Layer2::Bridge)?,
        Peer::VppCrossConnect => vpp::start(home, &setup, Layer2::CrossConnect)?,
        Peer::OffTheShelf => polder::start_offtheshelf(&programs.offtheshelf, home, &setup)?,
        Peer::Floor(floor) => floor::start(floor, programs, home, &setup)?,
    };
    wait_until_it_listens(peer, &sockets, &mut processes)?;
    Ok(Running { sockets, processes, _folder: folder })
}

fn wait_until_it_listens(peer: Peer, sockets: &[PathBuf], processes: &mut [Process]) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while !sockets.iter().all(|socket| socket.exists()) {
        if let Some(ended) = processes.iter_mut().find_map(Process::ended) {
            return Err(format!("{peer}: {ended}"));
        }
        if Instant::now() > end {
            return Err(format!("{peer}: it does not listen within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A socket is there a moment before it is listened on.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_by_the_names_they_have() {
        for name in
            ["polder", "before", "testpmd", "testpmd:large", "ovs", "vpp", "vpp:xconnect", "offtheshelf"]
        {
            assert_eq!(name.parse::<Peer>().unwrap().to_string(), name);
        }
        assert_eq!("floor:256".parse(), Ok(Peer::Floor(Floor { burst: 256, copies: 1 })));
        assert_eq!("floor".parse(), Ok(Peer::Floor(Floor::default())));
        for bad in ["", "vpp:1", "polder:1", "floor:x"] {
            assert!(bad.parse::<Peer>().is_err(), "{bad}");
        }
    }
}

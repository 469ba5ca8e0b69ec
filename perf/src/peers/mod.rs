//! Other devices, each with as many vhost-user ports as asked for, on one CPU, as its own manual sets it up.

mod ovs;
mod polder;
mod process;
mod testpmd;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use process::Process;

/// How long a device may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Polder: a learning switch.
    Polder,
    /// DPDK's testpmd, io forwarding between pairs of ports: no lookup.
    Testpmd,
    /// Open vSwitch with DPDK, action NORMAL: a learning switch.
    Ovs,
    /// vhost-user-backend and virtio-queue, as they are: frames from one port of a pair to the other.
    OffTheShelf,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|peer| peer.name() == text)
            .ok_or_else(|| format!("{text:?}: there are polder, testpmd, ovs, offtheshelf"))
    }
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Polder, Self::Testpmd, Self::Ovs, Self::OffTheShelf];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Polder => "polder",
            Self::Testpmd => "testpmd",
            Self::Ovs => "ovs",
            Self::OffTheShelf => "offtheshelf",
        }
    }

    /// What it does with a frame.
    #[must_use]
    pub fn does(self) -> &'static str {
        match self {
            Self::Polder => "learning switch",
            Self::Testpmd => "io: no lookup",
            Self::Ovs => "NORMAL: learning switch",
            Self::OffTheShelf => "port to port, off-the-shelf crates",
        }
    }

    /// What it says its version is; an error if it is not installed.
    ///
    /// # Errors
    /// The program's name and, where there is one, its package's.
    pub fn version(self, programs: &Programs) -> Result<String, String> {
        match self {
            Self::Polder => process::first_line(&programs.polder, &["--version"]),
            Self::Testpmd => testpmd::version(),
            Self::Ovs => ovs::version(),
            Self::OffTheShelf => Ok("vhost-user-backend 0.24, virtio-queue 0.18".into()),
        }
    }
}

/// Where our own programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `polder`.
    pub polder: PathBuf,
    /// `offtheshelf`.
    pub offtheshelf: PathBuf,
}

impl Programs {
    /// Beside this program, where cargo puts them all.
    ///
    /// # Errors
    /// If it is not known where this program is.
    pub fn beside_this() -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let folder = this.parent().unwrap_or(Path::new("."));
        Ok(Self { polder: folder.join("polder"), offtheshelf: folder.join("offtheshelf") })
    }
}

/// A device that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// The vhost-user sockets that it listens on.
    pub sockets: Vec<PathBuf>,
    _processes: Vec<Process>,
    _folder: tempfile::TempDir,
}

/// Starts a device with `ports` vhost-user ports on CPU `cpu`, and waits until it listens.
///
/// # Errors
/// What is missing, or what it says.
pub fn start(peer: Peer, programs: &Programs, ports: usize, cpu: usize) -> Result<Running, String> {
    let folder = tempfile::Builder::new().prefix("peer").tempdir().map_err(|e| e.to_string())?;
    let sockets: Vec<_> = (0..ports).map(|i| folder.path().join(format!("p{i}"))).collect();
    let mut processes = match peer {
        Peer::Polder => polder::start(&programs.polder, folder.path(), &sockets, cpu)?,
        Peer::Testpmd => testpmd::start(folder.path(), &sockets, cpu)?,
        Peer::Ovs => ovs::start(folder.path(), &sockets, cpu)?,
        Peer::OffTheShelf => polder::start_offtheshelf(&programs.offtheshelf, folder.path(), &sockets, cpu)?,
    };
    let end = Instant::now() + PATIENCE;
    while !sockets.iter().all(|socket| socket.exists()) {
        if let Some(ended) = processes.iter_mut().find_map(Process::ended) {
            return Err(format!("{}: {ended}", peer.name()));
        }
        if Instant::now() > end {
            return Err(format!("{}: it does not listen within {PATIENCE:?}", peer.name()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A socket is there a moment before it is listened on.
    std::thread::sleep(Duration::from_millis(500));
    Ok(Running { sockets, _processes: processes, _folder: folder })
}

//! The device under test: Polder's switch in this process, behind real vhost-user sockets, or any other behind its own.

use std::path::{Path, PathBuf};

use mbuf::{Mempool, MempoolConfig};
use pmd::{Port, QueueEnv};
use tempfile::TempDir;
use vhost::VhostUserPort;
use vswitch::{FdbConfig, IdlePolicy, LcoreConfig, Switch, SwitchConfig};

use crate::endpoint::{EndpointSpec, GuestSpec};

/// What the switch in this process is made of.
#[derive(Clone, Copy, Debug)]
pub struct DutConfig {
    /// Vhost-user ports.
    pub ports: usize,
    /// Queue pairs of each.
    pub queues: u16,
    /// The CPU of its one lcore; `None`: wherever the system likes.
    pub cpu: Option<usize>,
    /// Whether the lcore spins when nothing comes.
    pub spin: bool,
    /// MAC addresses that it can learn; `None`: its default.
    pub macs: Option<usize>,
}

impl Default for DutConfig {
    fn default() -> Self {
        Self { ports: 2, queues: 1, cpu: None, spin: true, macs: None }
    }
}

/// A device under test, as its guests see it.
pub struct Dut {
    sockets: Vec<PathBuf>,
    queues: u16,
    _own: Option<OwnSwitch>,
}

/// Dropped in this order.
struct OwnSwitch {
    _switch: Switch,
    _ports: Vec<VhostUserPort>,
    _folder: TempDir,
}

impl Dut {
    /// One that runs already and listens on these vhost-user sockets.
    #[must_use]
    pub fn outside(sockets: Vec<PathBuf>, queues: u16) -> Self {
        Self { sockets, queues, _own: None }
    }

    /// Polder's switch, in this process.
    ///
    /// # Errors
    /// Says what could not be had.
    pub fn start(config: &DutConfig) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|e| format!("temporary folder: {e}"))?;
        let fdb = FdbConfig::default();
        let fdb = FdbConfig { capacity: config.macs.unwrap_or(fdb.capacity), ..fdb };
        let idle = if config.spin { IdlePolicy::Spin } else { IdlePolicy::default() };
        let lcores = vec![LcoreConfig { id: 0, cpu: config.cpu }];
        let mut switch = Switch::start(SwitchConfig { lcores, fdb, idle, ..SwitchConfig::default() })
            .map_err(|e| e.to_string())?;
        let pool = Mempool::new(&MempoolConfig { mbufs: 16_384, ..MempoolConfig::default() })
            .map_err(|e| e.to_string())?;
        let sockets: Vec<_> = (0..config.ports).map(|i| folder.path().join(format!("port{i}"))).collect();
        let add = |path| add_port(&mut switch, pool, path, config.queues);
        let ports = sockets.iter().map(PathBuf::as_path).map(add).collect::<Result<_, _>>()?;
        let own = OwnSwitch { _switch: switch, _ports: ports, _folder: folder };
        Ok(Self { sockets, queues: config.queues, _own: Some(own) })
    }

    /// Its vhost-user sockets, one a port.
    #[must_use]
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// A guest on each socket.
    #[must_use]
    pub fn guests(&self) -> Vec<EndpointSpec> {
        let guest = |path: &PathBuf| GuestSpec { path: path.clone(), queues: self.queues };
        self.sockets.iter().map(guest).map(EndpointSpec::Guest).collect()
    }
}

fn add_port(
    switch: &mut Switch,
    pool: &'static Mempool,
    path: &Path,
    queues: u16,
) -> Result<VhostUserPort, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let spec = format!("{},queues={queues}", path.display()).parse().map_err(|e| wrong(&e))?;
    let mut port = VhostUserPort::new(&spec).map_err(|e| wrong(&e))?;
    let id = switch.reserve_port(&path.display().to_string()).map_err(|e| wrong(&e))?;
    let halves = port.open(QueueEnv { pool, port: id.number() }).map_err(|e| wrong(&e))?;
    switch.attach(id, halves, port.counters()).map_err(|e| wrong(&e))?;
    Ok(port)
}

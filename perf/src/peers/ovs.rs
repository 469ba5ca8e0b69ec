//! Open vSwitch with DPDK (Debian: openvswitch-switch-dpdk), in a folder of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Setup;
use super::process::{Process, first_line, run};

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(super) fn version() -> Result<String, String> {
    first_line(Path::new(SWITCH), &["--version"])
        .map_err(|e| format!("{e} (package openvswitch-switch-dpdk)"))
}

/// A bridge's table's size unless it is told another (`mac-table-size`).
const MAC_TABLE: usize = 8192;

/// A program of theirs, at home in `folder`.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, folder);
    }
    command
}

/// The command line of the one in `folder`.
struct Vsctl<'a>(&'a Path);

impl Vsctl<'_> {
    fn database(&self) -> String {
        format!("unix:{}/db.sock", self.0.display())
    }

    fn run(&self, args: &[&str]) -> Result<(), String> {
        let mut command = program("ovs-vsctl", self.0);
        command.arg(format!("--db={}", self.database())).arg("--timeout=30").args(args);
        run(&mut command).map(drop)
    }

    /// What the switch reads when it starts.
    fn configure(&self, setup: &Setup<'_>) -> Result<(), String> {
        let mask = format!("{:#x}", 1u64 << setup.cpu);
        let lcores = format!("other_config:dpdk-lcore-mask={mask}");
        let threads = format!("other_config:pmd-cpu-mask={mask}");
        let whole = format!("other_config:userspace-tso-enable={}", setup.segmentation);
        self.run(&["--no-wait", "init"])?;
        self.run(&[
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            &lcores,
            &threads,
            &whole,
            "other_config:dpdk-extra=\"--no-pci --file-prefix=ovs\"",
            "other_config:dpdk-socket-mem=512",
        ])
    }

    fn add_ports(&self, setup: &Setup<'_>) -> Result<(), String> {
        self.run(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        if setup.stations > MAC_TABLE / 2 {
            let size = format!("other_config:mac-table-size={}", 2 * setup.stations);
            self.run(&["set", "bridge", "br0", &size])?;
        }
        for socket in setup.sockets {
            // It makes the socket in its folder, by the port's name. Queues are as many as the guest has, all of them on
            // the one core that it was given.
            let name = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.run(&["add-port", "br0", &name, "--", "set", "Interface", &name, "type=dpdkvhostuser"])?;
        }
        Ok(())
    }
}

pub(super) fn start(folder: &Path, setup: &Setup<'_>) -> Result<Vec<Process>, String> {
    let vsctl = Vsctl(folder);
    run(program("ovsdb-tool", folder).arg("create").arg(folder.join("conf.db")).arg(SCHEMA))?;
    let mut server = program("ovsdb-server", folder);
    server.arg(folder.join("conf.db")).arg(format!("--remote=p{}", vsctl.database()));
    let server = Process::start(server, &folder.join("ovsdb.log"))?;
    wait_for(&folder.join("db.sock"))?;
    vsctl.configure(setup)?;
    let mut switch = program(SWITCH, folder);
    switch.arg(vsctl.database());
    let switch = Process::start(switch, &folder.join("vswitchd.log"))?;
    vsctl.add_ports(setup)?;
    // Dropped in this order: the switch before its database.
    Ok(vec![switch, server])
}

fn wait_for(socket: &Path) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        if Instant::now() > end {
            return Err(format!("{}: ovsdb-server does not listen", socket.display()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

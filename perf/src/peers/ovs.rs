//! Open vSwitch with DPDK (Debian: openvswitch-switch-dpdk), in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{Process, first_line, run};

const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub(super) fn version() -> Result<String, String> {
    first_line(Path::new(SWITCH), &["--version"])
        .map_err(|e| format!("{e} (package openvswitch-switch-dpdk)"))
}

/// A program of theirs, at home in `folder`.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, folder);
    }
    command
}

pub(super) fn start(folder: &Path, sockets: &[PathBuf], cpu: usize) -> Result<Vec<Process>, String> {
    let database = format!("unix:{}/db.sock", folder.display());
    run(program("ovsdb-tool", folder).arg("create").arg(folder.join("conf.db")).arg(SCHEMA))?;
    let mut server = program("ovsdb-server", folder);
    server.arg(folder.join("conf.db")).arg(format!("--remote=p{database}"));
    let server = Process::start(server, &folder.join("ovsdb.log"))?;
    wait_for(&folder.join("db.sock"))?;
    let vsctl = |args: &[&str]| {
        run(program("ovs-vsctl", folder).arg(format!("--db={database}")).arg("--timeout=30").args(args))
    };
    let mask = format!("{:#x}", 1u64 << cpu);
    let lcores = format!("other_config:dpdk-lcore-mask={mask}");
    let threads = format!("other_config:pmd-cpu-mask={mask}");
    vsctl(&["--no-wait", "init"])?;
    vsctl(&[
        "--no-wait",
        "set",
        "Open_vSwitch",
        ".",
        "other_config:dpdk-init=true",
        &lcores,
        &threads,
        "other_config:dpdk-extra=\"--no-pci --file-prefix=ovs\"",
        "other_config:dpdk-socket-mem=512",
    ])?;
    let mut switch = program(SWITCH, folder);
    switch.arg(&database);
    let switch = Process::start(switch, &folder.join("vswitchd.log"))?;
    vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
    for socket in sockets {
        // It makes the socket in its folder, by the port's name.
        let name = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
        vsctl(&["add-port", "br0", &name, "--", "set", "Interface", &name, "type=dpdkvhostuser"])?;
    }
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

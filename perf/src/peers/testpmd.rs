//! DPDK's testpmd with vhost ports (Debian: dpdk, dpdk-dev and the driver packages).

use std::path::Path;
use std::process::Command;

use super::Setup;
use super::process::{Process, run};

const PROGRAM: &str = "dpdk-testpmd";

/// Mbufs, as it makes them by itself.
pub(super) const USUAL: &[&str] = &["--total-num-mbufs=65536"];
/// Mbufs that each hold a whole frame of 64 KiB: for such frames twice as fast as many small ones, and useless for others.
pub(super) const LARGE: &[&str] = &["--mbuf-size=65535", "--total-num-mbufs=4096"];

pub(super) fn version() -> Result<String, String> {
    // It says its version only in passing: "EAL: RTE Version: 'DPDK 22.11.11'".
    let output = Command::new(PROGRAM).args(["--version"]).output();
    let output = output.map_err(|e| format!("{PROGRAM} (package dpdk): {e}"))?;
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let version = text.split("DPDK ").nth(1).and_then(|rest| rest.split('\'').next());
    Ok(version.map_or_else(package_version, |version| format!("DPDK {}", version.trim())))
}

fn package_version() -> String {
    let out = run(Command::new("dpkg-query").args(["-W", "-f", "DPDK ${Version}", "dpdk"]));
    out.unwrap_or_else(|_| "DPDK".into())
}

pub(super) fn start(folder: &Path, setup: &Setup<'_>, mbufs: &[&str]) -> Result<Vec<Process>, String> {
    let mut testpmd = Command::new(PROGRAM);
    let (cpu, queues) = (setup.cpu, setup.queues);
    // It wants a second lcore for its own command line, which sleeps.
    testpmd.args([&format!("--lcores=0@{cpu},1@{cpu}"), "--iova-mode=va", "--no-pci", "-m", "512"]);
    testpmd.arg(format!("--file-prefix={}", folder.file_name().unwrap_or_default().display()));
    for (i, socket) in setup.sockets.iter().enumerate() {
        // `legacy-ol-flags`: what a guest's header said is to reach the other guest, and io forwarding touches no flags.
        let whole = if setup.segmentation { ",tso=1,legacy-ol-flags=1" } else { "" };
        let port = format!("net_vhost{i},iface={},queues={queues}{whole}", socket.display());
        testpmd.args(["--vdev", &port]);
    }
    testpmd.args(["--", "--forward-mode=io", "--auto-start", "-i", "--nb-cores=1"]);
    testpmd.args([format!("--rxq={queues}"), format!("--txq={queues}")]);
    testpmd.args(mbufs);
    Ok(vec![Process::start(testpmd, &folder.join("testpmd.log"))?])
}

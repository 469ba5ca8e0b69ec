//! DPDK's testpmd with vhost ports (Debian: dpdk, dpdk-dev and the driver packages).

use std::path::Path;
use std::process::Command;

use super::Setup;
use super::process::{Process, run};

const PROGRAM: &str = "dpdk-testpmd";

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

pub(super) fn start(folder: &Path, setup: &Setup<'_>) -> Result<Vec<Process>, String> {
    let mut testpmd = Command::new(PROGRAM);
    let (cpu, queues) = (setup.cpu, setup.queues);
    // It wants a second lcore for its own command line, which sleeps.
    testpmd.args([&format!("--lcores=0@{cpu},1@{cpu}"), "--iova-mode=va", "--no-pci", "-m", "512"]);
    testpmd.arg(format!("--file-prefix={}", folder.file_name().unwrap_or_default().display()));
    for (i, socket) in setup.sockets.iter().enumerate() {
        testpmd.args(["--vdev", &format!("net_vhost{i},iface={},queues={queues}", socket.display())]);
    }
    testpmd.args(["--", "--forward-mode=io", "--auto-start", "-i", "--nb-cores=1"]);
    testpmd.args([&format!("--rxq={queues}"), &format!("--txq={queues}"), "--total-num-mbufs=65536"]);
    Ok(vec![Process::start(testpmd, &folder.join("testpmd.log"))?])
}

//! Polder, and the off-the-shelf crates.

use std::path::Path;
use std::process::Command;

use super::Setup;
use super::process::Process;

/// Its table's size unless it is told another (`mac_table`).
const MAC_TABLE: usize = 65_536;

pub(super) fn start(program: &Path, folder: &Path, setup: &Setup<'_>) -> Result<Vec<Process>, String> {
    let mut polder = Command::new(program);
    polder.args(["run", "--lcores", &setup.cpu.to_string(), "--control"]).arg(folder.join("control"));
    if setup.stations > MAC_TABLE / 2 {
        let file = folder.join("polder.toml");
        let text = format!("[switch]\nmac_table = {}\n", 2 * setup.stations);
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
        polder.arg("-c").arg(file);
    }
    for (i, socket) in setup.sockets.iter().enumerate() {
        polder.args(["--port", &format!("p{i}=vhost-user:{},queues={}", socket.display(), setup.queues)]);
    }
    Ok(vec![Process::start(polder, &folder.join("polder.log"))?])
}

pub(super) fn start_offtheshelf(
    program: &Path,
    folder: &Path,
    setup: &Setup<'_>,
) -> Result<Vec<Process>, String> {
    let mut command = Command::new(program);
    command.args(["--cpu", &setup.cpu.to_string()]).args(setup.sockets);
    Ok(vec![Process::start(command, &folder.join("offtheshelf.log"))?])
}

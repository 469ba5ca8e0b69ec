//! Polder, and the off-the-shelf crates.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;

pub(super) fn start(
    program: &Path,
    folder: &Path,
    sockets: &[PathBuf],
    cpu: usize,
) -> Result<Vec<Process>, String> {
    let mut polder = Command::new(program);
    polder.args(["run", "--lcores", &cpu.to_string(), "--control"]).arg(folder.join("control"));
    for (i, socket) in sockets.iter().enumerate() {
        polder.args(["--port", &format!("p{i}=vhost-user:{}", socket.display())]);
    }
    Ok(vec![Process::start(polder, &folder.join("polder.log"))?])
}

pub(super) fn start_offtheshelf(
    program: &Path,
    folder: &Path,
    sockets: &[PathBuf],
    cpu: usize,
) -> Result<Vec<Process>, String> {
    let mut command = Command::new(program);
    command.args(["--cpu", &cpu.to_string()]).args(sockets);
    Ok(vec![Process::start(command, &folder.join("offtheshelf.log"))?])
}

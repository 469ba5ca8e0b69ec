//! FD.io VPP, on one thread of its own, its vhost-user plugin alone.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::Setup;
use super::process::{Process, first_line};

const PROGRAM: &str = "vpp";

/// How it moves frames between its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer2 {
    /// All ports in one learning bridge.
    Bridge,
    /// From one port of a pair to the other: no lookup.
    CrossConnect,
}

pub(super) fn version() -> Result<String, String> {
    let line = first_line(Path::new(PROGRAM), &["--version"])?;
    // "vpp v26.10-rc0~1-gabcdef built by someone on somewhere at some time"
    Ok(line.split(" built by ").next().unwrap_or_default().replacen("vpp v", "VPP ", 1))
}

pub(super) fn start(folder: &Path, setup: &Setup<'_>, layer2: Layer2) -> Result<Vec<Process>, String> {
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display())).map(|()| file)
    };
    write("commands", commands(setup, layer2))?;
    let config = write("startup.conf", startup(folder, setup.cpu))?;
    let mut vpp = Command::new(PROGRAM);
    vpp.arg("-c").arg(config);
    Ok(vec![Process::start(vpp, &folder.join("vpp.out"))?])
}

/// One thread, which forwards and does the rest, as for all who have one CPU here.
fn startup(folder: &Path, cpu: usize) -> String {
    let folder = folder.display();
    format!(
        "unix {{ nodaemon cli-listen {folder}/cli runtime-dir {folder} log {folder}/vpp.log exec {folder}/commands }}\n\
         cpu {{ main-core {cpu} }}\n\
         buffers {{ buffers-per-numa 32768 }}\n\
         plugins {{ plugin default {{ disable }} plugin vhost_plugin.so {{ enable }} }}\n"
    )
}

/// What its command line is told when it starts. Its ports are named in the order in which they were made.
fn commands(setup: &Setup<'_>, layer2: Layer2) -> String {
    let name = |at: usize| format!("VirtualEthernet0/0/{at}");
    let gso = if setup.segmentation { " gso" } else { "" };
    let mut text = String::new();
    for socket in setup.sockets {
        // Packed rings are offered beside split ones: a guest takes what it wants.
        let _ = writeln!(text, "create vhost-user socket {} server packed{gso}", socket.display());
    }
    for at in 0..setup.sockets.len() {
        let _ = match layer2 {
            Layer2::Bridge => writeln!(text, "set interface l2 bridge {} 1", name(at)),
            Layer2::CrossConnect => {
                writeln!(text, "set interface l2 xconnect {} {}", name(at), name(at ^ 1))
            }
        };
        let _ = writeln!(text, "set interface state {} up", name(at));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn its_ports_are_bridged_or_paired() {
        let sockets = ["/t/p0", "/t/p1"].map(PathBuf::from);
        let mut setup = Setup { sockets: &sockets, queues: 1, stations: 2, segmentation: false, cpu: 0 };
        let text = commands(&setup, Layer2::CrossConnect);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "create vhost-user socket /t/p1 server packed");
        assert_eq!(lines[4], "set interface l2 xconnect VirtualEthernet0/0/1 VirtualEthernet0/0/0");
        assert_eq!(lines[5], "set interface state VirtualEthernet0/0/1 up");
        setup.segmentation = true;
        let text = commands(&setup, Layer2::Bridge);
        assert!(text.starts_with("create vhost-user socket /t/p0 server packed gso\n"));
        assert!(text.contains("\nset interface l2 bridge VirtualEthernet0/0/1 1\n"));
    }
}

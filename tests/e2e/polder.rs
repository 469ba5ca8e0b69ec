//! The switch under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deadline::{secs, wait_for};
use crate::process::Process;
use crate::stats::Stats;
use crate::undo::{next_number, run_dir};

/// A port for `--port NAME=SPEC`.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) spec: String,
}

impl Port {
    pub(crate) fn new(name: &str, spec: String) -> Self {
        Self { name: name.to_owned(), spec }
    }
}

pub(crate) struct Polder {
    process: Process,
    control: PathBuf,
}

impl Polder {
    /// Starts `polder run` and waits for its `ready`.
    pub(crate) fn run(ports: &[Port]) -> Self {
        Self::run_under(Command::new(binary()), ports)
    }

    /// The same with `polder` inside another command, for example `ip netns exec`.
    pub(crate) fn run_under(mut command: Command, ports: &[Port]) -> Self {
        let control = run_dir().join(format!("control-{}", next_number()));
        command.arg("run").arg("--control").arg(&control);
        for port in ports {
            command.arg("--port").arg(format!("{}={}", port.name, port.spec));
        }
        let mut process = Process::start("polder", &mut command);
        process.wait_for_output("ready", secs(20));
        Self { process, control }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats::parse(&self.stats_text())
    }

    /// What `polder stats --json` prints.
    pub(crate) fn stats_text(&self) -> String {
        let out = Command::new(binary())
            .args(["stats", "--json", "--control"])
            .arg(&self.control)
            .output()
            .expect("start polder stats");
        assert!(out.status.success(), "polder stats: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Every packet that came in was sent or dropped under a reason, once what is on its way has arrived.
    pub(crate) fn assert_every_packet_counted(&self) {
        let mut last = String::new();
        wait_for("rx + flood copies = tx + drops", secs(10), || {
            let stats = self.stats();
            if format!("{stats:?}") != last {
                last = format!("{stats:?}");
                eprintln!("{stats:?}");
            }
            stats.is_balanced().then_some(())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub(crate) fn kill9(mut self) {
        self.process.kill9();
    }

    /// SIGTERM: status 0 and no socket left.
    pub(crate) fn stop(mut self) {
        let status = self.process.terminate();
        assert!(status.success(), "polder ended with {status} on SIGTERM");
        assert!(!self.control.exists(), "polder left {}", self.control.display());
    }
}

/// A socket path for a vhost-user port.
pub(crate) fn socket_path(name: &str) -> PathBuf {
    run_dir().join(format!("{name}-{}.sock", next_number()))
}

/// The specification of a vhost-user port on which Polder listens.
pub(crate) fn vhost_user(socket: &Path, queue_pairs: u16) -> String {
    format!("vhost-user:{},queues={queue_pairs}", socket.display())
}

/// The program under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_polder")
}

//! The switch in the lab, and a guest behind it: a machine in a machine.

use std::path::Path;
use std::time::Duration;

use super::frames::Mac;
use super::lab::{Lab, program};
use super::mishap;
use crate::console::{Console, Output};
use crate::deadline::{secs, wait_for};
use crate::guest::{Spec, qemu_command};
use crate::stats::Stats;

const CONTROL: &str = "/run/polder.sock";
/// Software emulation under software emulation: two minutes on an idle machine.
const BOOT: Duration = secs(420);

/// Starts `polder run` inside and waits for its `ready`.
pub(crate) fn start_polder(lab: &mut Lab, ports: &[(&str, String)]) {
    let ports: Vec<_> = ports.iter().map(|(name, spec)| format!("--port {name}={spec}")).collect();
    let run = format!("{} run --lcores 1 --control {CONTROL} {}", program("polder"), ports.join(" "));
    lab.start("polder", &run);
    lab.wait_for_line("polder", "^ready", secs(60));
}

pub(crate) fn stats(lab: &mut Lab) -> Stats {
    Stats::parse(&lab.sh(&format!("{} stats --json --control {CONTROL}", program("polder"))))
}

/// Every packet that came in was sent or dropped under a reason, once what is on its way has arrived.
pub(crate) fn assert_every_packet_counted(lab: &mut Lab) {
    wait_for("rx + flood copies = tx + drops", secs(30), || {
        let stats = stats(lab);
        eprintln!("{stats:?}");
        stats.is_balanced().then_some(())
    });
}

/// A guest on a vhost-user port of the switch inside; its console is the lab's virtio-serial port `guest`.
pub(crate) struct Guest {
    console: Console,
}

impl Guest {
    pub(crate) fn boot(lab: &mut Lab, number: u8, mac: Mac, socket: &Path) -> Self {
        let spec = Spec { mac, ..Spec::new("vm", number, socket) };
        let port = lab.sh("basename $(dirname $(grep -lx guest /sys/class/virtio-ports/*/name))");
        let command = qemu_command(&spec, Path::new("/tmp"), &format!("pipe,path=/dev/{}", port.trim()));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<_> =
            words.map(|word| format!("\"{}\"", word.to_string_lossy().replace('"', "\\\""))).collect();
        let mut console = Console::connect(&lab.file("guest"));
        lab.start("guest", &line.join(" "));
        if let Err(error) = console.wait_boot(BOOT) {
            mishap::note("the machine in it does not boot");
            panic!("boot of the guest in the lab: {error}\n{}", lab.log("guest"));
        }
        Self { console }
    }

    /// Runs one shell command, which must succeed; returns what it wrote.
    pub(crate) fn sh(&mut self, command: &str, limit: Duration) -> String {
        let Output { status, text } =
            self.console.run(command, limit).unwrap_or_else(|e| panic!("guest in the lab$ {command}: {e}"));
        assert_eq!(status, 0, "guest in the lab$ {command}: {text}");
        text
    }
}

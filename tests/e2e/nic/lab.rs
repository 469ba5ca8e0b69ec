//! The machine of `scripts/nic-lab`, its cards on wires that end here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::frames::Mac;
use super::mishap;
use super::wire::{Socket, Wire};
use crate::console::{Console, Output};
use crate::deadline::secs;
use crate::machine::guest_file;
use crate::polder::binary;
use crate::process::Process;
use crate::undo::{next_number, run_dir};

/// About nine seconds on an idle machine.
const BOOT: Duration = secs(120);
const COMMAND: Duration = secs(30);

/// What the machine is made of; the settings of `scripts/nic-lab`.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) igb_cards: u8,
    pub(crate) vfs: u8,
    pub(crate) virtio_cards: u8,
    pub(crate) virtio_options: &'static str,
    /// Further settings by their names.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Setup {
    /// igb cards with VFs on each.
    pub(crate) fn igb(igb_cards: u8, vfs: u8) -> Self {
        Self { igb_cards, vfs, virtio_cards: 0, virtio_options: "", settings: Vec::new() }
    }

    /// virtio-net cards.
    pub(crate) fn virtio(virtio_cards: u8, virtio_options: &'static str) -> Self {
        Self { igb_cards: 0, vfs: 1, virtio_cards, virtio_options, settings: Vec::new() }
    }

    pub(crate) fn with(mut self, setting: &'static str, value: &str) -> Self {
        self.settings.push((setting, value.to_owned()));
        self
    }
}

pub(crate) struct Lab {
    qemu: Process,
    console: Console,
    /// One a card, the igb cards first; taken by those who talk on them.
    pub(crate) wires: Vec<Wire>,
    dir: PathBuf,
}

impl Lab {
    pub(crate) fn boot(setup: &Setup) -> Self {
        Self::boot_under(Command::new(Self::script()), setup)
    }

    pub(crate) fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/nic-lab")
    }

    /// The same with the script inside another command, for example `ip netns exec`.
    pub(crate) fn boot_under(mut command: Command, setup: &Setup) -> Self {
        guest_file("nic/initrd.gz");
        let dir = run_dir().join(format!("lab-{}", next_number()));
        command.arg("--serve").env("LAB_DIR", &dir);
        let sockets = settings(&mut command, setup);
        let mut qemu = Process::start("nic-lab", &mut command);
        qemu.add_log(dir.join("kernel.log"));
        let wires = sockets.into_iter().map(Socket::connect).collect();
        let mut console = Console::connect(&dir.join("console"));
        if let Err(error) = console.wait_boot(BOOT) {
            mishap::note("it does not boot");
            panic!("boot of the NIC lab: {error}");
        }
        Self { qemu, console, wires, dir }
    }

    /// A file of the machine's folder on this side, for example a socket that `LAB_QEMU` names.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Runs one shell command inside, whatever its exit status.
    pub(crate) fn sh_within(&mut self, command: &str, limit: Duration) -> Output {
        self.console.run(command, limit).unwrap_or_else(|e| panic!("lab$ {command}: {e}"))
    }

    /// Runs one shell command inside, which must succeed; returns what it wrote.
    pub(crate) fn sh(&mut self, command: &str) -> String {
        let output = self.sh_within(command, COMMAND);
        assert_eq!(output.status, 0, "lab$ {command}: {}", output.text);
        output.text
    }

    /// Starts a program that runs beside what follows; its output goes to /tmp/NAME.log inside.
    pub(crate) fn start(&mut self, name: &str, command: &str) {
        self.sh(&format!("rm -f /tmp/{name}.log; setsid sh -c 'echo $$ >/tmp/{name}.pid; exec {command}' >/tmp/{name}.log 2>&1 </dev/null &"));
    }

    /// What a started program has written.
    pub(crate) fn log(&mut self, name: &str) -> String {
        self.sh(&format!("cat /tmp/{name}.log"))
    }

    /// Waits inside for a line in a program's output that matches `pattern`; panics with the output when none comes.
    pub(crate) fn wait_for_line(&mut self, name: &str, pattern: &str, limit: Duration) {
        let wait = format!("while ! grep -qE '{pattern}' /tmp/{name}.log; do sleep 0.1; done");
        let output = self.sh_within(&wait, limit);
        if output.status != 0 {
            panic!("{name} in the lab did not say {pattern:?} within {limit:?}:\n{}", self.log(name));
        }
    }

    /// Signals a started program and waits for its end; returns what it wrote.
    pub(crate) fn stop(&mut self, name: &str, signal: &str) -> String {
        let end = format!(
            "pid=$(cat /tmp/{name}.pid); kill -{signal} $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done"
        );
        let output = self.sh_within(&end, secs(20));
        let log = self.log(name);
        assert_eq!(output.status, 0, "{name} in the lab did not end on {signal}:\n{log}");
        log
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && mishap::is_qemus(&self.qemu.output()) {
            mishap::note("QEMU aborted");
        }
    }
}

/// A release program of this tree: they stand beside `polder`.
pub(crate) fn program(name: &str) -> String {
    let path = Path::new(binary()).with_file_name(name);
    assert!(path.exists(), "missing: {}; run cargo build --release --workspace", path.display());
    path.display().to_string()
}

/// Where VF `vf` of igb card `card` sits.
pub(crate) fn vf(card: u8, vf: u8) -> String {
    // 82576: the first VF 128 functions behind the PF, and each two behind the last.
    format!("0000:0{}:{:02x}.{}", card + 1, 0x10 + vf / 4, vf % 4 * 2)
}

pub(crate) fn vf_mac(card: u8, vf: u8) -> Mac {
    [2, 0, 0, card, 0, vf]
}

/// Where virtio-net card `card` sits.
pub(crate) fn virtio(card: u8) -> String {
    format!("0000:0{}:00.0", card + 3)
}

pub(crate) fn virtio_mac(card: u8) -> Mac {
    [2, 0, 0, 0x0f, 0, card]
}

fn settings(command: &mut Command, setup: &Setup) -> Vec<Socket> {
    command
        .env("LAB_CARDS", setup.igb_cards.to_string())
        .env("LAB_VFS", setup.vfs.to_string())
        .env("LAB_VIRTIO", setup.virtio_cards.to_string())
        .env("LAB_VIRTIO_OPTIONS", setup.virtio_options)
        .envs(setup.settings.iter().map(|(name, value)| (name, value)));
    let igb = (0..setup.igb_cards).map(|card| format!("LAB_NETDEV{card}"));
    let virtio = (0..setup.virtio_cards).map(|card| format!("LAB_VIRTIO_NETDEV{card}"));
    let mut sockets = Vec::new();
    for name in igb.chain(virtio) {
        if setup.settings.iter().any(|(set, _)| *set == name) {
            continue;
        }
        let socket = Socket::new();
        command.env(name, socket.netdev());
        sockets.push(socket);
    }
    sockets
}

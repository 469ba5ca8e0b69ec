//! A Linux guest in QEMU with one virtio-net card on a vhost-user port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::console::{Console, Output};
use crate::deadline::secs;
use crate::machine::{guest_file, needs_program};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::undo::{next_number, run_dir};

/// Boot under software emulation takes about 5 s on an idle core, and many times that on a busy machine.
const BOOT: Duration = secs(120);
const COMMAND: Duration = secs(30);

/// Who listens on the vhost-user socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Polder,
    Qemu,
}

/// What a guest is made of.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Last byte of its IPv4 address and, unless another one is asked for, its MAC.
    pub(crate) number: u8,
    pub(crate) socket: PathBuf,
    pub(crate) listener: Listener,
    pub(crate) queue_pairs: u16,
    /// The MTU that the device offers (VIRTIO_NET_F_MTU), if any.
    pub(crate) host_mtu: Option<u16>,
    /// Whether the device has packed rings.
    pub(crate) packed: bool,
    pub(crate) mac: [u8; 6],
    /// A TAP interface of the host's that a second card is on, if any.
    pub(crate) tap: Option<String>,
    /// The QEMU that it runs in.
    pub(crate) qemu: PathBuf,
}

impl Spec {
    pub(crate) fn new(name: &'static str, number: u8, socket: &Path) -> Self {
        Self {
            name,
            number,
            socket: socket.to_owned(),
            listener: Listener::Polder,
            queue_pairs: 1,
            host_mtu: None,
            packed: false,
            mac: [0x52, 0x54, 0, 0, 0, number],
            tap: None,
            qemu: PathBuf::from("qemu-system-x86_64"),
        }
    }

    fn device(&self) -> Value {
        let mut device = self.card("nic", "net", "rp0", self.mac, self.queue_pairs);
        device["mq"] = json!(self.queue_pairs > 1);
        device["packed"] = json!(self.packed);
        if let Some(mtu) = self.host_mtu {
            device["host_mtu"] = json!(mtu);
        }
        device
    }

    /// What every card is made of.
    fn card(&self, id: &str, netdev: &str, bus: &str, mac: [u8; 6], queue_pairs: u16) -> Value {
        json!({
            "driver": "virtio-net-pci", "id": id, "netdev": netdev, "bus": bus, "romfile": "",
            "mac": mac.map(|byte| format!("{byte:02x}")).join(":"),
            // One a queue, one for configuration, one for control.
            "vectors": if msix_works(&self.qemu) { 2 * queue_pairs + 2 } else { 0 },
        })
    }

    /// The second card, served by QEMU itself.
    fn add_tap_card(&self, qemu: &mut Command) {
        let Some(tap) = &self.tap else { return };
        let mut mac = self.mac;
        mac[4] = 1;
        let device = self.card("tapnic", "tap", "rp1", mac, 1);
        qemu.args(["-netdev", &format!("tap,id=tap,ifname={tap},script=no,downscript=no,vhost=off")]).args([
            "-device",
            "pcie-root-port,id=rp1,slot=2",
            "-device",
            &device.to_string(),
        ]);
    }

    fn netdev(&self) -> String {
        format!("vhost-user,id=net,chardev=vhost,queues={}", self.queue_pairs)
    }

    fn vhost_chardev(&self) -> String {
        let server = if self.listener == Listener::Qemu { ",server=on,wait=off" } else { "" };
        format!("socket,id=vhost,path={}{server}", self.socket.display())
    }
}

pub(crate) struct Guest {
    pub(crate) spec: Spec,
    qemu: Process,
    console: Console,
    qmp: Qmp,
}

impl Guest {
    /// Starts QEMU and waits for its init.
    pub(crate) fn boot(spec: Spec) -> Self {
        Self::boot_all(vec![spec]).pop().expect("one guest")
    }

    /// Boots several at once.
    pub(crate) fn boot_all(specs: Vec<Spec>) -> Vec<Self> {
        Self::boot_each(specs, |qemu| qemu)
    }

    /// The same, with their QEMUs inside `space`.
    pub(crate) fn boot_all_inside(space: &Namespace, specs: Vec<Spec>) -> Vec<Self> {
        Self::boot_each(specs, |qemu| space.inside(&qemu))
    }

    fn boot_each(specs: Vec<Spec>, place: impl Fn(Command) -> Command) -> Vec<Self> {
        let mut guests: Vec<_> = specs.into_iter().map(|spec| Self::start(spec, &place)).collect();
        guests.iter_mut().for_each(Self::wait_boot);
        guests
    }

    fn start(spec: Spec, place: impl Fn(Command) -> Command) -> Self {
        needs_program(&spec.qemu.to_string_lossy());
        let dir = run_dir().join(format!("{}-{}", spec.name, next_number()));
        std::fs::create_dir(&dir).expect("make a folder");
        let console = format!("socket,path={}/console,server=on,wait=off", dir.display());
        let mut command = place(qemu_command(&spec, &dir, &console));
        let mut qemu = Process::start(&format!("qemu-{}", spec.name), &mut command);
        qemu.add_log(dir.join("kernel.log"));
        let console = Console::connect(&dir.join("console"));
        let qmp = Qmp::connect(&dir.join("qmp"));
        Self { spec, qemu, console, qmp }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.spec.name
    }

    pub(crate) fn ip(&self) -> String {
        ip(self.spec.number)
    }

    /// Waits for the guest's init, at first boot and after a reset.
    pub(crate) fn wait_boot(&mut self) {
        self.console.wait_boot(BOOT).unwrap_or_else(|e| panic!("boot of {}: {e}", self.spec.name));
    }

    /// Runs one shell command in the guest, whatever its exit status.
    pub(crate) fn sh_within(&mut self, command: &str, limit: Duration) -> Output {
        self.console.run(command, limit).unwrap_or_else(|e| panic!("{}$ {command}: {e}", self.spec.name))
    }

    /// Runs one shell command in the guest, which must succeed; returns what it wrote.
    pub(crate) fn sh(&mut self, command: &str) -> String {
        let output = self.sh_within(command, COMMAND);
        assert_eq!(output.status, 0, "{}$ {command}: {}", self.spec.name, output.text);
        output.text
    }

    /// Starts a command that runs beside the following ones; [`Guest::finish`] waits for it.
    pub(crate) fn spawn(&mut self, job: &str, command: &str) {
        self.sh(&format!(
            "rm -f /tmp/{job}.*; ({command}; echo $? >/tmp/{job}.status) >/tmp/{job}.out 2>&1 &"
        ));
    }

    /// Waits for the end of a job and returns what it wrote; its status must be 0.
    pub(crate) fn finish(&mut self, job: &str, limit: Duration) -> String {
        let wait = format!("while ! [ -s /tmp/{job}.status ]; do usleep 100000; done");
        let output =
            self.sh_within(&format!("{wait}; cat /tmp/{job}.out; exit $(cat /tmp/{job}.status)"), limit);
        assert_eq!(output.status, 0, "{job} in {}: {}", self.spec.name, output.text);
        output.text
    }

    /// Brings the card up again after its driver or the card itself came back.
    pub(crate) fn nic_up(&mut self) {
        self.sh("nic-up");
    }

    /// The last name of the device's folder in sysfs, e.g. `virtio0` or, with `../`, its PCI address.
    pub(crate) fn sysfs_name(&mut self, of: &str) -> String {
        self.sh(&format!("basename $(readlink -f /sys/class/net/eth0/device/{of})")).trim().to_owned()
    }

    pub(crate) fn reset(&mut self) {
        self.qmp.run("system_reset", json!({}));
    }

    /// Pulls the card out in an orderly way, as a hotplug controller does.
    pub(crate) fn unplug_nic(&mut self) {
        self.qmp.run("device_del", json!({ "id": "nic" }));
        self.qmp.wait_event("DEVICE_DELETED", secs(30));
    }

    /// Puts the card back.
    pub(crate) fn plug_nic(&mut self) {
        self.qmp.run("device_add", self.spec.device());
    }

    /// `kill -9` of QEMU; nothing of the guest is left.
    pub(crate) fn kill9(mut self) -> Spec {
        self.qemu.kill9();
        self.spec.clone()
    }

    /// QEMU's process.
    pub(crate) fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.qemu.is_running()
    }
}

/// The address of the guest with this number, in 10.77.0.0/24.
pub(crate) fn ip(number: u8) -> String {
    format!("10.77.0.{number}")
}

/// Under software emulation QEMU 7.2 dies of a null pointer (`vector_irqfd`, which only KVM sets up) as soon as a guest
/// starts a vhost-user device with MSI-X; 10.0 does not. There the card gets a plain PCI interrupt.
fn msix_works(qemu: &Path) -> bool {
    let version = Command::new(qemu).arg("--version").output().expect("start QEMU").stdout;
    let version = String::from_utf8_lossy(&version).into_owned();
    let major = version
        .split("version ")
        .nth(1)
        .and_then(|v| v.split('.').next())
        .and_then(|v| v.parse::<u32>().ok());
    accelerator() != "tcg" || major.is_some_and(|major| major >= 10)
}

/// KVM may exist and still not start a kernel: it is taken only when asked for.
fn accelerator() -> String {
    std::env::var("POLDER_E2E_ACCEL").unwrap_or_else(|_| "tcg".to_owned())
}

/// QEMU with its sockets and logs in `dir`, and the guest's console on the chardev `console` (without its id).
pub(crate) fn qemu_command(spec: &Spec, dir: &Path, console: &str) -> Command {
    let mut qemu = Command::new(&spec.qemu);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-accel",
        &accelerator(),
        "-cpu",
        "max",
    ])
    .args(["-smp", &spec.queue_pairs.to_string(), "-m", "256M"])
    .args(["-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-machine", "q35,memory-backend=ram"])
    .args(["-kernel".as_ref(), guest_file("vmlinuz").as_os_str()])
    .args(["-initrd".as_ref(), guest_file("initrd.gz").as_os_str()])
    .args(["-append", &kernel_arguments(spec)])
    .args(["-serial", &format!("file:{}/kernel.log", dir.display())])
    .args(["-chardev", &format!("{console},id=console")])
    .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=console"])
    .args(["-qmp", &format!("unix:{}/qmp,server=on,wait=off", dir.display())])
    .args(["-chardev", &spec.vhost_chardev(), "-netdev", &spec.netdev()])
    // Behind a root port of its own the card can be pulled and put back.
    .args(["-device", "pcie-root-port,id=rp0,slot=1", "-device", &spec.device().to_string()]);
    spec.add_tap_card(&mut qemu);
    qemu
}

fn kernel_arguments(spec: &Spec) -> String {
    // Without IPv6 no guest speaks on its own, and counts can be compared. On a busy host an emulated timer is late, which
    // the kernel takes for a broken one and panics, unless told not to check.
    let fixed = "console=ttyS0 quiet ipv6.disable=1 no_timer_check tsc=reliable";
    format!("{fixed} guest_address={}/24", ip(spec.number))
}

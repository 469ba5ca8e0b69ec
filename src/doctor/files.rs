//! Devices and sockets.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::Check;

pub(super) fn tun() -> Check {
    const TUN: &str = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Check::ok("tun", format!("{TUN} can be opened")),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            Check::warn("tun", format!("{TUN}: {e}: no tap ports"), format!("sudo chmod 0666 {TUN}"))
        }
        Err(e) => Check::warn("tun", format!("{TUN}: {e}: no tap ports"), "sudo modprobe tun"),
    }
}

pub(super) fn control(path: &Path) -> Check {
    const NAME: &str = "control-socket";
    let at = path.display();
    match UnixStream::connect(path) {
        Ok(_) => Check::ok(NAME, format!("a polder answers at {at}")),
        Err(e) if e.kind() == ErrorKind::NotFound => Check::ok(NAME, format!("no polder runs at {at}")),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused && fs::metadata(path).is_ok() => {
            Check::ok(NAME, format!("no polder runs at {at}; what a dead one left there will be replaced"))
        }
        Err(e) => {
            Check::warn(NAME, format!("{at}: {e}"), "name another socket with --control, or run as its owner")
        }
    }
}

//! A kernel's network interface on a PCI function.

use std::path::Path;

use super::sysfs::text;

/// What sysfs tells of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetInterface {
    /// Its name.
    pub name: String,
    /// Its Ethernet address, as the kernel writes it.
    pub mac: Option<String>,
    /// Set up by somebody: it may carry somebody's traffic.
    pub up: bool,
    /// Whether it has a carrier; unknown while it is not up.
    pub carrier: Option<bool>,
    /// In Mbit/s, if the driver tells.
    pub speed_mbps: Option<u32>,
}

impl NetInterface {
    /// Reads `NET/NAME/..`.
    pub(super) fn read(net: &Path, name: String) -> Self {
        const IFF_UP: u32 = 1;
        let dir = net.join(&name);
        let flags = text(&dir.join("flags"));
        let flags = flags.and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok());
        let speed = text(&dir.join("speed")).and_then(|s| s.parse().ok());
        Self {
            mac: text(&dir.join("address")),
            up: flags.is_some_and(|f| f & IFF_UP != 0),
            carrier: text(&dir.join("carrier")).map(|c| c == "1"),
            // -1 and 2^32 - 1 both mean that the driver does not know.
            speed_mbps: speed.filter(|s| *s != 0 && *s != u32::MAX),
            name,
        }
    }
}

//! What a driver says of its interface by SIOCETHTOOL (the kernel's uapi/linux/ethtool.h).
#![expect(unsafe_code, reason = "SIOCETHTOOL takes the address of a structure inside another")]
// UNSAFETY: one ioctl, in `ask`, with a structure of ours whose first field says which it is, and which is as long as the
// kernel has that one.

use std::io;

use crate::vdev::interface::{Interface, request_for};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    numbers: [u32; 5],
}

const _: () = assert!(size_of::<Channels>() == 36 && size_of::<DriverInfo>() == 196);

/// A structure that an ethtool command of its own fills in.
trait Answer: Copy {}
impl Answer for Channels {}
impl Answer for DriverInfo {}

fn ask<T: Answer>(interface: &Interface, answer: &mut T) -> io::Result<()> {
    let mut request = request_for(interface.name());
    request.ifr_ifru.ifru_data = core::ptr::from_mut(answer).cast();
    // The kernel writes at most the structure that its first field names; see UNSAFETY.
    interface.call(libc::SIOCETHTOOL as libc::c_ulong, &mut request)
}

/// How many receive queues an interface runs; `None` if its driver does not say.
pub(crate) fn receive_queues(interface: &Interface) -> Option<u32> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    ask(interface, &mut channels).ok()?;
    Some(channels.rx.saturating_add(channels.combined)).filter(|n| *n > 0)
}

/// The name of an interface's driver (`veth`, `ixgbe`), and whether there is a device behind it.
pub(crate) fn driver(interface: &Interface) -> Option<(String, bool)> {
    // SAFETY: plain numbers and bytes: all zero is a value of each.
    let mut info: DriverInfo = unsafe { core::mem::zeroed() };
    info.cmd = ETHTOOL_GDRVINFO;
    ask(interface, &mut info).ok()?;
    let name = info.driver.split(|b| *b == 0).next().unwrap_or_default();
    Some((String::from_utf8_lossy(name).into_owned(), info.bus_info[0] != 0))
}

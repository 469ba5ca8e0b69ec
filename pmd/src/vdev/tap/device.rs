//! /dev/net/tun (the kernel's Documentation/networking/tuntap.rst): how a TAP queue is made.
#![expect(unsafe_code, reason = "the TUN ioctls have no safe wrapper")]
// UNSAFETY: three ioctls, with an `ifreq` or an `int` of ours, or a plain number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::PortError;
use crate::offload::OffloadSet;
use crate::vdev::interface::request_for;

const PATH: &str = "/dev/net/tun";

/// Bytes of header in front of each frame: `virtio_net_hdr_v1`, whose last field (num_buffers) TAP leaves alone.
pub(crate) const HEADER: usize = 12;

/// Opens `queues` queues of the TAP interface `name`, which is made unless it exists.
pub(crate) fn open(name: &str, queues: usize) -> Result<Vec<OwnedFd>, PortError> {
    let mut fds = Vec::new();
    for _ in 0..queues {
        let fd = rustix::fs::open(PATH, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| error(name, no_device(e), e.into()))?;
        attach(&fd, name, queues > 1).map_err(|e| error(name, refused(&e, queues), e))?;
        set_header_size(&fd).map_err(|e| error(name, "its kernel does not know TUNSETVNETHDRSZ", e))?;
        fds.push(fd);
    }
    Ok(fds)
}

fn error(name: &str, why: &str, source: io::Error) -> PortError {
    PortError::Os { what: format!("cannot open TAP interface {name} ({why})"), source }
}

fn no_device(e: rustix::io::Errno) -> &'static str {
    match e {
        rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
            "/dev/net/tun is missing: load the kernel module tun (`modprobe tun`), or in a container pass the device in"
        }
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
            "/dev/net/tun may not be opened: see its owner and mode"
        }
        _ => "open of /dev/net/tun failed",
    }
}

fn refused(e: &io::Error, queues: usize) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM) => {
            "run as root, with CAP_NET_ADMIN, or have it made for you: `ip tuntap add NAME mode tap user YOU`"
        }
        Some(libc::EBUSY) => "another program has it open",
        Some(libc::E2BIG) => "it has no queue left",
        Some(libc::EINVAL) if queues > 1 => {
            "it exists and is no TAP interface with several queues: `ip tuntap add NAME mode tap multi_queue`, or leave queues=N out"
        }
        Some(libc::EINVAL) => "an interface of that name exists and is no TAP interface",
        _ => "TUNSETIFF failed",
    }
}

/// One queue can be opened of an interface that was made for one as well as of one that was made for several.
fn attach(fd: &OwnedFd, name: &str, several: bool) -> io::Result<()> {
    match set_interface(fd, name, several) {
        Err(e) if !several && e.raw_os_error() == Some(libc::EINVAL) => set_interface(fd, name, true),
        done => done,
    }
}

fn set_interface(fd: &OwnedFd, name: &str, several: bool) -> io::Result<()> {
    let mut request = request_for(name);
    let flags = libc::IFF_TAP
        | libc::IFF_NO_PI
        | libc::IFF_VNET_HDR
        | if several { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: an open descriptor; the kernel reads and writes at most the `ifreq` that is lent to it for the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

fn set_header_size(fd: &OwnedFd) -> io::Result<()> {
    let size: libc::c_int = HEADER as libc::c_int;
    // SAFETY: an open descriptor; the kernel reads one int, lent to it for the call.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
}

/// Tells the kernel which offloads it may leave to us: all that it knows. Returns these.
pub(crate) fn offer_offloads(fd: &OwnedFd) -> OffloadSet {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let sets = [
        (tcp | udp, OffloadSet::ALL),
        (tcp, OffloadSet::CSUM | OffloadSet::TSO4 | OffloadSet::TSO6 | OffloadSet::ECN),
    ];
    for (bits, set) in sets {
        // SAFETY: an open descriptor; the argument is a number.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) } == 0 {
            return set;
        }
    }
    OffloadSet::NONE
}

fn checked(done: libc::c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! What the kernel refuses, why most likely, and the mend.

use std::io;

use crate::PortError;
use crate::bus::BusError;
use crate::nic::NicError;
use crate::vdev::af_xdp::program::Attached;
use crate::vdev::af_xdp::queue::Step;
use crate::vdev::af_xdp::umem::needed_data_room;

/// The kernel's own number for "not supported" that reaches user space now and then (include/linux/errno.h).
const ENOTSUPP: i32 = 524;

fn refused(interface: &str, what: &str, why: &str, source: io::Error) -> NicError {
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    BusError::Os { what: format!("af_xdp: cannot {what} interface {interface}{why}"), source }.into()
}

fn missing(interface: &str, what: impl std::fmt::Display) -> NicError {
    BusError::Missing(format!("af_xdp: interface {interface} {what}")).into()
}

pub(crate) fn no_interface(interface: &str, source: io::Error) -> NicError {
    match source.raw_os_error() {
        Some(libc::ENODEV) => missing(interface, "does not exist: `ip link` lists those that do"),
        _ => refused(interface, "find", "", source),
    }
}

/// An interface that could not be set up.
pub(crate) fn from_port(error: PortError) -> NicError {
    match error {
        PortError::Os { what, source } => BusError::Os { what, source }.into(),
        other => BusError::Missing(other.to_string()).into(),
    }
}

/// Frames of queues that nobody takes would stay with the host: all or none.
pub(crate) fn check_queues(interface: &str, ours: usize, theirs: Option<u32>) -> Result<(), NicError> {
    let Some(theirs) = theirs.map(|n| n as usize).filter(|n| *n != ours) else { return Ok(()) };
    Err(missing(
        interface,
        format_args!(
            "has {theirs} receive queues, and {ours} would be taken: write queues={theirs}, or have it run {ours} (`ethtool -L \
             {interface} combined {ours}`, or `rx {ours}` where it has no combined ones)"
        ),
    ))
}

pub(crate) fn program(interface: &str, source: io::Error) -> NicError {
    let why = match source.raw_os_error() {
        Some(libc::EPERM) => {
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; before Linux 5.11 `ulimit -l` counts, too"
        }
        Some(libc::ENOSYS) => "the kernel has no bpf(2): CONFIG_BPF_SYSCALL",
        Some(libc::EINVAL) => "the kernel has no AF_XDP: CONFIG_XDP_SOCKETS, Linux 5.9 or later",
        _ => "",
    };
    refused(interface, "load an XDP program for", why, source)
}

pub(crate) fn promiscuous(interface: &str, source: io::Error) -> NicError {
    let why = "run as root, or with CAP_NET_RAW";
    refused(interface, "set to promiscuous mode", why, source)
}

pub(crate) fn attach(interface: &str, source: io::Error) -> NicError {
    let why = match source.raw_os_error() {
        Some(libc::EPERM) => "run as root, or with CAP_NET_ADMIN",
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is there: `ip link show` names it, `ip link set IFACE xdp off` takes it away, or end the program that holds it"
        }
        Some(libc::ENOSPC) => {
            "of a veth's two ends this one needs as many receive queues as the other has transmit queues: `ethtool -L`"
        }
        Some(libc::ERANGE) => "the MTU of a veth's other end is too large for XDP",
        Some(libc::ENOTCONN) => "a veth's other end is gone",
        Some(libc::EINVAL) => {
            "the MTU is too large for XDP, large receive offload is on (`ethtool -K IFACE lro off`), or the kernel is older than Linux 5.9"
        }
        _ => "",
    };
    refused(interface, "attach an XDP program to", why, source)
}

pub(crate) fn queue(interface: &str, step: &Step, source: io::Error, memory: usize) -> NicError {
    let code = source.raw_os_error().unwrap_or(0);
    match step {
        Step::Socket => {
            let why = match code {
                libc::EPERM => "run as root, or with CAP_NET_RAW",
                libc::EAFNOSUPPORT => "the kernel has no AF_XDP: CONFIG_XDP_SOCKETS",
                _ => "",
            };
            refused(interface, "open an AF_XDP socket for", why, source)
        }
        Step::Register => {
            let why = match code {
                libc::ENOBUFS => format!(
                    "{} KiB of packet memory are to be locked: `ulimit -l {0}`, LimitMEMLOCK=, or CAP_IPC_LOCK",
                    memory / 1024
                ),
                libc::EINVAL => "the kernel is older than Linux 5.4".to_owned(),
                _ => String::new(),
            };
            refused(interface, "register packet memory for", &why, source)
        }
        Step::Rings => refused(interface, "map an AF_XDP socket's rings for", "", source),
        Step::Bind(queue) => bind(interface, *queue, source),
    }
}

fn bind(interface: &str, queue: u32, source: io::Error) -> NicError {
    let why = match source.raw_os_error() {
        Some(libc::EBUSY) => "another AF_XDP socket has it: end that program",
        Some(libc::EINVAL) => "it has no such queue: `ethtool -l` lists them, queues=N says how many to take",
        Some(libc::EOPNOTSUPP | ENOTSUPP) => "its driver has no zero copy: write copy, or nothing",
        Some(libc::ENETDOWN) => "it is down",
        _ => "",
    };
    refused(interface, &format!("bind to queue {queue} of"), why, source)
}

pub(crate) fn small_mbufs(interface: &str, data_room: usize) -> NicError {
    let needed = needed_data_room();
    missing(interface, format_args!("needs mbufs of {needed} bytes at least; these have {data_room}"))
}

pub(crate) fn no_zero_copy(interface: &str, attached: Attached) -> NicError {
    let why = match attached {
        Attached::Native => {
            "cannot do zero copy on 4 KiB pages: reserve hugepages (`polder doctor` has the command), or write copy"
        }
        Attached::Generic => "cannot do zero copy: its driver has no XDP; write copy, or nothing",
    };
    missing(interface, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_nobody_takes_are_refused_with_the_command() {
        assert!(check_queues("e0", 2, None).is_ok() && check_queues("e0", 2, Some(2)).is_ok());
        let error = check_queues("e0", 1, Some(4)).unwrap_err().to_string();
        assert!(error.contains("queues=4") && error.contains("ethtool -L e0 combined 1"), "{error}");
    }

    #[test]
    fn the_memory_to_lock_is_named() {
        let no = io::Error::from_raw_os_error(libc::ENOBUFS);
        let error = queue("e0", &Step::Register, no, 64 << 20).to_string();
        assert!(error.contains("ulimit -l 65536"), "{error}");
    }
}

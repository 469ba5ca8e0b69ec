//! AF_XDP: an interface that stays with its kernel driver, by sockets whose rings the kernel fills and empties
//! (the kernel's Documentation/networking/af_xdp.rst).
//!
//! For NICs that cannot be taken from the kernel, and for veths. A small XDP program sends all that comes in by the interface
//! to the sockets, one a queue; the host's own stack gets nothing of it, while the port is there. The program goes when
//! the process does. The interface is set up and to promiscuous mode; one that is deleted is waited for, and taken again
//! when it is back.
//!
//! - The packet memory is the UMEM: the kernel (or, with *zero copy*, the device) writes frames straight into mbufs and reads them
//!   from there. See `umem` for where in an mbuf. Zero copy wants a driver that can, and hugepages. It is not
//!   chosen by itself where a frame of the MTU might not fit into one mbuf and the driver cannot use several (igb cannot, and
//!   counts an mbuf's room in whole KiB: of mbufs of 2048 bytes it uses 1024).
//! - With copy the kernel copies each frame once, and sends from within a system call, one for some 32 frames, at the
//!   end of a turn. Without need (`needs_wakeup`) there is no system call.
//! - Frames longer than one buffer come and go in several, where the kernel can (Linux 6.6): then up to the MTU.
//! - There is no word about offloads beside a frame. What we send is finished in software first. What comes in from a
//!   software interface may have its checksum unfinished; see `unfinished`.
//!
//! # What a veth does to its other end
//! Once a program is attached, the kernel takes segmentation offload (TSO, GSO) from the *other* end, so that only frames within
//! the MTU come; it leaves it checksum offload, which is dealt with here. Nothing has to be switched off by hand, but for one:
//! a tunnel (VXLAN, Geneve) that starts behind the veth leaves *inner* checksums unfinished: `ethtool -K OTHER tx off` there.
//! A program in *generic* mode (`polder port show` tells) sees frames after they were merged: `ethtool -K IFACE gro off lro
//! off`, and `tso off` at a sender on the same host.

mod bpf;
mod custody;
mod driver;
mod errors;
mod fill;
mod parts;
mod program;
mod queue;
mod ring;
mod rx;
mod socket;
mod totals;
mod tx;
mod umem;
mod unfinished;

use std::str::FromStr;

use crate::nic::NicPort;
use crate::vdev::spec::{check_interface, check_queues, parts};
use crate::{Port, PortError};

use driver::AfXdp;

/// Which interface, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfXdpConfig {
    /// Its name.
    pub interface: String,
    /// Its receive queues, 1 to 16: all of them, or frames would stay with the host.
    pub queues: usize,
    /// Whether frames may be copied; `None`: if it cannot be done without.
    pub copying: Option<Copying>,
}

/// How frames get from the device into the packet memory and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// The device does it (XDP_ZEROCOPY), or the port is not made.
    ZeroCopy,
    /// The kernel copies (XDP_COPY).
    Copy,
}

impl FromStr for AfXdpConfig {
    type Err = PortError;

    fn from_str(rest: &str) -> Result<Self, PortError> {
        let (name, options) = rest.split_once(',').unwrap_or((rest, ""));
        check_interface("af_xdp", name)?;
        let mut config = Self { interface: name.to_owned(), queues: 1, copying: None };
        for option in parts(options) {
            let copying = match option {
                ("queues", number) => {
                    config.queues = number.parse().unwrap_or(0);
                    continue;
                }
                ("zero_copy", "") => Copying::ZeroCopy,
                ("copy", "") => Copying::Copy,
                (key, _) => return Err(no_option(name, key)),
            };
            if config.copying.replace(copying).is_some_and(|before| before != copying) {
                return Err(PortError::Spec("af_xdp: write one of zero_copy and copy, or neither".into()));
            }
        }
        check_queues("af_xdp", config.queues)?;
        Ok(config)
    }
}

fn no_option(name: &str, key: &str) -> PortError {
    PortError::Spec(format!(
        "af_xdp has no option \"{key}\": write af_xdp:{name}[,queues=N][,zero_copy|copy]"
    ))
}

/// Makes the port. Its frames go where they went until its queues are made; those, and the thread that looks after the
/// interface, belong to the network namespace of the thread that makes them.
///
/// # Errors
/// [`PortError`]: says what is missing (the interface, a right, a queue) and the mend.
pub fn port(config: &AfXdpConfig) -> Result<Box<dyn Port>, PortError> {
    let again = config.clone();
    let port = NicPort::new("af_xdp", &config.interface, move || AfXdp::open(&again))?;
    Ok(Box::new(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_says_which_interface_and_how() {
        let config: AfXdpConfig = "eth0,queues=4,copy".parse().unwrap();
        assert_eq!((config.interface.as_str(), config.queues), ("eth0", 4));
        assert_eq!(config.copying, Some(Copying::Copy));
        assert_eq!("e".parse::<AfXdpConfig>().unwrap().copying, None);
    }
}

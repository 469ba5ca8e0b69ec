//! A network interface of the kernel's, as its control calls see it (netdevice(7)).
#![expect(unsafe_code, reason = "the interface ioctls have no safe wrapper")]
// UNSAFETY: three ioctls, each with a whole `ifreq` of ours that the kernel reads and fills in; a union's field is read
// only if that very ioctl fills it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{Link, PortError};

/// An interface by its name, in the network namespace of the thread that made this.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    socket: OwnedFd,
}

impl Interface {
    /// Does not look whether the interface exists.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { name: name.to_owned(), socket })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn index(&self) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, &self.name)?)
    }

    /// Largest packet without the Ethernet header, in bytes.
    pub(crate) fn mtu(&self) -> io::Result<usize> {
        let mut request = request_for(&self.name);
        self.call(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: SIOCGIFMTU filled in this field.
        Ok(usize::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    /// IFF_UP, IFF_RUNNING ...
    pub(crate) fn flags(&self) -> io::Result<i32> {
        let mut request = request_for(&self.name);
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS filled in this field.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Up if the interface is, and has a carrier.
    pub(crate) fn link(&self) -> Link {
        let both = libc::IFF_UP | libc::IFF_RUNNING;
        if self.flags().is_ok_and(|f| f & both == both) { Link::Up } else { Link::Down }
    }

    /// Sets it up, unless it is.
    pub(crate) fn bring_up(&self) -> Result<(), PortError> {
        let flags = self.flags().map_err(|e| self.error("read the flags of", e))?;
        if flags & libc::IFF_UP != 0 {
            return Ok(());
        }
        let mut request = request_for(&self.name);
        request.ifr_ifru.ifru_flags = (flags | libc::IFF_UP) as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request).map_err(|e| {
            self.error(
                &format!("set up (run `ip link set {} up` as root, or give us CAP_NET_ADMIN)", self.name),
                e,
            )
        })
    }

    /// What could not be done with it.
    pub(crate) fn error(&self, what: &str, source: io::Error) -> PortError {
        PortError::Os { what: format!("cannot {what} interface {}", self.name), source }
    }

    /// Makes an interface call of this module's neighbours, with a request that names this interface.
    pub(crate) fn call(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the socket is open; the kernel reads and writes at most the `ifreq` that is lent to it for the call.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), number as _, core::ptr::from_mut(request)) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An `ifreq` with a name and nothing else.
pub(crate) fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: plain numbers, bytes and pointers: all zero is a value of each.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    // The last byte stays 0. Names that are too long were refused by the specification's check.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

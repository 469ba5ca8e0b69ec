//! A packet socket (packet(7)), set up for one queue.
#![expect(unsafe_code, reason = "packet socket options and addresses have no safe wrapper")]
// UNSAFETY: setsockopt, getsockopt and bind, each with a plain value of ours and its size.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Receive and send buffer that is asked for, in bytes. With less the kernel drops frames between two polls.
const BUFFER: libc::c_int = 4 << 20;

/// Opens a socket that gets all that comes in by interface `index` (and nothing that goes out by it), with virtio-net
/// headers.
pub(crate) fn open(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0: nothing comes before `bind`, when all the options are set.
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    for option in
        [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING, libc::PACKET_AUXDATA, libc::PACKET_QDISC_BYPASS]
    {
        set(&fd, libc::SOL_PACKET, option, &1)?;
    }
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        // Needs CAP_NET_ADMIN; without it the default must do.
        let _ = set(&fd, libc::SOL_SOCKET, option, &BUFFER);
    }
    set_promiscuous(&fd, index)?;
    bind(&fd, index)?;
    Ok(fd)
}

/// Opens a socket that gets nothing, and keeps interface `index` in promiscuous mode for as long as it is open.
pub(crate) fn keep_promiscuous(index: u32) -> io::Result<OwnedFd> {
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_promiscuous(&fd, index)?;
    Ok(fd)
}

fn set_promiscuous(fd: &OwnedFd, index: u32) -> io::Result<()> {
    let everything = libc::packet_mreq {
        mr_ifindex: index as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &everything)
}

/// Shares the incoming frames, by the hash of their flows, between the sockets of one group. The first one, without a
/// `group`, founds it. Returns the group's number.
pub(crate) fn join(fd: &OwnedFd, group: Option<u16>) -> io::Result<u16> {
    let founding = libc::PACKET_FANOUT_FLAG_UNIQUEID;
    let kind = libc::PACKET_FANOUT_HASH | if group.is_none() { founding } else { 0 };
    let argument: libc::c_uint = u32::from(group.unwrap_or(0)) | kind << 16;
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
    Ok(get(fd, libc::SOL_PACKET, libc::PACKET_FANOUT)? as u16)
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    // SAFETY: plain numbers and bytes: all zero is a value of each.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: an open descriptor; the kernel reads `len` bytes, all of the address, lent to it for the call.
    checked(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })
}

fn set<T: Copy>(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: an open descriptor; the kernel reads `len` bytes, all of the value, lent to it for the call.
    checked(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, core::ptr::from_ref(value).cast(), len)
    })
}

fn get(fd: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: an open descriptor; the kernel writes at most `len` bytes, all of the value, lent to it for the call.
    checked(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len)
    })?;
    Ok(value)
}

fn checked(done: libc::c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

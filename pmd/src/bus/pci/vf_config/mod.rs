//! What a PF's kernel driver holds its VFs to: address, spoof check, trust, link state (`ip link show PF`).
//!
//! The kernel tells it over rtnetlink(7) only: one request, one answer.

mod message;

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

pub use message::{LinkPolicy, VfConfig};

/// Asks for the VFs of a PF's interface, in their order. Needs no rights.
///
/// # Errors
/// What the kernel says: `ENODEV` if there is no such interface in this network namespace.
pub fn vf_configs(interface: &str) -> io::Result<Vec<VfConfig>> {
    // A VF takes about 150 bytes of an answer without statistics, and a PF has 256 at most.
    let mut answer = vec![0; 256 << 10];
    // No protocol is protocol 0, NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &message::request(interface), SendFlags::empty())?;
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    message::answer(&answer[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_understands_the_question() {
        assert_eq!(vf_configs("lo").unwrap(), []);
        let error = vf_configs("no-such-one").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
    }
}

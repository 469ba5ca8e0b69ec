//! The bytes of one rtnetlink question and its answer (rtnetlink(7); `linux/if_link.h` has the numbers).
//!
//! Everything is in the host's byte order, and each part begins at a multiple of 4.

use std::io;

/// A request's flag: answer it.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const INFO: usize = 16;

const IFLA_IFNAME: u16 = 3;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
/// Tell of VFs, but not their counters.
const RTEXT_FILTER_VF: u32 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_LINK_STATE: u16 = 5;
const IFLA_VF_TRUST: u16 = 9;
/// The upper bits of an attribute's type are flags.
const TYPE: u16 = 0x3fff;

/// What a PF's driver holds one VF to. What a driver does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfConfig {
    /// Which VF, from 0: `ip link set PF vf NUMBER ..`.
    pub number: u32,
    /// The address laid down for it; all zero: none, the VF makes one up.
    pub mac: [u8; 6],
    /// Whether frames from another source address than its own are dropped.
    pub spoof_check: Option<bool>,
    /// Whether it may ask for promiscuous mode and other addresses.
    pub trusted: Option<bool>,
    /// The link that it is shown.
    pub link: Option<LinkPolicy>,
}

/// `ip link set PF vf N state ..`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPolicy {
    /// The PF's.
    Auto,
    /// Always up.
    Enable,
    /// Always down.
    Disable,
}

/// The question: RTM_GETLINK for an interface by name, with its VFs.
pub(super) fn request(interface: &str) -> Vec<u8> {
    let mut name = interface.as_bytes().to_vec();
    name.push(0);
    let mut message = vec![0; HEADER + INFO];
    attribute(&mut message, IFLA_EXT_MASK, &(RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS).to_ne_bytes());
    attribute(&mut message, IFLA_IFNAME, &name);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The answer: the VFs in it, or the error that it is.
pub(super) fn answer(message: &[u8]) -> io::Result<Vec<VfConfig>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is no link message");
    let kind =
        message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(broken)?;
    match kind {
        RTM_NEWLINK => Ok(vfs(message.get(HEADER + INFO..).ok_or_else(broken)?)),
        NLMSG_ERROR => {
            let number = word(&message[HEADER.min(message.len())..], 0).ok_or_else(broken)?;
            Err(io::Error::from_raw_os_error((number as i32).wrapping_neg()))
        }
        _ => Err(broken()),
    }
}

fn vfs(link: &[u8]) -> Vec<VfConfig> {
    let list = attributes(link).filter(|(kind, _)| *kind == IFLA_VFINFO_LIST);
    list.flat_map(|(_, list)| attributes(list)).map(|(_, vf)| vf_config(vf)).collect()
}

fn vf_config(parts: &[u8]) -> VfConfig {
    let mut vf = VfConfig::default();
    for (kind, value) in attributes(parts) {
        let setting = word(value, 4);
        match kind {
            IFLA_VF_MAC => {
                vf.number = word(value, 0).unwrap_or_default();
                vf.mac = value.get(4..10).and_then(|b| b.try_into().ok()).unwrap_or_default();
            }
            IFLA_VF_SPOOFCHK => vf.spoof_check = setting.and_then(switch),
            IFLA_VF_TRUST => vf.trusted = setting.and_then(switch),
            IFLA_VF_LINK_STATE => vf.link = setting.and_then(policy),
            _ => {}
        }
    }
    vf
}

/// 0 or 1; a driver that does not know says -1.
fn switch(setting: u32) -> Option<bool> {
    (setting <= 1).then_some(setting == 1)
}

fn policy(state: u32) -> Option<LinkPolicy> {
    [LinkPolicy::Auto, LinkPolicy::Enable, LinkPolicy::Disable].get(state as usize).copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Attributes in a row, as type and value. Ends where a length is wrong.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([head[2], head[3]]) & TYPE, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const IFLA_VF_INFO: u16 = 1;

    fn pair(number: u32, setting: u32) -> Vec<u8> {
        [number.to_ne_bytes(), setting.to_ne_bytes()].concat()
    }

    fn one_vf(number: u32, spoof_check: u32, state: u32) -> Vec<u8> {
        let mut mac = number.to_ne_bytes().to_vec();
        mac.extend([2, 0, 0, 0, 0, number as u8]);
        mac.resize(36, 0);
        let mut vf = Vec::new();
        attribute(&mut vf, IFLA_VF_MAC, &mac);
        attribute(&mut vf, IFLA_VF_SPOOFCHK, &pair(number, spoof_check));
        attribute(&mut vf, IFLA_VF_LINK_STATE, &pair(number, state));
        attribute(&mut vf, IFLA_VF_TRUST, &pair(number, 0));
        vf
    }

    fn link_message() -> Vec<u8> {
        let mut list = Vec::new();
        attribute(&mut list, IFLA_VF_INFO, &one_vf(0, 1, 0));
        attribute(&mut list, IFLA_VF_INFO, &one_vf(1, u32::MAX, 2));
        let mut message = vec![0; HEADER + INFO];
        message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        attribute(&mut message, IFLA_IFNAME, b"enp1s0\0");
        attribute(&mut message, IFLA_VFINFO_LIST | 0x8000, &list);
        message
    }

    #[test]
    fn vfs_are_found_in_an_answer() {
        let vfs = answer(&link_message()).unwrap();
        assert_eq!(vfs.len(), 2);
        assert_eq!((vfs[0].spoof_check, vfs[0].link), (Some(true), Some(LinkPolicy::Auto)));
        assert_eq!((vfs[1].spoof_check, vfs[1].link), (None, Some(LinkPolicy::Disable)));
        assert_eq!((vfs[1].number, vfs[1].mac, vfs[1].trusted), (1, [2, 0, 0, 0, 0, 1], Some(false)));
    }

    #[test]
    fn an_answer_cut_anywhere_is_survived() {
        let message = link_message();
        let whole = answer(&message).unwrap().len();
        for length in 0..message.len() {
            let found = answer(&message[..length]);
            assert!(found.is_err() == (length < HEADER + INFO) && found.unwrap_or_default().len() <= whole);
        }
    }

    #[test]
    fn errors_are_the_kernels() {
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert!(answer(&message).is_err());
        message.extend((-libc::EPERM).to_ne_bytes());
        assert_eq!(answer(&message).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}

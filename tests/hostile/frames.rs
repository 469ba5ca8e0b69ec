//! Frames from the attacker's port to its partner's.

use crate::scene::{X, Y, mac};

/// EtherType of the attacker's plain frames: the second one for local experiments. The victims' is the first.
const PLAIN: [u8; 2] = [0x88, 0xb6];

fn ethernet(dst: [u8; 6], src: [u8; 6], kind: [u8; 2]) -> Vec<u8> {
    [&dst[..], &src, &kind].concat()
}

/// A frame of `len` bytes (14 or more) from `x` to `y`, number `tag` if there is room for it.
pub(crate) fn plain(len: usize, tag: u32) -> Vec<u8> {
    between(X, Y, len, tag)
}

/// The same between any two stations.
pub(crate) fn between(from: usize, to: usize, len: usize, tag: u32) -> Vec<u8> {
    let mut frame = ethernet(mac(to), mac(from), PLAIN);
    frame.extend(tag.to_le_bytes());
    frame.extend((18..len).map(|i| (i as u8).wrapping_mul(7)));
    frame.truncate(len);
    frame
}

/// An IPv4 packet with whatever stands behind the IP header.
pub(crate) fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let total = (20 + body.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = !fold(sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [ethernet(mac(Y), mac(X), [0x08, 0x00]), ip, body.to_vec()].concat()
}

/// An IPv6 packet with whatever stands behind the IP header.
pub(crate) fn ipv6(protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend((body.len() as u16).to_be_bytes());
    ip.extend([protocol, 64]);
    ip.extend([0xfd; 32]);
    [ethernet(mac(Y), mac(X), [0x86, 0xdd]), ip, body.to_vec()].concat()
}

/// A TCP header without options, and `payload` bytes. Its checksum is left to be finished.
pub(crate) fn tcp(payload: usize) -> Vec<u8> {
    let mut tcp = vec![0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    tcp.extend((0..payload).map(|i| i as u8));
    tcp
}

/// A UDP header and `payload` bytes.
pub(crate) fn udp(payload: usize) -> Vec<u8> {
    let mut udp = vec![0x12, 0x34, 0x56, 0x78];
    udp.extend((8 + payload as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend((0..payload).map(|i| i as u8));
    udp
}

/// TCP over IPv4: Ethernet 14, IP 20, TCP 20, then `payload` bytes.
pub(crate) fn tcp4(payload: usize) -> Vec<u8> {
    ipv4(6, &tcp(payload))
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

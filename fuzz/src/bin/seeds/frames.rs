//! Frames as hosts send them, and virtio-net headers as drivers write them.

use crate::Seeds;

const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;

/// Ethernet, `tags` of them in front of the EtherType.
fn ethernet(kind: u16, tags: &[u16], rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
    for (i, tag) in tags.iter().enumerate() {
        let outer = i + 1 < tags.len();
        frame.extend(if outer { 0x88a8u16 } else { 0x8100 }.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(rest);
    frame
}

fn ipv4(protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&(20 + rest.len() as u16).to_be_bytes());
    ip.extend(rest);
    ip
}

/// `extensions` are headers of eight bytes, by their numbers.
fn ipv6(extensions: &[u8], protocol: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, 0, extensions.first().copied().unwrap_or(protocol), 64];
    ip[4..6].copy_from_slice(&((8 * extensions.len() + rest.len()) as u16).to_be_bytes());
    for last in [1u8, 2] {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    for (i, _) in extensions.iter().enumerate() {
        ip.extend([extensions.get(i + 1).copied().unwrap_or(protocol), 0, 1, 4, 0, 0, 0, 0]);
    }
    ip.extend(rest);
    ip
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut tcp = vec![0xc0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    tcp.extend((0..payload).map(|i| i as u8));
    tcp
}

fn udp(payload: usize) -> Vec<u8> {
    let mut udp = vec![0xc0, 0, 0, 53, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
    udp.extend((0..payload).map(|i| i as u8));
    udp
}

/// With the names that their seeds bear.
fn all() -> Seeds {
    vec![
        ("tcp4", ethernet(V4, &[], &ipv4(6, &tcp(20)))),
        ("udp4", ethernet(V4, &[], &ipv4(17, &udp(20)))),
        ("icmp4", ethernet(V4, &[], &ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1]))),
        ("tcp4-vlan", ethernet(V4, &[5], &ipv4(6, &tcp(20)))),
        ("tcp6-qinq", ethernet(V6, &[5, 6], &ipv6(&[], 6, &tcp(20)))),
        ("tcp6", ethernet(V6, &[], &ipv6(&[], 6, &tcp(20)))),
        ("udp6-extensions", ethernet(V6, &[], &ipv6(&[0, 60, 43], 17, &udp(20)))),
        ("tcp6-fragment", ethernet(V6, &[], &ipv6(&[44], 6, &tcp(20)))),
        ("arp", ethernet(0x0806, &[], &[0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 1])),
        ("broadcast", [vec![0xff; 6], ethernet(V4, &[], &ipv4(17, &udp(4)))[6..].to_vec()].concat()),
    ]
}

/// Two bytes say how many bytes follow the head.
pub(crate) fn parse() -> Seeds {
    all().into_iter().map(|(name, frame)| (name, [vec![0, 0], frame].concat())).collect()
}

/// A header, and what stands before it: what sender and receiver can do, how the frame is cut, and bytes that follow.
fn offloaded(sets: u8, more: u16, hdr: [u16; 4], flags: u8, gso: u8, frame: &[u8]) -> Vec<u8> {
    let mut seed = vec![sets, 1];
    seed.extend(more.to_le_bytes());
    seed.extend([flags, gso]);
    hdr.iter().for_each(|word| seed.extend(word.to_le_bytes()));
    seed.extend(frame);
    seed
}

/// A frame of `len` more payload bytes than it has: its IP (and UDP) lengths say so.
fn longer(mut frame: Vec<u8>, l3: usize, more: u16) -> Vec<u8> {
    let v6 = frame[l3] >> 4 == 6;
    let at = if v6 { l3 + 4 } else { l3 + 2 };
    let add = |frame: &mut Vec<u8>, at: usize| {
        let len = u16::from_be_bytes([frame[at], frame[at + 1]]) + more;
        frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
    };
    add(&mut frame, at);
    let (protocol, l4) = if v6 { (frame[l3 + 6], l3 + 40) } else { (frame[l3 + 9], l3 + 20) };
    if protocol == 17 {
        add(&mut frame, l4 + 4);
    }
    frame
}

pub(crate) fn offload() -> Seeds {
    let tcp4 = ethernet(V4, &[], &ipv4(6, &tcp(20)));
    let udp4 = ethernet(V4, &[], &ipv4(17, &udp(20)));
    let tcp6 = ethernet(V6, &[], &ipv6(&[], 6, &tcp(20)));
    let vlan = ethernet(V4, &[5], &ipv4(6, &tcp(20)));
    let long = |frame: &[u8], l3| longer(frame.to_vec(), l3, 4000);
    vec![
        ("plain", offloaded(0x60, 0, [0; 4], 0, 0, &udp4)),
        ("checksum-tcp4", offloaded(0x60, 0, [54, 0, 34, 16], 1, 0, &tcp4)),
        ("checksum-udp4", offloaded(0x60, 0, [42, 0, 34, 6], 1, 0, &udp4)),
        ("checksum-passed-on", offloaded(0x61, 0, [54, 0, 34, 16], 1, 0, &tcp4)),
        ("checksum-tcp6", offloaded(0x60, 0, [74, 0, 54, 16], 1, 0, &tcp6)),
        ("checksum-vlan", offloaded(0x60, 0, [58, 0, 38, 16], 1, 0, &vlan)),
        ("data-valid", offloaded(0x70, 0, [0; 4], 2, 0, &tcp4)),
        ("tso4", offloaded(0x60, 4000, [54, 1448, 34, 16], 1, 1, &long(&tcp4, 14))),
        ("tso4-ecn", offloaded(0x62, 4000, [54, 1448, 34, 16], 1, 0x81, &long(&tcp4, 14))),
        ("tso4-passed-on", offloaded(0x66, 4000, [54, 1448, 34, 16], 1, 1, &long(&tcp4, 14))),
        ("tso6", offloaded(0x62, 4000, [74, 1428, 54, 16], 1, 4, &long(&tcp6, 14))),
        ("uso", offloaded(0x61, 4000, [42, 1000, 34, 6], 1, 5, &long(&udp4, 14))),
        ("tso4-vlan", offloaded(0x61, 4000, [58, 100, 38, 16], 1, 1, &long(&vlan, 18))),
    ]
}

/// Two hosts and a broadcast, over all ports, one turn each.
pub(crate) fn forward() -> Seeds {
    let mut conversation = vec![0xf];
    for (i, (_, frame)) in all().into_iter().enumerate() {
        conversation.extend([0x80 | i as u8, frame.len() as u8]);
        conversation.extend(&frame);
    }
    let mut there_and_back = vec![0x5];
    for (port, (_, mut frame)) in [0u8, 2, 0, 2].into_iter().zip(all()) {
        if port == 2 {
            frame[..12].rotate_left(6);
        }
        there_and_back.extend([0x80 | port, frame.len() as u8]);
        there_and_back.extend(&frame);
    }
    vec![("all-kinds", conversation), ("there-and-back", there_and_back)]
}

//! Which flow a packet is of: same flow, same queue.

use crate::hash::KeyedHash;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A hash over what stays the same in a flow: addresses, and ports where every packet of the flow has them; the Ethernet
/// addresses if it is not IP. Of the frame's first bytes; what is cut short is hashed as far as it is there.
pub(crate) fn flow_hash(hash: &KeyedHash, frame: &[u8]) -> u64 {
    let (kind, l3) = ether_type(frame);
    let flow = match kind {
        Some(IPV4) => ipv4(hash, l3),
        Some(IPV6) => ipv6(hash, l3),
        _ => None,
    };
    flow.unwrap_or_else(|| frame.first_chunk::<12>().map_or(0, |macs| words(hash, 0, macs)))
}

fn ether_type(frame: &[u8]) -> (Option<u16>, &[u8]) {
    let mut at = 12;
    let mut kind = be16(frame, at);
    if kind.is_some_and(|k| VLAN.contains(&k)) {
        at += 4;
        kind = be16(frame, at);
    }
    (kind, frame.get(at + 2..).unwrap_or_default())
}

/// RFC 791 3.1. Fragments have no ports, but for the first: none is hashed with them.
fn ipv4(hash: &KeyedHash, l3: &[u8]) -> Option<u64> {
    let header = l3.first_chunk::<20>()?;
    let addresses = words(hash, u64::from(header[9]), &header[12..20]);
    let fragment = (u16::from_be_bytes([header[6], header[7]]) & 0x3fff) != 0;
    let l4 = usize::from(header[0] & 15) * 4;
    Some(if fragment { addresses } else { ports(hash, addresses, header[9], l3.get(l4..)) })
}

/// RFC 8200 3. Ports only where they follow at once: a flow's extension headers may come and go.
fn ipv6(hash: &KeyedHash, l3: &[u8]) -> Option<u64> {
    let header = l3.first_chunk::<40>()?;
    let addresses = words(hash, 6, &header[8..40]);
    Some(ports(hash, addresses, header[6], l3.get(40..)))
}

fn ports(hash: &KeyedHash, before: u64, protocol: u8, l4: Option<&[u8]>) -> u64 {
    match l4.and_then(|l4| l4.first_chunk::<4>()) {
        Some(ports) if matches!(protocol, TCP | UDP | SCTP) => words(hash, before, ports),
        _ => before,
    }
}

fn words(hash: &KeyedHash, seed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(4).fold(seed, |h, c| hash.more(h, c.iter().fold(1, |w, b| w << 8 | u64::from(*b))))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// One of `n`, by the hash's upper half.
#[inline]
pub(crate) fn pick(hash: u64, n: usize) -> usize {
    (((hash >> 32) * n as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&IPV4.to_be_bytes());
        frame[14] = 0x45;
        frame[23] = UDP;
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn ports_tell_flows_apart_and_other_bytes_do_not() {
        let hash = KeyedHash::random();
        let mut same = udp(5);
        same[50] = 9;
        same[18] = 77;
        assert_eq!(flow_hash(&hash, &udp(5)), flow_hash(&hash, &same));
        assert_ne!(flow_hash(&hash, &udp(5)), flow_hash(&hash, &udp(6)));
    }

    #[test]
    fn fragments_of_one_datagram_stay_together() {
        let hash = KeyedHash::random();
        let (mut first, mut second) = (udp(5), udp(6));
        first[20] = 0x20;
        second[21] = 0x10;
        assert_eq!(flow_hash(&hash, &first), flow_hash(&hash, &second));
    }

    #[test]
    fn any_bytes_have_a_hash() {
        let hash = KeyedHash::random();
        for kind in [IPV4, IPV6, VLAN[0], 0x1234] {
            for len in 0..70 {
                let mut frame = vec![0xff; len];
                if let Some(place) = frame.get_mut(12..14) {
                    place.copy_from_slice(&kind.to_be_bytes());
                }
                flow_hash(&hash, &frame);
            }
        }
    }

    #[test]
    fn flows_spread_over_queues() {
        let hash = KeyedHash::random();
        let mut queues = [0; 4];
        for port in 0..4000 {
            queues[pick(flow_hash(&hash, &udp(port)), 4)] += 1;
        }
        assert!(queues.iter().all(|n| (800..1200).contains(n)), "{queues:?}");
    }
}

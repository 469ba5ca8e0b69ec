//! Frames that can be told apart.

use mbuf::{Mbuf, Mempool};

/// A frame of `len` bytes that no other `seed` makes.
pub(crate) fn frame(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A packet of these bytes, in as many mbufs of `pool` as it takes.
pub(crate) fn packet(pool: &'static Mempool, bytes: &[u8]) -> Mbuf<'static> {
    let mut packet: Option<Mbuf<'static>> = None;
    for chunk in bytes.chunks(pool.data_room()) {
        let mut part = pool.alloc(1).expect("an mbuf");
        part.append(chunk.len()).expect("room").copy_from_slice(chunk);
        match &mut packet {
            None => packet = Some(part),
            Some(first) => first.chain(part).expect("both are alone"),
        }
    }
    packet.expect("some bytes")
}

/// A packet's bytes.
pub(crate) fn bytes(mbuf: &Mbuf<'_>) -> Vec<u8> {
    let mut bytes = vec![0; mbuf.len()];
    mbuf.copy_to(0, &mut bytes);
    bytes
}

/// An Ethernet frame with IPv4 and TCP, checksum of the pseudo header in place as for offload; `payload` bytes.
pub(crate) fn tcp(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1000, 2000, 12345, 1000);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &frame(payload, 7)).expect("in memory");
    bytes
}

//! Plain packets.

use mbuf::{Burst, Mbuf, Mempool, MempoolConfig};

pub(crate) fn pool(mbufs: usize) -> &'static Mempool {
    Mempool::new(&MempoolConfig { mbufs, cache: 0, ..MempoolConfig::default() }).unwrap()
}

/// A broadcast of `len` bytes that carries a number.
pub(crate) fn numbered(pool: &'static Mempool, number: u8, len: usize) -> Mbuf<'static> {
    let mut mbuf = pool.alloc(0).unwrap();
    let bytes = mbuf.append(len).unwrap();
    bytes.fill(number);
    bytes[..6].fill(0xff);
    mbuf
}

/// A burst of `n` numbered packets of 60 bytes.
pub(crate) fn burst(pool: &'static Mempool, n: u8) -> Burst<'static> {
    let mut burst = Burst::new();
    for i in 0..n {
        burst.push(numbered(pool, i, 60)).unwrap();
    }
    burst
}

/// The numbers of a burst's packets.
pub(crate) fn numbers(burst: &Burst<'_>) -> Vec<u8> {
    burst.iter().map(|m| m.data()[20]).collect()
}

/// All bytes of a packet.
pub(crate) fn bytes(packet: &Mbuf<'_>) -> Vec<u8> {
    let mut all = vec![0; packet.len()];
    assert_eq!(packet.copy_to(0, &mut all), all.len());
    all
}

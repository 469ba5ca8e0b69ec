//! Frames from plain bytes.

use mbuf::{Mbuf, Mempool, NoMbufs};

/// Ethernet's header: no frame is shorter.
pub(crate) const MIN_FRAME: usize = 14;
/// The longest frame that Polder carries: 65,535 bytes of IP behind Ethernet with two VLAN tags.
pub(crate) const MAX_FRAME: usize = 65_535 + 22;

/// Hangs `bytes` behind `mbuf`, in chained mbufs of its pool as far as they do not fit.
pub(crate) fn extend(mbuf: &mut Mbuf<'static>, mut bytes: &[u8], owner: u16) -> Result<(), NoMbufs> {
    let n = bytes.len().min(mbuf.tailroom());
    if let Some(room) = mbuf.append(n) {
        room.copy_from_slice(&bytes[..n]);
        bytes = &bytes[n..];
    }
    while !bytes.is_empty() {
        let mut more = mbuf.pool().alloc(owner)?;
        let (now, later) = bytes.split_at(bytes.len().min(more.tailroom()));
        more.append(now.len()).ok_or(NoMbufs)?.copy_from_slice(now);
        mbuf.chain(more).map_err(|_| NoMbufs)?;
        bytes = later;
    }
    Ok(())
}

/// A packet of `bytes`, from port `port`.
pub(crate) fn from_bytes(pool: &'static Mempool, port: u16, bytes: &[u8]) -> Result<Mbuf<'static>, NoMbufs> {
    let mut mbuf = pool.alloc(port)?;
    extend(&mut mbuf, bytes, port)?;
    mbuf.set_port(port);
    Ok(mbuf)
}

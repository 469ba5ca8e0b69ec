//! Segmentation in software, for receivers that cannot take a packet larger than their MTU.

use mbuf::{Burst, Checksum, Mbuf, NoMbufs, Offload};

use crate::DropReason;
use crate::offload::check::is_headed_for;
use crate::offload::checksum::{Sum, non_zero, sum_from};
use crate::offload::parse::{Headers, Network, Transport, parse};

/// Most segments that one packet is cut into.
pub const MAX_SEGMENTS: usize = 1024;

const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// A packet on its way to become segments: an iterator over them. Each is a finished frame, in mbufs of the packet's own
/// pool; bytes of a borrowed tail are read once, straight into them.
#[derive(Debug)]
pub struct Segmenter<'t> {
    mbuf: Mbuf<'t>,
    headers: Headers,
    gso_size: usize,
    /// Payload bytes that went out.
    done: usize,
    /// Segments that went out.
    index: u16,
}

impl<'t> Segmenter<'t> {
    /// Takes a packet that is to be cut.
    ///
    /// # Errors
    /// [`DropReason::TxOffload`] if it is none, its headers are not (or no longer) those of its kind or do not fit into
    /// one mbuf, or there would be more than [`MAX_SEGMENTS`]. The packet is dropped then.
    pub fn new(mbuf: Mbuf<'t>) -> Result<Self, DropReason> {
        let offload = mbuf.offload();
        let headers = parse(mbuf.data(), mbuf.len());
        let whole = is_headed_for(offload.gso, &headers) && headers.l3_end == mbuf.len();
        let gso_size = usize::from(offload.gso_size);
        if !whole || gso_size == 0 || headers.payload > mbuf.pool().data_room() {
            return Err(DropReason::TxOffload);
        }
        let segmenter = Self { headers, gso_size, mbuf, done: 0, index: 0 };
        if segmenter.remaining() > MAX_SEGMENTS { Err(DropReason::TxOffload) } else { Ok(segmenter) }
    }

    /// Segments that are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let left = self.payload_len() - self.done;
        // A packet without payload is one segment: itself.
        if self.index == 0 { left.div_ceil(self.gso_size).max(1) } else { left.div_ceil(self.gso_size) }
    }

    /// The packet that is being cut.
    #[must_use]
    pub fn packet(&self) -> &Mbuf<'t> {
        &self.mbuf
    }

    /// Appends the next segments to `out`, as many as it has room for; returns how many.
    ///
    /// # Errors
    /// [`NoMbufs`]; the segments before it are in `out`, and the next call goes on behind them.
    pub fn fill(&mut self, out: &mut Burst<'_>) -> Result<usize, NoMbufs> {
        let mut filled = 0;
        while out.room() > 0
            && let Some(segment) = self.next()
        {
            let pushed = out.push(segment?);
            debug_assert!(pushed.is_ok(), "there was room");
            filled += 1;
        }
        Ok(filled)
    }

    fn payload_len(&self) -> usize {
        self.mbuf.len() - self.headers.payload
    }

    fn cut(&self, chunk: usize) -> Result<Mbuf<'static>, NoMbufs> {
        let mut segment = self.copy(chunk)?;
        let last = self.done + chunk == self.payload_len();
        let head = segment.data_mut().ok_or(NoMbufs)?;
        self.write_network(head, chunk);
        self.write_transport(head, chunk, last);
        self.write_checksum(&mut segment)?;
        let mut offload = Offload::NONE;
        offload.checksum = Checksum::Valid;
        offload.vlan_tci = self.mbuf.offload().vlan_tci;
        segment.set_offload(offload);
        segment.set_port(self.mbuf.port());
        Ok(segment)
    }

    /// The headers, and `chunk` bytes of the payload behind them.
    fn copy(&self, chunk: usize) -> Result<Mbuf<'static>, NoMbufs> {
        let header = self.headers.payload;
        let mut segment = self.mbuf.pool().alloc_spare(self.mbuf.port())?;
        let len = (header + chunk).min(segment.tailroom());
        let room = segment.append(len).ok_or(NoMbufs)?;
        room[..header].copy_from_slice(&self.mbuf.data()[..header]);
        self.mbuf.copy_to(header + self.done, &mut room[header..]);
        let mut copied = len - header;
        while copied < chunk {
            let mut more = self.mbuf.pool().alloc_spare(self.mbuf.port())?;
            let len = (chunk - copied).min(more.tailroom());
            self.mbuf.copy_to(header + self.done + copied, more.append(len).ok_or(NoMbufs)?);
            segment.chain(more).map_err(|_| NoMbufs)?;
            copied += len;
        }
        Ok(segment)
    }

    fn write_network(&self, head: &mut [u8], chunk: usize) {
        let h = &self.headers;
        let ip = &mut head[h.l3..h.l4];
        let len = h.payload - h.l3 + chunk;
        if h.network == Network::V6 {
            ip[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            return;
        }
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.index);
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let mut sum = Sum::new();
        sum.add(ip);
        ip[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    }

    fn write_transport(&self, head: &mut [u8], chunk: usize, last: bool) {
        let h = &self.headers;
        let l4 = &mut head[h.l4..h.payload];
        if h.transport == Transport::Udp {
            l4[4..6].copy_from_slice(&((8 + chunk) as u16).to_be_bytes());
            return;
        }
        let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add(self.done as u32);
        l4[4..8].copy_from_slice(&seq.to_be_bytes());
        if !last {
            l4[13] &= !TCP_FIN_PSH;
        }
        if self.index > 0 {
            l4[13] &= !TCP_CWR;
        }
    }

    fn write_checksum(&self, segment: &mut Mbuf<'static>) -> Result<(), NoMbufs> {
        let h = &self.headers;
        let at = h.l4 + h.transport.checksum_offset().map_or(0, usize::from);
        let zeroed = segment.data_mut().ok_or(NoMbufs)?;
        zeroed[at..at + 2].fill(0);
        let mut sum = pseudo_header(segment, h);
        sum_from(segment, h.l4, &mut sum);
        let field = &mut segment.data_mut().ok_or(NoMbufs)?[at..at + 2];
        field.copy_from_slice(&non_zero(sum.finish()).to_be_bytes());
        Ok(())
    }
}

/// RFC 9293 §3.1, RFC 768, RFC 8200 §8.1. The length is below 2^16: the IP packet's was.
fn pseudo_header(segment: &Mbuf<'_>, h: &Headers) -> Sum {
    let mut sum = Sum::new();
    let addresses = if h.network == Network::V6 { 8..40 } else { 12..20 };
    sum.add(&segment.data()[h.l3..][addresses]);
    sum.add_word(if h.transport == Transport::Tcp { 6 } else { 17 });
    sum.add_word((segment.len() - h.l4) as u16);
    sum
}

impl Iterator for Segmenter<'_> {
    type Item = Result<Mbuf<'static>, NoMbufs>;

    /// The next segment. After an error the same one is tried again.
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining() == 0 {
            return None;
        }
        let chunk = self.gso_size.min(self.payload_len() - self.done);
        let segment = self.cut(chunk);
        if segment.is_ok() {
            self.done += chunk;
            self.index += 1;
        }
        Some(segment)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining(), None)
    }
}

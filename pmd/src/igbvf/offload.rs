//! Packets that need more than one descriptor, or work: chains, tails, foreign mbufs, checksums, segmentation, padding.
//!
//! What the card is told of a packet's headers is what our own parse finds in the bytes that it will read, never what a guest
//! said of them: a lie there is an offence for which the card stops the VF, for all guests. What the card is not to do is done here in
//! software.

use core::ptr::NonNull;

use mbuf::{Checksum, GsoKind, Mbuf, Offload};

use super::desc::tx::{
    CONTEXT, DATA, EOP, IPLEN_MAX, IPLEN_SHIFT, IPV4, IXSM, L4LEN_SHIFT, MACLEN_MAX, MACLEN_SHIFT, MSS_SHIFT,
    PAYLEN_MAX, PAYLEN_SHIFT, TCP, TSE, TXSM,
};
use super::tx::{IgbvfTx, MIN_FRAME};
use crate::DropReason;
use crate::bus::Registers;
use crate::offload::{Headers, MAX_SEGMENTS, Network, OffloadSet, Segmenter, Sum, Transport, adapt, parse};
use crate::vdev::Fate;

/// Most descriptors for the data of one packet: a segmented one of 64 KiB in mbufs of 2 KiB on small pages has 50. QEMU's card
/// takes 64.
const MOST_PIECES: usize = 56;
/// Longest headers that the card is given to work on: what a private copy of a guest's packet holds at least.
const MOST_HEADER: usize = 128;
/// Smallest MSS that the card is given. Smaller ones are no TCP's of our day, and each costs the card a frame.
const LEAST_MSS: usize = 64;
/// Longer ones there are not.
const MOST_FRAME: usize = 1 << 16;
/// Shorter frames are no frames.
const ETHERNET: usize = 14;

/// What the card takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of the longest frame, without FCS and VLAN tags.
    pub(super) max_frame: usize,
    /// Bytes of a page, a power of two: no piece of a packet crosses from one to the next. Hardware would not mind, but
    /// QEMU's card drops such a packet.
    pub(super) page: usize,
}

/// Parts of a segment that lie in one page each.
fn pieces(segment: &[u8], page: usize) -> impl Iterator<Item = &[u8]> {
    let first = page - segment.as_ptr().addr() % page;
    let (first, others) = segment.split_at(first.min(segment.len()));
    core::iter::once(first).chain(others.chunks(page)).filter(|piece| !piece.is_empty())
}

/// A context descriptor: what the card keeps of the headers of packets to come.
pub(super) type Context = [u64; 2];

/// What the card is to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// What it has to know.
    pub(super) context: Option<Context>,
    /// Commands and options for its data descriptors.
    pub(super) options: u64,
    /// Bytes in front of what PAYLEN counts.
    pub(super) headers: usize,
}

impl Plan {
    /// Sends it as it is.
    const PLAIN: Self = Self { context: None, options: 0, headers: 0 };
}

/// What the card can do for this packet; none: it is to be done in software.
pub(super) fn plan(mbuf: &Mbuf<'_>, limits: Limits) -> Option<Plan> {
    let offload = mbuf.offload();
    if offload.is_none() {
        return Some(Plan::PLAIN);
    }
    let h = parse(mbuf.data(), mbuf.len());
    if !agrees(offload, &h) || h.l3_end != mbuf.len() || mbuf.len() < MIN_FRAME || !is_in_range(&h) {
        return None;
    }
    match offload.gso {
        GsoKind::None => Some(Plan { context: Some(context(&h, 0, 0)), options: TXSM, headers: 0 }),
        GsoKind::TcpV4 | GsoKind::TcpV6 => segmentation(mbuf, &h, limits),
        GsoKind::UdpL4 => None,
    }
}

/// Whether the packet's headers are (still) what its offload means.
fn agrees(offload: &Offload, h: &Headers) -> bool {
    offload.hdr_len != 0
        && offload.checksum == Checksum::Partial
        && h.payload == usize::from(offload.hdr_len)
        && h.l4 == usize::from(offload.csum_start)
        && h.transport.checksum_offset() == Some(offload.csum_offset)
}

fn is_in_range(h: &Headers) -> bool {
    h.payload <= MOST_HEADER && h.l3 <= MACLEN_MAX && h.l4 - h.l3 <= IPLEN_MAX
}

/// H19: an MSS of nothing or next to it, headers that are not TCP's of that IP version, more segments than any packet has, a
/// segment longer than the wire takes, a payload that the descriptor cannot name: not for the card.
fn segmentation(mbuf: &Mbuf<'_>, h: &Headers, limits: Limits) -> Option<Plan> {
    let (offload, mss) = (mbuf.offload(), usize::from(mbuf.offload().gso_size));
    let (network, ip_checksum) = match offload.gso {
        GsoKind::TcpV4 => (Network::V4, IXSM),
        _ => (Network::V6, 0),
    };
    let payload = mbuf.len() - h.payload;
    let is_whole = h.network == network && h.transport == Transport::Tcp && !offload.gso_ecn;
    let is_sane = mss >= LEAST_MSS && payload > mss && payload.div_ceil(mss) <= MAX_SEGMENTS;
    let fits = h.payload - 4 * usize::from(h.tags) + mss <= limits.max_frame && payload <= PAYLEN_MAX;
    (is_whole && is_sane && fits).then(|| Plan {
        context: Some(context(h, mss, h.payload - h.l4)),
        options: TSE | TXSM | ip_checksum,
        headers: h.payload,
    })
}

fn context(h: &Headers, mss: usize, l4_len: usize) -> Context {
    let lengths = ((h.l4 - h.l3) as u64) << IPLEN_SHIFT | (h.l3 as u64) << MACLEN_SHIFT;
    let v4 = if h.network == Network::V4 { IPV4 } else { 0 };
    let tcp = if h.transport == Transport::Tcp { TCP } else { 0 };
    [lengths, CONTEXT | v4 | tcp | (l4_len as u64) << L4LEN_SHIFT | (mss as u64) << MSS_SHIFT]
}

/// Readies the headers of a packet for the card's segmentation: it adds lengths and sums to what it finds, so the IP length and
/// checksum are zero, and TCP's checksum is the pseudo-header's without a length.
fn ready_for_segmentation(mbuf: &mut Mbuf<'static>) -> Option<()> {
    let h = parse(mbuf.data(), mbuf.len());
    let frame = mbuf.data_mut()?;
    let mut sum = Sum::new();
    let addresses = if h.network == Network::V6 { 8..40 } else { 12..20 };
    sum.add(frame.get(h.l3..)?.get(addresses)?);
    sum.add_word(6);
    if h.network == Network::V6 {
        frame.get_mut(h.l3 + 4..h.l3 + 6)?.fill(0);
    } else {
        frame.get_mut(h.l3 + 2..h.l3 + 4)?.fill(0);
        frame.get_mut(h.l3 + 10..h.l3 + 12)?.fill(0);
    }
    frame.get_mut(h.l4 + 16..h.l4 + 18)?.copy_from_slice(&(!sum.finish()).to_be_bytes());
    Some(())
}

impl<B: Registers + 'static> IgbvfTx<B> {
    /// Sends any packet.
    pub(super) fn send_odd<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        if mbuf.len() < ETHERNET {
            return Fate::Dropped(DropReason::TxError);
        }
        // The most that one packet can need, its context included.
        let need = if self.is_plain(&mbuf) { 1 } else { MOST_PIECES + 1 };
        if self.room() < need {
            return Fate::Full(mbuf);
        }
        match plan(&mbuf, self.parts.limits) {
            Some(plan) => fate(self.send_planned(mbuf, plan)),
            None if mbuf.offload().gso == GsoKind::None => fate(self.send_summed(mbuf)),
            None => self.send_segments(mbuf),
        }
    }

    /// After the checksum in software.
    fn send_summed(&mut self, mbuf: Mbuf<'_>) -> Result<(), DropReason> {
        match adapt(mbuf, OffloadSet::NONE)? {
            crate::offload::Adapted::One(summed) => self.send_planned(summed, Plan::PLAIN),
            crate::offload::Adapted::Many(_) => Err(DropReason::TxOffload),
        }
    }

    /// After segmentation in software: all segments or none.
    fn send_segments<'t>(&mut self, mbuf: Mbuf<'t>) -> Fate<'t> {
        // A second handle: if there is no room, the packet stays.
        let segments = match Segmenter::new(mbuf.share()) {
            Ok(segments) => segments,
            Err(reason) => return Fate::Dropped(reason),
        };
        let headers = parse(mbuf.data(), mbuf.len()).payload;
        let longest = headers + usize::from(mbuf.offload().gso_size);
        let need = self.descriptors_for(segments.remaining(), longest);
        if need > self.capacity() {
            return Fate::Dropped(DropReason::TxOffload);
        }
        if need > self.room() {
            return Fate::Full(mbuf);
        }
        drop(mbuf);
        for segment in segments {
            let sent =
                segment.map_err(|_| DropReason::NoMbufs).and_then(|s| self.send_planned(s, Plan::PLAIN));
            if let Err(reason) = sent {
                return Fate::Dropped(reason);
            }
        }
        Fate::Sent
    }

    /// Sends a packet for whose pieces there is room.
    fn send_planned(&mut self, mbuf: Mbuf<'_>, plan: Plan) -> Result<(), DropReason> {
        let mut mbuf = self.reachable(mbuf)?;
        if plan.headers == 0 && mbuf.len() > self.parts.limits.max_frame {
            self.check_tagged(&mbuf)?;
        }
        if mbuf.len() < MIN_FRAME {
            mbuf = pad(mbuf)?;
        }
        if plan.headers != 0 {
            mbuf = mbuf.unshare().map_err(|_| DropReason::NoMbufs)?;
            ready_for_segmentation(&mut mbuf).ok_or(DropReason::TxOffload)?;
        }
        let pieces = self.pieces_of(&mbuf);
        if pieces > MOST_PIECES || pieces + usize::from(plan.context.is_some()) > self.room() {
            return Err(DropReason::TxTooLong);
        }
        self.write_context(plan.context);
        self.write_data(mbuf, plan);
        Ok(())
    }

    /// A frame longer than the longest untagged one: its tags may be why.
    fn check_tagged(&self, mbuf: &Mbuf<'_>) -> Result<(), DropReason> {
        let tags = usize::from(parse(mbuf.data(), mbuf.len()).tags);
        let fits = mbuf.len() <= self.parts.limits.max_frame + 4 * tags;
        if fits { Ok(()) } else { Err(DropReason::TxTooLong) }
    }

    /// The packet in mbufs that the device reaches, and in not too many: itself, or a copy.
    fn reachable(&self, mbuf: Mbuf<'_>) -> Result<Mbuf<'static>, DropReason> {
        let mbuf = self.parts.reach.bring(mbuf).map_err(|_| DropReason::NoMbufs)?;
        if self.pieces_of(&mbuf) <= MOST_PIECES {
            return Ok(mbuf);
        }
        mbuf.duplicate().map_err(|_| DropReason::NoMbufs)
    }

    /// Descriptors that so many segments of `bytes` take in mbufs of our pool. On small pages any mbuf may lie across two; on
    /// hugepages next to none does.
    fn descriptors_for(&self, segments: usize, bytes: usize) -> usize {
        let mbufs = segments * bytes.div_ceil(self.parts.pool.data_room());
        if self.parts.limits.page > MOST_FRAME { mbufs + 2 } else { 2 * mbufs }
    }

    fn pieces_of(&self, mbuf: &Mbuf<'_>) -> usize {
        mbuf.segments().map(|segment| pieces(segment, self.parts.limits.page).count()).sum()
    }

    /// Tells the card of the headers to come, unless it knows.
    fn write_context(&mut self, context: Option<Context>) {
        if let Some(words) = context
            && self.context != context
        {
            self.write(words);
            self.context = context;
        }
    }

    fn write_data(&mut self, mbuf: Mbuf<'static>, plan: Plan) {
        let word = DATA | plan.options | ((mbuf.len() - plan.headers) as u64) << PAYLEN_SHIFT;
        let page = self.parts.limits.page;
        let mut pieces = mbuf.segments().flat_map(|segment| pieces(segment, page)).peekable();
        while let Some(piece) = pieces.next() {
            let at = self.parts.reach.iova_at(NonNull::from(piece).cast()).0;
            let end = if pieces.peek().is_none() { EOP } else { 0 };
            self.write([at, word | end | piece.len() as u64]);
        }
        drop(pieces);
        self.hold(mbuf);
    }
}

fn fate<'t>(sent: Result<(), DropReason>) -> Fate<'t> {
    match sent {
        Ok(()) => Fate::Sent,
        Err(reason) => Fate::Dropped(reason),
    }
}

/// Pads a frame to Ethernet's shortest.
fn pad(mbuf: Mbuf<'static>) -> Result<Mbuf<'static>, DropReason> {
    // A chain of a few bytes, or a shared packet, becomes one of its own first.
    let mut whole = if mbuf.is_unique() && mbuf.data().len() == mbuf.len() {
        mbuf
    } else {
        mbuf.duplicate().map_err(|_| DropReason::NoMbufs)?
    };
    let missing = MIN_FRAME - whole.len();
    whole.append(missing).ok_or(DropReason::TxError)?.fill(0);
    Ok(whole)
}

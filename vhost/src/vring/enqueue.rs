//! Enqueue: what the switch forwards goes into the guest's RX buffers.
//!
//! Two passes over a burst. The first reads heads and descriptors of as many buffers as there are packets and prefetches
//! them for writing; the second writes header and frame, tails straight from the sender's memory, and the used entries.
//! The used index moves once per burst, the guest is called once per turn.
#![expect(unsafe_code, reason = "copies from mbufs and guest memory into guest memory")]
// UNSAFETY: every guest pointer comes from a translation, and no copy is longer than what was translated. The gate is held
// for the whole burst. The header is written in front of a packet's data only where its headroom has the bytes and nobody
// shares it.

use core::ops::Range;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::{Burst, MAX_BURST, Mbuf, NoMbufs, Offload, TailSegment, foreign};
use pmd::offload::{Adapted, OffloadSet, VirtioNetHdr, adapt, to_virtio_net};
use pmd::{DropReason, QueueCounters, TxQueue};
use ring::prefetch;

use crate::vring::chain::{self, Chain, ChainError, Direction, Walker};
use crate::vring::dequeue::offloads;
use crate::vring::format::{Buffer, Format};
use crate::vring::ring::{Ring, Terms};
use crate::vring::slot::State;
use crate::vring::view::View;
use crate::vring::{Fault, MAX_FRAME, MAX_PIECES, Vring, VringSlot, hook};
use crate::wire::net;
use crate::wire::ring::{DESC_F_NEXT, DESC_F_WRITE};

/// What the chains of one burst may cost, all together (I3): twice the pieces of a burst of 64 KiB packets in buffers of
/// 256 bytes. What comes behind finds the ring full.
const BURST_COST: usize = 16 * MAX_PIECES;

/// A packet that is longer has its buffer's lines asked for one by one; the first two are, of every buffer.
const LONG: usize = 256;
/// Packets from the one that is written to the one whose lines are asked for.
const AHEAD: usize = 2;
/// Most bytes of a buffer that are asked for: more would push out what is wanted sooner.
const MOST_AHEAD: usize = 2048;

/// The transmit half over a guest's RX ring.
#[derive(Debug)]
pub(crate) struct GuestRx {
    slot: Arc<VringSlot>,
    counters: Arc<CachePadded<QueueCounters>>,
    /// Pieces of the buffers for one packet that does not fit a plain one.
    pieces: Box<[TailSegment]>,
    /// Whether the guest was not asked yet whether it wants a call.
    unsignalled: bool,
}

impl GuestRx {
    pub(crate) fn new(slot: Arc<VringSlot>, counters: Arc<CachePadded<QueueCounters>>) -> Self {
        Self { slot, counters, pieces: chain::scratch(), unsignalled: false }
    }
}

impl TxQueue for GuestRx {
    #[inline]
    fn tx_burst(&mut self, burst: &mut Burst<'_>) -> usize {
        let n = burst.len();
        if self.slot.state() != State::Ready {
            self.drop_burst(burst, DropReason::TxNotReady);
            return n;
        }
        let Self { slot, counters, pieces, unsignalled } = self;
        let Some(mut inside) = slot.try_enter() else { return 0 };
        let Some(Vring { ring, terms, view, .. }) = inside.as_mut() else { return 0 };
        let turn = Turn { terms: *terms, view, counters, pieces };
        let Outcome { taken, given, fault } = match ring {
            Ring::Split(ring) => turn.run(ring, burst),
            Ring::Packed(ring) => turn.run(ring, burst),
        };
        *unsignalled |= given;
        if let Some(fault) = fault {
            slot.latch(fault);
        }
        burst.drop_front(taken);
        taken
    }

    fn drop_burst(&mut self, burst: &mut Burst<'_>, reason: DropReason) {
        self.counters.drop_packets(reason, burst.len() as u64);
        burst.clear();
    }

    #[inline]
    fn flush(&mut self) {
        if !self.unsignalled {
            return;
        }
        // If the control plane is inside, the next turn will do; it calls the guest itself after a change.
        let Some(mut inside) = self.slot.try_enter() else { return };
        self.unsignalled = false;
        if inside.as_mut().is_some_and(Vring::notify) {
            self.counters.notifications.add(1);
        }
    }

    fn is_ready(&self) -> bool {
        self.slot.state() == State::Ready
    }
}

/// What a burst needs, whatever the ring's format.
struct Turn<'r> {
    terms: Terms,
    view: &'r mut View,
    counters: &'r QueueCounters,
    pieces: &'r mut [TailSegment],
}

/// How a burst went.
struct Outcome {
    /// Packets dealt with.
    taken: usize,
    /// Whether the guest got something.
    given: bool,
    fault: Option<Fault>,
}

impl<'r> Turn<'r> {
    #[inline]
    fn run<F: Format>(self, ring: &'r mut F, burst: &mut Burst<'_>) -> Outcome {
        let accepted = receiver_offloads(self.terms.features);
        let (at, budget) = (ring.first(), BURST_COST);
        let mut giving =
            Giving { ring, turn: self, accepted, at, budget, filled: 0, taken: 0, sent: 0, bytes: 0 };
        let outcome = if burst.iter().all(|m| accepted.covers(m.offload())) {
            giving.give(burst)
        } else {
            giving.give_adapted(burst)
        };
        giving.finish(outcome)
    }
}

/// One burst's way into a ring.
struct Giving<'r, F: Format> {
    ring: &'r mut F,
    turn: Turn<'r>,
    accepted: OffloadSet,
    /// Where the next buffer stands.
    at: F::Place,
    /// What is left of [`BURST_COST`].
    budget: usize,
    /// Buffers filled, and not published yet.
    filled: usize,
    /// Packets dealt with: sent or dropped.
    taken: usize,
    sent: u64,
    bytes: u64,
}

/// What became of a packet.
enum Given {
    Sent,
    Dropped(DropReason),
    /// The ring has no buffers for it: the packet stays.
    NoBuffers,
}

/// An available buffer, after the first pass.
#[derive(Clone, Copy)]
struct Found {
    buffer: Buffer,
    len: u32,
    /// Where the one plain, writable descriptor lies; null for any other kind of chain.
    plain: *mut u8,
}

impl<F: Format> Giving<'_, F> {
    /// Gives packets from the front of the burst as long as there are buffers.
    fn give(&mut self, burst: &mut Burst<'_>) -> Result<(), Fault> {
        let mut found =
            [Found { buffer: Buffer::default(), len: 0, plain: core::ptr::null_mut() }; MAX_BURST];
        let ready = self.look(&mut found[..burst.len()])?;
        let all = &found[..ready];
        for mbuf in burst.iter_mut() {
            hook::between();
            // As long as each packet took one plain buffer, the i-th is for the i-th.
            let given = match all.get(self.filled) {
                Some(found) if fits(found, mbuf, self.turn.terms.hdr_len()) => {
                    if mbuf.len() > LONG {
                        ask_for(all.get(self.filled + AHEAD), mbuf.len());
                    }
                    self.give_plain(mbuf, *found);
                    Given::Sent
                }
                _ => self.give_chained(mbuf)?,
            };
            if !self.count(&given, mbuf.len()) {
                break;
            }
        }
        Ok(())
    }

    /// The same for a burst in which some packet needs work that this receiver did not sign up for.
    #[cold]
    fn give_adapted(&mut self, burst: &mut Burst<'_>) -> Result<(), Fault> {
        for mbuf in burst.iter() {
            let given = self.give_one_adapted(mbuf)?;
            if !self.count(&given, mbuf.len()) {
                break;
            }
        }
        Ok(())
    }

    fn give_one_adapted(&mut self, mbuf: &Mbuf<'_>) -> Result<Given, Fault> {
        // A second handle: if there are no buffers, the packet stays in the burst.
        match adapt(mbuf.share(), self.accepted) {
            Err(reason) => Ok(Given::Dropped(reason)),
            Ok(Adapted::One(mut one)) => self.give_chained(&mut one),
            Ok(Adapted::Many(segments)) => {
                // All segments or none: a part of them would only cost the receiver work.
                let before = (self.filled, self.at);
                for segment in segments {
                    let given = match segment {
                        Ok(mut segment) => self.give_chained(&mut segment)?,
                        Err(NoMbufs) => Given::Dropped(DropReason::NoMbufs),
                    };
                    if !matches!(given, Given::Sent) {
                        (self.filled, self.at) = before;
                        return Ok(given);
                    }
                }
                Ok(Given::Sent)
            }
        }
    }

    /// First pass: as many buffers as there are, up to `found`'s length. Where chains stand in a row, up to the first one:
    /// only who walks it knows where it ends.
    #[inline]
    fn look(&mut self, found: &mut [Found]) -> Result<usize, Fault> {
        let mut at = self.at;
        let n = self.ring.ready(at, found.len())?.min(found.len());
        self.ring.will_read(at, n);
        for (i, entry) in found[..n].iter_mut().enumerate() {
            let Some(head) = self.ring.head(at)? else { return Ok(i) };
            if F::CHAINS_ARE_RUNS && head.desc.flags & DESC_F_NEXT != 0 {
                return Ok(i);
            }
            entry.buffer = self.ring.buffer(&head, 1, head.desc)?;
            entry.len = head.desc.len;
            if head.desc.flags == DESC_F_WRITE
                && let Some(host) = self.turn.view.translate(head.desc.addr, head.desc.len)
            {
                entry.plain = host.as_ptr();
                ask_for_start(entry.plain, self.turn.terms.hdr_len());
            }
            at = self.ring.after(at, entry.buffer);
        }
        Ok(n)
    }

    /// One packet into one plain buffer that it fits.
    #[inline]
    fn give_plain(&mut self, mbuf: &Mbuf<'_>, found: Found) {
        let (hdr_len, data) = (self.turn.terms.hdr_len(), mbuf.data());
        let mut at = hdr_len + data.len();
        // SAFETY: `fits` saw that header and packet are not longer than the buffer, of which all was translated.
        unsafe {
            self.put_header(mbuf.offload(), found.plain);
            foreign::copy(found.plain.add(hdr_len), data.as_ptr(), data.len());
            if at < hdr_len + mbuf.len() {
                for more in mbuf.segments().skip(1) {
                    foreign::copy(found.plain.add(at), more.as_ptr(), more.len());
                    at += more.len();
                }
                for more in mbuf.tail() {
                    foreign::copy(found.plain.add(at), more.start().as_ptr(), more.len());
                    at += more.len();
                }
            }
        }
        self.ring.stage(self.filled, found.buffer, at as u32);
        self.filled += 1;
        self.at = self.ring.after(self.at, found.buffer);
    }

    /// Writes the header of a packet that takes one buffer, in whole words: nothing reads them back in other pieces. Mostly it
    /// is what stands there from the last packet.
    ///
    /// # Safety
    /// The guest's header goes to `to`, which is translated.
    #[inline(always)]
    unsafe fn put_header(&self, offload: &Offload, to: *mut u8) {
        let (head, rest) = if offload.is_blank() {
            (0, 0)
        } else {
            let bytes = to_virtio_net(offload, self.accepted).to_le_bytes();
            let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
            (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u16::from_le_bytes(rest))
        };
        // SAFETY: as many bytes as the header has, by contract.
        unsafe {
            foreign::update_u64(to, head);
            if self.turn.terms.hdr_len() == net::HDR_LEN {
                foreign::update_u32(to.add(8), u32::from(rest) | 1 << 16);
            } else {
                foreign::update_u16(to.add(8), rest);
            }
        }
    }

    /// One packet into whatever buffers there are: chains, or several buffers if the guest takes that.
    #[cold]
    fn give_chained(&mut self, mbuf: &mut Mbuf<'_>) -> Result<Given, Fault> {
        let need = self.turn.terms.hdr_len() + mbuf.len();
        if mbuf.len() > MAX_FRAME {
            return Ok(Given::Dropped(DropReason::TxTooLong));
        }
        let (mut room, mut pieces, mut buffers, mut cost, mut at) = (0usize, 0, 0usize, 0, self.at);
        while room < need {
            // The packet's chains so far cost at least as much as they have pieces.
            let found = match self.next_chain(at, pieces..pieces + MAX_PIECES - cost)? {
                Ok(found) => found,
                Err(given) => return Ok(given),
            };
            cost += found.cost;
            let part = usize::try_from(found.bytes).unwrap_or(usize::MAX).min(need - room);
            if room + part < need && !self.turn.terms.mergeable {
                return Ok(Given::Dropped(DropReason::TxTooLong));
            }
            self.ring.stage(self.filled + buffers, found.buffer, part as u32);
            at = self.ring.after(at, found.buffer);
            (room, pieces, buffers) = (room + part, pieces + found.pieces, buffers + 1);
        }
        hook::between();
        self.scatter(mbuf, pieces, buffers as u16);
        self.filled += buffers;
        self.at = at;
        Ok(Given::Sent)
    }

    /// Collects the chain at `at` into the pieces in `range`, or says what becomes of the packet without it.
    fn next_chain(&mut self, at: F::Place, range: Range<usize>) -> Result<Result<Chain, Given>, Fault> {
        if self.budget == 0 || self.ring.ready(at, 1)? == 0 {
            return Ok(Err(Given::NoBuffers));
        }
        let Some(head) = self.ring.head(at)? else { return Ok(Err(Given::NoBuffers)) };
        let Turn { view, terms, pieces, .. } = &mut self.turn;
        let walker = Walker { ring: &*self.ring, view, terms: *terms, direction: Direction::Write };
        let room = range.len();
        match walker.collect(at, &head, &mut pieces[range]) {
            Ok(found) => {
                self.budget = self.budget.saturating_sub(found.cost);
                Ok(Ok(found))
            }
            Err(ChainError::Fault(fault)) => Err(fault),
            Err(ChainError::NoRoom) => {
                self.budget = self.budget.saturating_sub(room);
                Ok(Err(Given::Dropped(DropReason::TxTooLong)))
            }
        }
    }

    /// Writes header and packet over the first `pieces` pieces, of `buffers` buffers.
    fn scatter(&mut self, mbuf: &Mbuf<'_>, pieces: usize, buffers: u16) {
        let header = header(mbuf.offload(), buffers, self.accepted);
        let mut to = Scatter { pieces: &self.turn.pieces[..pieces], offset: 0 };
        to.put(header.as_ptr(), self.turn.terms.hdr_len());
        for segment in mbuf.segments() {
            to.put(segment.as_ptr(), segment.len());
        }
        for segment in mbuf.tail() {
            to.put(segment.start().as_ptr(), segment.len());
        }
    }

    /// Counts what became of a packet of `len` bytes; false if it stays.
    #[inline(always)]
    fn count(&mut self, given: &Given, len: usize) -> bool {
        match given {
            Given::Sent => {
                self.sent += 1;
                self.bytes += len as u64;
            }
            Given::Dropped(reason) => self.turn.counters.drop_packets(*reason, 1),
            Given::NoBuffers => return false,
        }
        self.taken += 1;
        true
    }

    /// Publishes and counts.
    #[inline(always)]
    fn finish(self, outcome: Result<(), Fault>) -> Outcome {
        let given = self.filled > 0;
        let mut fault = outcome.err();
        if given {
            fault = fault.or(self.ring.publish(self.filled).err());
            let counters = self.turn.counters;
            counters.packets.add(self.sent);
            counters.bytes.add(self.bytes);
            counters.bursts.add(1);
        }
        Outcome { taken: self.taken, given, fault }
    }
}

/// Has a buffer's first two lines brought here. One that has nothing but the header in it, as with drivers that align
/// frames, mostly stays as it is ([`foreign::update_u64`]): it may stay with the guest, too.
#[inline(always)]
fn ask_for_start(buffer: *const u8, hdr_len: usize) {
    if (buffer.addr() + hdr_len).is_multiple_of(64) {
        prefetch::for_reading(buffer);
    } else {
        prefetch::for_writing(buffer);
    }
    prefetch::for_writing(buffer.wrapping_add(64));
}

/// Has a buffer's lines brought here that a packet will be written to which is, most likely, as long as this one.
fn ask_for(found: Option<&Found>, len: usize) {
    if let Some(found) = found {
        let end = len.min(found.len as usize).min(MOST_AHEAD);
        (128..end).step_by(64).for_each(|at| prefetch::for_writing(found.plain.wrapping_add(at)));
    }
}

#[inline(always)]
fn fits(buffer: &Found, mbuf: &Mbuf<'_>, hdr_len: usize) -> bool {
    !buffer.plain.is_null() && hdr_len + mbuf.len() <= buffer.len as usize && mbuf.len() <= MAX_FRAME
}

/// The virtio-net header, with the number of buffers that the packet takes.
#[inline(always)]
fn header(offload: &Offload, buffers: u16, accepted: OffloadSet) -> [u8; net::HDR_LEN] {
    let mut bytes = [0; net::HDR_LEN];
    if *offload != Offload::NONE {
        bytes[..VirtioNetHdr::LEN].copy_from_slice(&to_virtio_net(offload, accepted).to_le_bytes());
    }
    bytes[net::NUM_BUFFERS_OFFSET..].copy_from_slice(&buffers.to_le_bytes());
    bytes
}

/// Writes bytes one after the other over a list of pieces.
struct Scatter<'p> {
    pieces: &'p [TailSegment],
    /// Where the first piece's room starts.
    offset: usize,
}

impl Scatter<'_> {
    /// Writes `len` bytes from `src`, which must be readable. What has no room is left out: the caller saw to it.
    fn put(&mut self, mut src: *const u8, mut len: usize) {
        while len > 0 {
            let Some(piece) = self.pieces.first() else { return };
            let n = len.min(piece.len() - self.offset);
            // SAFETY: n bytes of a translated, writable piece; `src` is readable for `len` by contract.
            unsafe {
                foreign::copy(piece.start().as_ptr().add(self.offset), src, n);
                src = src.add(n);
            }
            len -= n;
            self.offset += n;
            if self.offset == piece.len() {
                (self.pieces, self.offset) = (&self.pieces[1..], 0);
            }
        }
    }
}

/// What may be passed on to the guest.
fn receiver_offloads(features: u64) -> OffloadSet {
    offloads(
        features,
        [
            (net::F_GUEST_CSUM, OffloadSet::CSUM),
            (net::F_GUEST_TSO4, OffloadSet::TSO4),
            (net::F_GUEST_TSO6, OffloadSet::TSO6),
            (net::F_GUEST_ECN, OffloadSet::ECN),
            (net::F_GUEST_USO4 | net::F_GUEST_USO6, OffloadSet::USO),
        ],
    )
}

//! Dequeue: what the guest sends comes into the switch.
//!
//! Two passes over a burst. The first reads heads and descriptors and prefetches the frames; the second copies each frame,
//! or the first bytes of a long one, into an mbuf. The rest of a long frame stays where it is and becomes the mbuf's tail:
//! the guest gets its buffers back when the turn is over ([`RxQueue::complete`]), and the one copy left is the receiver's.
#![expect(unsafe_code, reason = "copies from guest memory into mbufs")]
// UNSAFETY: every guest pointer comes from a translation of exactly the bytes that are copied from it. From `rx_burst` to
// `complete` this half stays inside the slot's gate, so neither ring nor memory goes away while tails name them.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::{Burst, MAX_BURST, Mbuf, Offload, TailSegment, foreign};
use pmd::offload::{OffloadSet, VirtioNetHdr, from_virtio_net};
use pmd::{DropReason, QueueCounters, QueueEnv, RxQueue};

use crate::session::announce::{AnnounceSlot, RARP_LEN, rarp_frame};
use crate::vring::chain::{self, ChainError, Direction};
use crate::vring::slot::State;
use crate::vring::{Fault, MAX_FRAME, Vring, VringSlot, prefetch};
use crate::wire::net;
use crate::wire::ring::Desc;

/// A frame up to this length is copied whole.
const WHOLE: usize = 256;
/// Of a longer one, so many bytes: every header that a lookup, a policy or a rewrite looks at.
const SNAPSHOT: usize = 192;
/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// The receive half over a guest's TX ring.
#[derive(Debug)]
pub(crate) struct GuestTx {
    slot: Arc<VringSlot>,
    env: QueueEnv,
    counters: Arc<CachePadded<QueueCounters>>,
    /// A station to announce in the guest's name.
    announce: Arc<AnnounceSlot>,
    /// Pieces of this turn's tails.
    tails: Box<[TailSegment]>,
    /// The heads of this turn's chains, in order.
    heads: [u16; MAX_BURST],
    /// Whether this half is inside the gate since `rx_burst`.
    staying: bool,
}

impl GuestTx {
    pub(crate) fn new(
        slot: Arc<VringSlot>,
        env: QueueEnv,
        counters: Arc<CachePadded<QueueCounters>>,
        announce: Arc<AnnounceSlot>,
    ) -> Self {
        Self { slot, env, counters, announce, tails: chain::scratch(), heads: [0; MAX_BURST], staying: false }
    }
}

impl RxQueue for GuestTx {
    #[inline]
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        self.complete();
        let state = self.slot.state();
        if state == State::Stopped {
            return 0;
        }
        let Self { slot, env, counters, announce, tails, heads, staying } = self;
        let Some(mut inside) = slot.try_enter() else { return 0 };
        let Some(ring) = inside.as_mut() else { return 0 };
        let mut taking = Taking { ring, env, counters, heads, tails, taken: 0, bytes: 0 };
        let before = burst.len();
        let outcome = taking.take(burst);
        let taken = taking.finish();
        if let Err(fault) = outcome {
            slot.latch(fault, inside.as_mut());
        }
        if inside.as_ref().is_some_and(Vring::memory_is_gone) {
            // What was read may be the zeroes that took the memory's place.
            slot.latch(Fault::MemoryGone, inside.as_mut());
            counters.drop_packets(DropReason::RxMemoryGone, (burst.len() - before) as u64);
            burst.truncate(before);
        } else if state == State::Disabled {
            // A disabled ring is drained without effect (vhost-user, "Ring states").
            counters.drop_packets(DropReason::RxDisabled, (burst.len() - before) as u64);
            burst.truncate(before);
        }
        if taken > 0 {
            *staying = true;
            inside.stay();
        }
        if let Some(mac) = announce.take() {
            send_rarp(env, counters, burst, mac);
        }
        burst.len() - before
    }

    #[inline]
    fn complete(&mut self) {
        if !core::mem::take(&mut self.staying) {
            return;
        }
        // SAFETY: `staying` said that rx_burst stayed inside, and is cleared.
        let mut inside = unsafe { self.slot.resume() };
        let Some(ring) = inside.as_mut() else { return };
        let n = usize::from(ring.in_hand());
        for (i, &head) in self.heads[..n].iter().enumerate() {
            ring.write_used(i, head, 0);
        }
        ring.publish(n);
        if ring.notify() {
            self.counters.notifications.add(1);
        }
    }

    fn is_ready(&self) -> bool {
        self.slot.state() == State::Ready
    }
}

impl Drop for GuestTx {
    fn drop(&mut self) {
        self.complete();
    }
}

/// Puts a RARP of `mac` into the burst, as if the guest had sent it. Nothing is lost if there is no room: the front end asks
/// for it again.
#[cold]
fn send_rarp(env: &QueueEnv, counters: &QueueCounters, burst: &mut Burst<'_>, mac: [u8; 6]) {
    let Ok(mut mbuf) = env.pool.alloc(env.port) else { return };
    let Some(room) = mbuf.append(RARP_LEN) else { return };
    room.copy_from_slice(&rarp_frame(mac));
    mbuf.set_port(env.port);
    if burst.push(mbuf).is_ok() {
        counters.packets.add(1);
        counters.bytes.add(RARP_LEN as u64);
    }
}

/// One burst's way out of the ring.
struct Taking<'r, 't> {
    ring: &'r mut Vring,
    env: &'r QueueEnv,
    counters: &'r QueueCounters,
    heads: &'r mut [u16; MAX_BURST],
    /// Room for tails that is left.
    tails: &'t mut [TailSegment],
    /// Chains dealt with, sent on or dropped.
    taken: usize,
    bytes: u64,
}

/// A chain's place in the burst, after the first pass.
#[derive(Clone, Copy)]
struct Found {
    desc: Desc,
    /// Where the one plain buffer lies; null for any other kind of chain.
    plain: *mut u8,
}

impl<'t> Taking<'_, 't> {
    /// Takes as many frames as there are and `burst` has room for. On a fault, those before it are taken.
    fn take(&mut self, burst: &mut Burst<'t>) -> Result<(), Fault> {
        let room = burst.room();
        let n = self.ring.available(room)?.min(room);
        if n == 0 {
            return Ok(());
        }
        let start = burst.len();
        if burst_alloc(self.env, burst, n).is_err() {
            return Ok(()); // They stay in the ring: nothing is lost.
        }
        let mut found = [Found { desc: Desc::default(), plain: core::ptr::null_mut() }; MAX_BURST];
        let (n, fault) = self.look(&mut found[..n]);
        let mut good = start;
        let mut outcome = fault;
        for entry in &found[..n] {
            match self.fill(&mut burst[good], *entry) {
                Ok(()) => {
                    self.bytes += burst[good].len() as u64;
                    good += 1;
                }
                Err(Refused::Frame(reason)) => self.counters.drop_packets(reason, 1),
                Err(Refused::NoRoom) => {
                    // Whatever the first pass found behind it waits, too.
                    outcome = Ok(());
                    break;
                }
                Err(Refused::Chain(fault)) => {
                    outcome = Err(fault);
                    break;
                }
            }
            self.taken += 1;
        }
        burst.truncate(good);
        outcome
    }

    /// First pass: heads, descriptors, and the frames on their way into the cache. Returns how many are sound.
    #[inline]
    fn look(&mut self, found: &mut [Found]) -> (usize, Result<(), Fault>) {
        for (i, entry) in found.iter_mut().enumerate() {
            let head = match self.ring.head(i) {
                Ok(head) => head,
                Err(fault) => return (i, Err(fault)),
            };
            self.heads[i] = head;
            entry.desc = self.ring.desc(head);
            if entry.desc.flags == 0
                && let Some(host) = self.ring.translate(entry.desc.addr, entry.desc.len)
            {
                entry.plain = host.as_ptr();
                prefetch::for_reading(entry.plain);
                prefetch::for_reading(entry.plain.wrapping_add(64));
            }
        }
        (found.len(), Ok(()))
    }

    /// Second pass: one frame into its mbuf.
    #[inline]
    fn fill(&mut self, mbuf: &mut Mbuf<'t>, found: Found) -> Result<(), Refused> {
        if found.plain.is_null() {
            return self.fill_from_chain(mbuf, found.desc);
        }
        let hdr_len = self.ring.hdr_len();
        let len = found.desc.len as usize;
        let frame = frame_len(len, hdr_len)?;
        let copied = first_bytes(frame, hdr_len, mbuf);
        let (room, _) = mbuf.spare();
        // SAFETY: `plain` was translated for `len` bytes and copied <= len; the mbuf's room is at least `copied`.
        unsafe { foreign::copy(room.as_ptr(), found.plain, copied) };
        mbuf.set_filled(hdr_len, copied - hdr_len);
        if copied < len {
            let [rest, free @ ..] = core::mem::take(&mut self.tails) else { return Err(Refused::NoRoom) };
            self.tails = free;
            // SAFETY: the rest of the translated bytes; this half stays inside the gate during 't.
            *rest = unsafe {
                TailSegment::new(
                    core::ptr::NonNull::new_unchecked(found.plain.add(copied)),
                    (len - copied) as u32,
                )
            };
            mbuf.set_tail(core::slice::from_ref(rest));
        }
        self.label(mbuf, room.as_ptr())
    }

    /// The same for any chain: collect its pieces, copy the first bytes, leave the rest as tail.
    #[cold]
    fn fill_from_chain(&mut self, mbuf: &mut Mbuf<'t>, first: Desc) -> Result<(), Refused> {
        let hdr_len = self.ring.hdr_len();
        let room_in_turn = self.tails.len();
        let found = match chain::collect(self.ring, first, Direction::Read, self.tails) {
            Ok(found) => found,
            Err(ChainError::Fault(fault)) => return Err(Refused::Chain(fault)),
            // The turn's room is used up: next turn. A whole turn's room was too little: too many pieces.
            Err(ChainError::NoRoom) if room_in_turn < crate::vring::MAX_PIECES => {
                return Err(Refused::NoRoom);
            }
            Err(ChainError::NoRoom) => {
                self.tails = &mut [];
                return Err(Refused::Frame(DropReason::RxBadDescriptor));
            }
        };
        // Good or bad, a frame costs its turn what it took to find out (I3).
        let (paid, free) = core::mem::take(&mut self.tails).split_at_mut(found.cost);
        self.tails = free;
        let len = usize::try_from(found.bytes).unwrap_or(usize::MAX);
        let frame = frame_len(len, hdr_len)?;
        let copied = first_bytes(frame, hdr_len, mbuf);
        let pieces = &mut paid[..found.pieces];
        let (room, _) = mbuf.spare();
        let pieces = copy_front(pieces, room.as_ptr(), copied);
        mbuf.set_filled(hdr_len, copied - hdr_len);
        mbuf.set_tail(pieces);
        self.label(mbuf, room.as_ptr())
    }

    /// Reads the private copy of the virtio-net header into what is owed to the packet.
    #[inline]
    fn label(&self, mbuf: &mut Mbuf<'t>, hdr: *const u8) -> Result<(), Refused> {
        // SAFETY: at least hdr_len >= 10 bytes were copied to `hdr`, in the mbuf's own headroom now.
        let hdr: &[u8; VirtioNetHdr::LEN] = unsafe { &*hdr.cast() };
        if hdr[0] == 0 && hdr[1] == net::GSO_NONE {
            return Ok(());
        }
        let hdr = VirtioNetHdr::from_le_bytes(hdr);
        match from_virtio_net(&hdr, mbuf.data(), mbuf.len(), sender_offloads(self.ring.features())) {
            Ok(offload) if offload == Offload::NONE => Ok(()),
            Ok(offload) => {
                mbuf.set_offload(offload);
                Ok(())
            }
            Err(_) => Err(Refused::Frame(DropReason::RxBadOffload)),
        }
    }

    /// Counts, and moves the ring on.
    fn finish(self) -> usize {
        if self.taken > 0 {
            self.ring.take(self.taken);
            self.counters.packets.add(self.taken as u64);
            self.counters.bytes.add(self.bytes);
            self.counters.bursts.add(1);
        }
        self.taken
    }
}

/// Why a frame did not come in.
enum Refused {
    /// It is completed and dropped.
    Frame(DropReason),
    /// The ring stops here.
    Chain(Fault),
    /// The turn's room for tails is used up: it stays in the ring.
    NoRoom,
}

#[inline(always)]
fn burst_alloc(env: &QueueEnv, burst: &mut Burst<'_>, n: usize) -> Result<(), mbuf::NoMbufs> {
    let start = burst.len();
    env.pool.alloc_bulk(burst, n, env.port)?;
    for m in &mut burst[start..] {
        m.set_port(env.port);
    }
    Ok(())
}

/// The frame's length in a chain of `len` bytes.
#[inline(always)]
fn frame_len(len: usize, hdr_len: usize) -> Result<usize, Refused> {
    let frame = len.wrapping_sub(hdr_len);
    if len < hdr_len + MIN_FRAME {
        return Err(Refused::Frame(DropReason::RxTooShort));
    }
    if frame > MAX_FRAME {
        return Err(Refused::Frame(DropReason::RxTooLong));
    }
    Ok(frame)
}

/// How many bytes, header included, are copied.
#[inline(always)]
fn first_bytes(frame: usize, hdr_len: usize, mbuf: &mut Mbuf<'_>) -> usize {
    let copied = if frame <= WHOLE { frame } else { SNAPSHOT };
    (hdr_len + copied).min(mbuf.spare().1)
}

/// Copies the first `n` bytes of `pieces` to `dst` and returns what is left of the pieces.
fn copy_front(pieces: &mut [TailSegment], dst: *mut u8, n: usize) -> &[TailSegment] {
    let (mut at, mut done) = (0, 0);
    while done < n && at < pieces.len() {
        let piece = pieces[at];
        let part = piece.len().min(n - done);
        // SAFETY: `part` bytes of a translated piece; `dst` has room for n.
        unsafe { foreign::copy(dst.add(done), piece.start().as_ptr(), part) };
        done += part;
        if part < piece.len() {
            // SAFETY: the rest of a translated piece.
            pieces[at] = unsafe { TailSegment::new(piece.start().add(part), (piece.len() - part) as u32) };
            break;
        }
        at += 1;
    }
    &pieces[at..]
}

/// What the guest may ask for in what it sends.
fn sender_offloads(features: u64) -> OffloadSet {
    offloads(
        features,
        [
            (net::F_CSUM, OffloadSet::CSUM),
            (net::F_HOST_TSO4, OffloadSet::TSO4),
            (net::F_HOST_TSO6, OffloadSet::TSO6),
            (net::F_HOST_ECN, OffloadSet::ECN),
            (net::F_HOST_USO, OffloadSet::USO),
        ],
    )
}

/// The set that a table of features stands for; an entry of several bits needs all of them.
pub(super) fn offloads<const N: usize>(features: u64, table: [(u64, OffloadSet); N]) -> OffloadSet {
    table
        .into_iter()
        .filter(|(bits, _)| features & bits == *bits)
        .fold(OffloadSet::NONE, |set, (_, o)| set | o)
}

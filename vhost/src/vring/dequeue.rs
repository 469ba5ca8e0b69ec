//! Dequeue: what the guest sends comes into the switch.
//!
//! Two passes over a burst. The first reads descriptors, finds out where the frames lie and prefetches them; the second
//! copies each frame, or the first bytes of a long one, into an mbuf. The rest of a long frame stays where it is and becomes
//! the mbuf's tail: the guest gets its buffers back when the turn is over ([`RxQueue::complete`]), and the one copy left is
//! the receiver's. The ring's format matters to the first pass only.
#![expect(unsafe_code, reason = "copies from guest memory into mbufs")]
// UNSAFETY: every guest pointer comes from a translation of exactly the bytes that are copied from it. From `rx_burst` to
// `complete` this half stays inside the slot's gate, so neither ring nor memory goes away while tails name them.

use core::num::NonZeroU16;
use core::ptr::NonNull;
use core::slice::IterMut;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::{Burst, MAX_BURST, Mbuf, Offload, Stretch, TailSegment, foreign};
use pmd::offload::{OffloadSet, VirtioNetHdr, from_virtio_net};
use pmd::{DropReason, QueueCounters, QueueEnv, RxQueue};
use ring::prefetch;

use crate::session::announce::{AnnounceSlot, RARP_LEN, rarp_frame};
use crate::vring::chain::{self, Chain, ChainError, Direction, Walker};
use crate::vring::cost::{self, Cost};
use crate::vring::format::{Available, Buffer, Head, Long};
use crate::vring::ring::{Ring, Terms};
use crate::vring::slot::State;
use crate::vring::view::View;
use crate::vring::{Fault, MAX_FRAME, MAX_PIECES, Vring, VringSlot, hook};
use crate::wire::net;

/// A frame up to this length is copied whole.
const WHOLE: usize = 256;
/// Of a longer one, so many bytes: every header that a lookup, a policy or a rewrite looks at.
const SNAPSHOT: usize = 192;
/// Shortest frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// Polls in a row that find nothing before a guest gets to see what it is to see late: a moment (16 us if the lcore has nothing
/// else to do), which a sender at full rate does not let pass.
const LATE_POLLS: u32 = 256;

/// The receive half over a guest's TX ring.
#[derive(Debug)]
pub(crate) struct GuestTx {
    slot: Arc<VringSlot>,
    env: QueueEnv,
    counters: Arc<CachePadded<QueueCounters>>,
    /// A station to announce in the guest's name.
    announce: Arc<AnnounceSlot>,
    /// Pieces of this turn's chains.
    pieces: Box<[Stretch]>,
    /// What this turn's plain frames leave behind in their buffers: one piece each, at most.
    rests: [Stretch; MAX_BURST],
    /// What gives this turn's buffers back, in order.
    held: [Buffer; MAX_BURST],
    /// How many they are. If any, this half is inside the gate since `rx_burst`.
    in_hand: usize,
    /// Polls in a row that found nothing, while the guest does not see yet all that it got back.
    late: u32,
    /// Packets that a burst may have; see [`RxQueue::limit_bursts`].
    most: usize,
    /// What touching this guest's memory costs.
    cost: Cost,
}

impl GuestTx {
    pub(crate) fn new(
        slot: Arc<VringSlot>,
        env: QueueEnv,
        counters: Arc<CachePadded<QueueCounters>>,
        announce: Arc<AnnounceSlot>,
    ) -> Self {
        let (pieces, rests) = (chain::scratch(), [Stretch::EMPTY; MAX_BURST]);
        Self {
            slot,
            env,
            counters,
            announce,
            pieces,
            rests,
            held: [Buffer::NONE; MAX_BURST],
            in_hand: 0,
            late: 0,
            most: MAX_BURST,
            cost: Cost::new(),
        }
    }
}

impl RxQueue for GuestTx {
    #[inline]
    fn rx_burst<'t>(&'t mut self, burst: &mut Burst<'t>) -> usize {
        self.complete();
        if self.slot.state() == State::Stopped {
            return 0;
        }
        let Self { slot, env, counters, announce, pieces, rests, held, in_hand, late, most, cost } = self;
        let Some(mut inside) = slot.try_enter() else { return 0 };
        cost.begin();
        // Asked again inside: the control plane changes it inside, and acknowledges afterwards.
        let state = slot.state();
        let Some(Vring { ring, terms, view, long, .. }) = inside.as_mut() else { return 0 };
        if state == State::Stopped {
            return 0;
        }
        let before = burst.len();
        let (rests, most, few) = (rests.iter_mut(), *most, cost.is_watched());
        let turn = Turn { terms: *terms, view, long, env, counters, held, pieces, rests, most, few };
        let (taken, outcome) = match ring {
            Ring::Split(ring) => turn.run(ring, burst),
            Ring::Packed(ring) => turn.run(ring, burst),
        };
        if let Err(fault) = outcome {
            slot.latch(fault);
        }
        if cost.is_watched() {
            let (lost, too_much) = cost.received(burst, slot.account());
            counters.drop_packets(DropReason::NoMbufs, lost as u64);
            if too_much {
                slot.latch(Fault::SlowMemory);
            }
        } else if taken == 0 && cost.is_long() {
            cost.over();
        }
        if inside.as_ref().is_some_and(Vring::memory_is_gone) {
            // What was read may be the zeroes that took the memory's place.
            slot.latch(Fault::MemoryGone);
            counters.drop_packets(DropReason::RxMemoryGone, (burst.len() - before) as u64);
            burst.truncate(before);
        } else if state == State::Disabled {
            // A disabled ring is drained without effect (vhost-user, "Ring states").
            counters.drop_packets(DropReason::RxDisabled, (burst.len() - before) as u64);
            burst.truncate(before);
        }
        if taken > 0 {
            (*in_hand, *late) = (taken, 0);
            inside.stay();
        } else if let Some(ring) = inside.as_mut().filter(|ring| ring.is_late()) {
            *late += 1;
            if *late >= LATE_POLLS && ring.show() {
                counters.notifications.add(1);
            }
        }
        if let Some(mac) = announce.take() {
            send_rarp(env, counters, burst, mac);
        }
        burst.len() - before
    }

    #[inline]
    fn complete(&mut self) {
        let n = core::mem::take(&mut self.in_hand);
        if n == 0 {
            return;
        }
        // SAFETY: `in_hand` said that rx_burst stayed inside, and is cleared.
        let mut inside = unsafe { self.slot.resume() };
        let Some(vring) = inside.as_mut() else { return };
        let outcome = vring.give_back(&self.held[..n]);
        if vring.notify() {
            self.counters.notifications.add(1);
        }
        if let Err(fault) = outcome {
            self.slot.latch(fault);
        }
        if self.cost.is_long() {
            self.cost.over();
        }
    }

    fn limit_bursts(&mut self, packets: usize) {
        self.most = packets.clamp(1, MAX_BURST);
    }

    fn is_ready(&self) -> bool {
        self.slot.state() == State::Ready
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.slot.wake_fd()
    }

    fn arm(&mut self) -> bool {
        self.complete();
        // Without a ring an announcement waits for one.
        self.slot.arm() && (self.slot.state() == State::Stopped || !self.announce.is_waiting())
    }

    fn disarm(&mut self) {
        self.slot.disarm();
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
    if burst.push(mbuf).is_ok() {
        counters.packets.add(1);
        counters.bytes.add(RARP_LEN as u64);
    }
}

/// One burst's way out of a ring.
struct Turn<'r, 't> {
    terms: Terms,
    view: &'r mut View,
    long: &'r mut Option<Long>,
    env: &'r QueueEnv,
    counters: &'r QueueCounters,
    held: &'r mut [Buffer; MAX_BURST],
    /// Room for chains' pieces that is left.
    pieces: &'t mut [Stretch],
    /// Room for what plain frames leave behind.
    rests: IterMut<'t, Stretch>,
    /// Most packets of the burst.
    most: usize,
    /// Whether long frames are to be few.
    few: bool,
}

/// What the first pass found out about a frame.
#[derive(Clone, Copy)]
struct Found {
    /// Bytes of its buffer; so many or more if they don't fit here.
    len: u32,
    lies: Lies,
}

/// Where a frame lies.
#[derive(Clone, Copy)]
enum Lies {
    /// In one piece, all of it here.
    Plain(NonNull<u8>),
    /// In the turn's next pieces, which take `cost` of the turn's room.
    Pieces { pieces: usize, cost: usize },
    /// In more pieces than anybody deals with.
    Scattered,
}

impl<'t> Turn<'_, 't> {
    /// Takes as many frames as there are and `burst` has room for: how many buffers that were, sent on or dropped. On a
    /// fault, those before it are taken.
    #[inline]
    fn run<F: Available>(mut self, ring: &mut F, burst: &mut Burst<'t>) -> (usize, Result<(), Fault>) {
        let mut found = [Found { len: 0, lies: Lies::Scattered }; MAX_BURST];
        let (mut n, mut outcome) = self.look(ring, &mut found[..burst.room().min(self.most)]);
        if n == 0 {
            return (0, outcome);
        }
        if self.few {
            let few = cost::few(found[..n].iter().map(|found| found.len));
            if few < n {
                (n, outcome) = (few, Ok(()));
                self.forget_long();
            }
        }
        let start = burst.len();
        if self.env.pool.alloc_bulk(burst, n, self.env.port).is_err() {
            self.forget_long();
            return (0, Ok(())); // They stay in the ring: nothing is lost.
        }
        let (mut good, mut bytes) = (start, 0);
        for entry in &found[..n] {
            hook::between();
            match self.fill(&mut burst[good], entry) {
                Ok(()) => {
                    bytes += burst[good].len() as u64;
                    good += 1;
                }
                Err(reason) => self.counters.drop_packets(reason, 1),
            }
        }
        burst.truncate(good);
        self.counters.packets.add(n as u64);
        self.counters.bytes.add(bytes);
        self.counters.bursts.add(1);
        (n, outcome)
    }

    /// A long chain does not stand at the ring's first place if frames in front of it stay: it is walked anew then.
    #[cold]
    fn forget_long(&mut self) {
        *self.long = None;
    }

    /// First pass: where the frames lie, and their first bytes on the way into the cache. Returns how many are sound.
    #[inline]
    fn look<F: Available>(&mut self, ring: &mut F, found: &mut [Found]) -> (usize, Result<(), Fault>) {
        let (mut at, mut spent) = (ring.first(), 0);
        let n = match ring.ready(at, found.len()) {
            Ok(n) => n.min(found.len()),
            Err(fault) => return (0, Err(fault)),
        };
        ring.will_read(at, n);
        if self.long.is_some() && n > 0 {
            return self.look_on(ring, at, &mut found[0]);
        }
        for (i, entry) in found[..n].iter_mut().enumerate() {
            match self.look_at(ring, at, entry, &mut spent) {
                Ok(Some(buffer)) => {
                    self.held[i] = buffer;
                    at = ring.after(at, buffer);
                }
                Ok(None) => return (i, Ok(())),
                Err(fault) => return (i, Err(fault)),
            }
        }
        (n, Ok(()))
    }

    /// One frame of the first pass. `None` if there is none, or if the turn's room for pieces is used up: it stays.
    #[inline(always)]
    fn look_at<F: Available>(
        &mut self,
        ring: &F,
        at: F::Place,
        found: &mut Found,
        spent: &mut usize,
    ) -> Result<Option<Buffer>, Fault> {
        let Some(head) = ring.head(at)? else { return Ok(None) };
        if head.desc.flags == 0
            && let Some(host) = self.view.translate(head.desc.addr, head.desc.len)
        {
            prefetch::for_reading(host.as_ptr());
            prefetch::for_reading(host.as_ptr().wrapping_add(64));
            *found = Found { len: head.desc.len, lies: Lies::Plain(host) };
            return ring.buffer(&head, NonZeroU16::MIN, head.desc).map(Some);
        }
        self.look_at_chain(ring, at, &head, found, spent)
    }

    /// The same for any chain: collect its pieces.
    #[cold]
    fn look_at_chain<F: Available>(
        &mut self,
        ring: &F,
        at: F::Place,
        head: &Head,
        found: &mut Found,
        spent: &mut usize,
    ) -> Result<Option<Buffer>, Fault> {
        let walker = Walker { ring, view: self.view, terms: self.terms, direction: Direction::Read };
        match walker.collect(at, head, &mut self.pieces[*spent..]) {
            Ok(Chain { buffer, pieces, cost, bytes }) => {
                // Good or bad, a frame costs its turn what it took to find out (I3).
                *spent += cost;
                let len = u32::try_from(bytes).unwrap_or(u32::MAX);
                *found = Found { len, lies: Lies::Pieces { pieces, cost } };
                Ok(Some(buffer))
            }
            Err(ChainError::Fault(fault)) => Err(fault),
            // The turn's room is used up: next turn. A whole turn's room was too little: too many pieces.
            Err(ChainError::NoRoom(_)) if *spent > 0 => Ok(None),
            Err(ChainError::NoRoom(long)) => {
                *spent = MAX_PIECES;
                *found = Found { len: u32::MAX, lies: Lies::Scattered };
                self.skip(ring, at, long, 0)
            }
        }
    }

    /// The first pass where an earlier burst did not come to the end of the first chain: it goes on there, and that is all.
    #[cold]
    fn look_on<F: Available>(
        &mut self,
        ring: &F,
        at: F::Place,
        found: &mut Found,
    ) -> (usize, Result<(), Fault>) {
        let Some(long) = self.long.take() else { return (0, Ok(())) };
        *found = Found { len: u32::MAX, lies: Lies::Scattered };
        match self.skip(ring, at, long, MAX_PIECES as u16) {
            Ok(Some(buffer)) => {
                self.held[0] = buffer;
                (1, Ok(()))
            }
            Ok(None) => (0, Ok(())),
            Err(fault) => (0, Err(fault)),
        }
    }

    /// Walks at most `steps` on towards the end of a chain that is dropped. `None` if that is not reached: the next burst goes on.
    fn skip<F: Available>(
        &mut self,
        ring: &F,
        at: F::Place,
        long: Long,
        steps: u16,
    ) -> Result<Option<Buffer>, Fault> {
        match ring.skip(at, long, steps)? {
            Ok(buffer) => Ok(Some(buffer)),
            Err(long) => {
                *self.long = Some(long);
                Ok(None)
            }
        }
    }

    /// Second pass: one frame into its mbuf.
    #[inline]
    fn fill(&mut self, mbuf: &mut Mbuf<'t>, found: &Found) -> Result<(), DropReason> {
        let Lies::Plain(start) = found.lies else { return self.fill_from_pieces(mbuf, found) };
        let hdr_len = self.terms.hdr_len();
        let len = found.len as usize;
        let frame = frame_len(len, hdr_len)?;
        let room = mbuf.room();
        let (copied, front) = (first_bytes(frame, hdr_len, room.len()), room.start());
        // SAFETY: `len` bytes were translated from `start` on and copied <= len; the mbuf's room is at least `copied`.
        unsafe { foreign::copy(front.as_ptr(), start.as_ptr(), copied) };
        room.fill(hdr_len, copied - hdr_len);
        if copied < len
            && let Some(rest) = self.rests.next()
        {
            // SAFETY: inside of the translated bytes.
            *rest = Stretch::new(unsafe { start.add(copied) }, (len - copied) as u32);
            // SAFETY: the rest of the translated bytes. They stay: this half borrows itself for 't, and until `complete`, which
            // takes it anew, it is inside the gate.
            mbuf.set_tail(unsafe { TailSegment::all(core::slice::from_ref(rest)) });
        }
        self.label(mbuf, front.as_ptr())
    }

    /// The same for any chain: copy the first bytes of its pieces, leave the rest as tail.
    #[cold]
    fn fill_from_pieces(&mut self, mbuf: &mut Mbuf<'t>, found: &Found) -> Result<(), DropReason> {
        let Lies::Pieces { pieces, cost } = found.lies else { return Err(DropReason::RxBadDescriptor) };
        let (paid, free) = core::mem::take(&mut self.pieces).split_at_mut(cost);
        self.pieces = free;
        let hdr_len = self.terms.hdr_len();
        let frame = frame_len(found.len as usize, hdr_len)?;
        let (room, bytes) = mbuf.spare();
        let copied = first_bytes(frame, hdr_len, bytes);
        let pieces = copy_front(&mut paid[..pieces], room.as_ptr(), copied);
        mbuf.set_filled(hdr_len, copied - hdr_len);
        // SAFETY: translated, and as above.
        mbuf.set_tail(unsafe { TailSegment::all(pieces) });
        self.label(mbuf, room.as_ptr())
    }

    /// Reads the private copy of the virtio-net header into what is owed to the packet.
    #[inline]
    fn label(&self, mbuf: &mut Mbuf<'t>, hdr: *const u8) -> Result<(), DropReason> {
        // SAFETY: at least hdr_len >= 10 bytes were copied to `hdr`, in the mbuf's own headroom now.
        let hdr: &[u8; VirtioNetHdr::LEN] = unsafe { &*hdr.cast() };
        if hdr[0] == 0 && hdr[1] == net::GSO_NONE {
            return Ok(());
        }
        let hdr = VirtioNetHdr::from_le_bytes(hdr);
        match from_virtio_net(&hdr, mbuf.data(), mbuf.len(), sender_offloads(self.terms.features)) {
            Ok(offload) if offload == Offload::NONE => Ok(()),
            Ok(offload) => {
                mbuf.set_offload(offload);
                Ok(())
            }
            Err(_) => Err(DropReason::RxBadOffload),
        }
    }
}

/// The frame's length in a chain of `len` bytes.
#[inline(always)]
fn frame_len(len: usize, hdr_len: usize) -> Result<usize, DropReason> {
    let frame = len.wrapping_sub(hdr_len);
    if len < hdr_len + MIN_FRAME {
        return Err(DropReason::RxTooShort);
    }
    if frame > MAX_FRAME {
        return Err(DropReason::RxTooLong);
    }
    Ok(frame)
}

/// How many bytes, header included, are copied into so much room.
#[inline(always)]
fn first_bytes(frame: usize, hdr_len: usize, room: usize) -> usize {
    let copied = if frame <= WHOLE { frame } else { SNAPSHOT };
    (hdr_len + copied).min(room)
}

/// Copies the first `n` bytes of `pieces` to `dst` and returns what is left of the pieces.
fn copy_front(pieces: &mut [Stretch], dst: *mut u8, n: usize) -> &[Stretch] {
    let (mut at, mut done) = (0, 0);
    while done < n && at < pieces.len() {
        let piece = pieces[at];
        let part = piece.len().min(n - done);
        // SAFETY: `part` bytes of a translated piece; `dst` has room for n.
        unsafe { foreign::copy(dst.add(done), piece.start().as_ptr(), part) };
        done += part;
        if part < piece.len() {
            // SAFETY: inside of a translated piece.
            let start = unsafe { piece.start().add(part) };
            pieces[at] = Stretch::new(start, (piece.len() - part) as u32);
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

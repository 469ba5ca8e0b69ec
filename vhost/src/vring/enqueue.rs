//! Enqueue: what the switch forwards goes into the guest's RX buffers.
//!
//! Two passes over a burst. The first ([`find`]) reads heads and descriptors of as many buffers as there are packets and
//! prefetches them for writing; the second ([`write`]) writes header and frame, tails straight from the sender's memory, and
//! the used entries. The used index moves once per burst, the guest is called once per turn. A packet that fits no plain
//! buffer has both passes for itself, behind what was found so far.

mod find;
mod write;

use core::mem::MaybeUninit;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use mbuf::{Burst, MAX_BURST, Mbuf, NoMbufs};
use pmd::offload::{Adapted, OffloadSet, Segmenter, adapt};
use pmd::{DropReason, QueueCounters, TxQueue};

use crate::vring::cost::Cost;
use crate::vring::dequeue::offloads;
use crate::vring::format::Format;
use crate::vring::ring::{Ring, Terms};
use crate::vring::slot::State;
use crate::vring::view::View;
use crate::vring::{Fault, MAX_FRAME, Vring, VringSlot, hook};
use crate::wire::net;
use find::{Finder, PlainList, Scratch, Unfit};
use write::Writer;

pub(super) use find::Short;

/// The transmit half over a guest's RX ring.
#[derive(Debug)]
pub(crate) struct GuestRx {
    slot: Arc<VringSlot>,
    counters: Arc<CachePadded<QueueCounters>>,
    /// Buffers for one packet that does not fit a plain one.
    scratch: Scratch,
    /// Whether the guest was not asked yet whether it wants a call.
    unsignalled: bool,
    /// What touching this guest's memory costs.
    cost: Cost,
}

impl GuestRx {
    pub(crate) fn new(slot: Arc<VringSlot>, counters: Arc<CachePadded<QueueCounters>>) -> Self {
        Self { slot, counters, scratch: Scratch::new(), unsignalled: false, cost: Cost::new() }
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
        let Self { slot, counters, scratch, unsignalled, cost } = self;
        let Some(mut inside) = slot.try_enter() else { return 0 };
        cost.begin();
        // Asked again inside: the control plane changes it inside, and acknowledges afterwards.
        let ready = slot.state() == State::Ready;
        let Some(Vring { ring, terms, view, short, .. }) = inside.as_mut().filter(|_| ready) else {
            drop(inside);
            self.drop_burst(burst, DropReason::TxNotReady);
            return n;
        };
        let turn = Turn { terms: *terms, view, counters, scratch, short };
        let Outcome { taken, given, fault } = match ring {
            Ring::Split(ring) => turn.run(ring, burst),
            Ring::Packed(ring) => turn.run(ring, burst),
        };
        *unsignalled |= given;
        if let Some(fault) = fault {
            slot.latch(fault);
        }
        if cost.is_long() && cost.sent(burst, slot.account()) {
            slot.latch(Fault::SlowMemory);
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
    scratch: &'r mut Scratch,
    short: &'r mut Option<Short>,
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
        let Self { terms, view, counters, scratch, short } = self;
        let accepted = receiver_offloads(terms.features);
        let finder = Finder::new(terms, view, scratch, ring.first(), short.take());
        let writer = Writer { hdr_len: terms.hdr_len(), accepted, filled: 0 };
        let mut giving = Giving { ring, finder, writer, counters, taken: 0, sent: 0, bytes: 0 };
        let outcome = if burst.iter().all(|m| accepted.covers(m.offload())) {
            giving.give(burst)
        } else {
            giving.give_adapted(burst)
        };
        *short = giving.still_short();
        giving.finish(outcome)
    }
}

/// One burst's way into a ring.
struct Giving<'r, F: Format> {
    ring: &'r mut F,
    /// Pass one, which has the ring as [`Available`](crate::vring::format::Available).
    finder: Finder<'r, F::Place>,
    /// Pass two, which has it as [`Used`](crate::vring::format::Used).
    writer: Writer,
    counters: &'r QueueCounters,
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

impl<F: Format> Giving<'_, F> {
    /// Gives packets from the front of the burst as long as there are buffers.
    fn give(&mut self, burst: &mut Burst<'_>) -> Result<(), Fault> {
        let mut room = [const { MaybeUninit::uninit() }; MAX_BURST];
        let mut plain = self.finder.find_plain(self.ring, &mut room[..burst.len()])?;
        for mbuf in burst.iter_mut() {
            hook::between();
            let given = if self.writer.put_plain(self.ring, mbuf, &mut plain) {
                Given::Sent
            } else {
                // By value: the list stays in registers while every packet is plain.
                let (given, left) = self.give_scattered(mbuf, plain)?;
                plain = left;
                given
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
        match adapt(mbuf.share(), self.writer.accepted) {
            Err(reason) => Ok(Given::Dropped(reason)),
            Ok(Adapted::One(one)) => Ok(self.give_scattered(&one, PlainList::default())?.0),
            Ok(Adapted::Many(segments)) => self.give_segments(segments),
        }
    }

    /// All segments or none: a part of them would only cost the receiver work.
    fn give_segments(&mut self, segments: Segmenter<'_>) -> Result<Given, Fault> {
        let before = (self.writer.filled, self.finder.at);
        if self.finder.are_too_many(self.ring, segments.remaining(), before.0)? {
            return Ok(Given::NoBuffers);
        }
        for segment in segments {
            let given = match segment {
                Ok(segment) => self.give_scattered(&segment, PlainList::default())?.0,
                Err(NoMbufs) => Given::Dropped(DropReason::NoMbufs),
            };
            if !matches!(given, Given::Sent) {
                let slots = self.ring.distance(before.1, self.finder.at);
                self.finder.rewind(self.writer.filled, before.0, slots);
                (self.writer.filled, self.finder.at) = before;
                return Ok(given);
            }
        }
        Ok(Given::Sent)
    }

    /// One packet into whatever buffers there are: plain ones that are too short for it, chains, several if the guest takes
    /// that. First pass, then second.
    #[cold]
    fn give_scattered<'f>(
        &mut self,
        mbuf: &Mbuf<'_>,
        mut plain: PlainList<'f>,
    ) -> Result<(Given, PlainList<'f>), Fault> {
        if mbuf.len() > MAX_FRAME {
            return Ok((Given::Dropped(DropReason::TxTooLong), plain));
        }
        let need = self.writer.hdr_len + mbuf.len();
        let given = match self.finder.find(self.ring, &mut plain, need, self.writer.filled)? {
            Ok(found) => {
                hook::between();
                self.writer.put_scattered(self.ring, mbuf, self.finder.scratch.of(&found));
                Given::Sent
            }
            Err(Unfit::Dropped(reason)) => Given::Dropped(reason),
            Err(Unfit::NoBuffers) => Given::NoBuffers,
        };
        Ok((given, plain))
    }

    /// Counts what became of a packet of `len` bytes; false if it stays.
    #[inline(always)]
    fn count(&mut self, given: &Given, len: usize) -> bool {
        match given {
            Given::Sent => {
                self.sent += 1;
                self.bytes += len as u64;
            }
            Given::Dropped(reason) => self.counters.drop_packets(*reason, 1),
            Given::NoBuffers => return false,
        }
        self.taken += 1;
        true
    }

    /// What the next burst need not find out again: it is about the buffers at the front then.
    #[inline(always)]
    fn still_short(&self) -> Option<Short> {
        let short = self.finder.short?;
        (short.behind == self.writer.filled).then_some(Short { behind: 0, ..short })
    }

    /// Publishes and counts.
    #[inline(always)]
    fn finish(self, outcome: Result<(), Fault>) -> Outcome {
        let filled = self.writer.filled;
        let mut fault = outcome.err();
        if filled > 0 {
            fault = fault.or(self.ring.publish(filled).err());
            let counters = self.counters;
            counters.packets.add(self.sent);
            counters.bytes.add(self.bytes);
            counters.bursts.add(1);
        }
        Outcome { taken: self.taken, given: filled > 0, fault }
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

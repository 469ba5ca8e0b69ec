//! Pass one: which buffers a packet goes to. All that is read of a ring is read here, once, into private lists.
#![expect(unsafe_code, reason = "a burst's list is written into room that nothing cleared")]
// UNSAFETY: of the list only the entries that were written are ever read.

use core::mem::MaybeUninit;
use core::num::NonZeroU16;
use core::ptr::NonNull;

use mbuf::Stretch;
use pmd::DropReason;

use crate::vring::chain::{self, Chain, ChainError, Direction, Walker};
use crate::vring::format::{Available, Buffer};
use crate::vring::ring::Terms;
use crate::vring::view::View;
use crate::vring::{Fault, MAX_PIECES};
use crate::wire::ring::DESC_F_WRITE;

use super::write::ask_for_start;

/// What walking chains may cost a burst, in descriptors that brought it nothing. What comes behind finds the ring full.
/// With one chain of [`MAX_PIECES`] more that may begin below it, that is within ten times an honest burst.
const BUDGET: usize = MAX_PIECES / 2;
/// A descriptor that takes so many bytes costs nothing: the time goes into the copy.
const WORTH_IT: usize = 128;

/// A buffer that is one plain, writable descriptor.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) buffer: Buffer,
    pub(super) len: u32,
    pub(super) start: NonNull<u8>,
}

/// The buffers that were found for a burst and not used yet, in order, the next one first.
#[derive(Clone, Default)]
pub(super) struct PlainList<'f>(pub(super) core::slice::Iter<'f, Plain>);

/// One buffer's part of a packet.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) buffer: Buffer,
    pub(super) len: u32,
}

/// What was found for one packet that takes more than one plain buffer.
#[derive(Debug)]
pub(super) struct Scratch {
    parts: Box<[Part]>,
    pieces: Box<[Stretch]>,
}

impl core::fmt::Debug for Part {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}: {} bytes", self.buffer, self.len)
    }
}

impl Scratch {
    pub(super) fn new() -> Self {
        let parts = vec![Part { buffer: Buffer::NONE, len: 0 }; MAX_PIECES];
        Self { parts: parts.into(), pieces: chain::scratch() }
    }

    /// What a [`Found`] says was found.
    pub(super) fn of(&self, found: &Found) -> (&[Part], &[Stretch]) {
        (&self.parts[..found.buffers], &self.pieces[..found.pieces])
    }
}

/// How much of the [`Scratch`] is a packet's.
#[derive(Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) buffers: usize,
    pieces: usize,
}

/// Buffers at the front of the ring that a packet could not use. They stay, and are not walked again for a packet that needs
/// as much: a guest must not change what it made available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vring) struct Short {
    /// Buffers given in this burst before them.
    pub(super) behind: usize,
    /// A packet that needs more bytes than this, header included, does not fit.
    pub(super) bytes: usize,
    /// How many they are.
    pub(super) buffers: usize,
    /// The ring's positions that they take.
    pub(super) slots: u16,
    /// Whether one more would help.
    pub(super) until_more: bool,
}

/// Why a packet gets no buffers.
#[derive(Clone, Copy)]
pub(super) enum Unfit {
    Dropped(DropReason),
    /// There are none for it now: it stays.
    NoBuffers,
}

/// Where pass one is in the ring, and what it reads by.
pub(super) struct Finder<'r, P> {
    pub(super) terms: Terms,
    pub(super) view: &'r mut View,
    pub(super) scratch: &'r mut Scratch,
    /// Behind all that was found so far. It goes forward only: no position is read for two packets.
    pub(super) at: P,
    budget: usize,
    pub(super) short: Option<Short>,
}

/// A walk for one packet that is under way.
struct Walk<P> {
    at: P,
    need: usize,
    room: usize,
    /// What it cost so far: at least as much as there are pieces and buffers.
    cost: usize,
    slots: u16,
    found: Found,
}

impl<'r, P: Copy> Finder<'r, P> {
    pub(super) fn new(
        terms: Terms,
        view: &'r mut View,
        scratch: &'r mut Scratch,
        at: P,
        short: Option<Short>,
    ) -> Self {
        Self { terms, view, scratch, at, budget: BUDGET, short }
    }

    /// As many plain buffers as there are in a row, up to `room`'s length. Most bursts need no more.
    #[inline(always)]
    pub(super) fn find_plain<'f, F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        room: &'f mut [MaybeUninit<Plain>],
    ) -> Result<PlainList<'f>, Fault> {
        let (mut at, hdr_len) = (self.at, self.terms.hdr_len());
        let n = ring.ready(at, room.len())?.min(room.len());
        ring.will_read(at, n);
        let mut found = 0;
        for entry in &mut room[..n] {
            let Some(head) = ring.head(at)? else { break };
            if head.desc.flags != DESC_F_WRITE {
                break;
            }
            let Some(start) = self.view.translate(head.desc.addr, head.desc.len) else { break };
            let buffer = ring.buffer(&head, NonZeroU16::MIN, head.desc)?;
            ask_for_start(start.as_ptr(), hdr_len);
            entry.write(Plain { buffer, len: head.desc.len, start });
            at = ring.after(at, buffer);
            found += 1;
        }
        self.at = at;
        // SAFETY: the loop wrote the first `found` entries, from the first on, and found <= n <= the room's length.
        Ok(PlainList(unsafe { core::slice::from_raw_parts(room.as_ptr().cast(), found) }.iter()))
    }

    /// Buffers for one packet that needs `need` bytes, header included: those of `plain` first, which it takes out of the
    /// list, then any chains behind them; several if the guest takes that. `behind` buffers were given in this burst.
    #[cold]
    pub(super) fn find<F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        plain: &mut PlainList<'_>,
        need: usize,
        behind: usize,
    ) -> Result<Result<Found, Unfit>, Fault> {
        if let Some(unfit) = self.known(ring, need, behind)? {
            return Ok(Err(unfit));
        }
        if self.budget == 0 {
            return Ok(Err(Unfit::NoBuffers));
        }
        let mut walk = Walk { at: self.at, need, room: 0, cost: 0, slots: 0, found: Found::default() };
        let mut left = plain.clone();
        let outcome = self.walk(ring, &mut walk, &mut left)?;
        let worth = if outcome.is_ok() { need / WORTH_IT } else { 0 };
        self.budget = self.budget.saturating_sub(walk.cost.saturating_sub(worth));
        match outcome {
            Ok(()) => {
                (self.at, *plain) = (walk.at, left);
                Ok(Ok(walk.found))
            }
            Err(unfit) => {
                let until_more = matches!(unfit, Unfit::NoBuffers);
                let Walk { room: bytes, slots, found, .. } = walk;
                self.short = Some(Short { behind, bytes, buffers: found.buffers, slots, until_more });
                Ok(Err(unfit))
            }
        }
    }

    /// What an earlier walk found out about a packet that needs so much.
    fn known<F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        need: usize,
        behind: usize,
    ) -> Result<Option<Unfit>, Fault> {
        match self.short.filter(|short| short.behind == behind && need > short.bytes) {
            Some(short) if !short.until_more => Ok(Some(Unfit::Dropped(DropReason::TxTooLong))),
            Some(short) => Ok((!self.has_more(ring, short)?).then_some(Unfit::NoBuffers)),
            None => Ok(None),
        }
    }

    /// Whether there is a buffer behind those that were too few. They stand where the burst began.
    fn has_more<F: Available<Place = P>>(&mut self, ring: &mut F, short: Short) -> Result<bool, Fault> {
        if short.behind > 0 {
            return Ok(true);
        }
        let end = ring.beyond(ring.first(), short.slots);
        let more = ring.ready(end, 1)? > 0 && ring.head(end)?.is_some();
        if more {
            self.short = None;
        }
        Ok(more)
    }

    /// Whether so many packets, which take a buffer each, are known to find too few.
    pub(super) fn are_too_many<F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        packets: usize,
        behind: usize,
    ) -> Result<bool, Fault> {
        match self.short.filter(|short| short.until_more && short.behind == behind && packets > short.buffers)
        {
            Some(short) => Ok(!self.has_more(ring, short)?),
            None => Ok(false),
        }
    }

    /// Only `to` of `from` buffers are given after all; `slots` positions lie between. What was short behind the others
    /// still is, seen from there, but how many bytes they all have is not known.
    pub(super) fn rewind(&mut self, from: usize, to: usize, slots: u16) {
        if from == to {
            return;
        }
        let found_here = self.short.filter(|short| short.behind == from && short.until_more);
        self.short = found_here.map(|short| Short {
            behind: to,
            bytes: usize::MAX,
            buffers: short.buffers + (from - to),
            slots: short.slots.saturating_add(slots),
            until_more: true,
        });
    }

    fn walk<F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        walk: &mut Walk<P>,
        plain: &mut PlainList<'_>,
    ) -> Result<Result<(), Unfit>, Fault> {
        while walk.room < walk.need {
            if walk.cost >= MAX_PIECES {
                return Ok(Err(Unfit::Dropped(DropReason::TxTooLong)));
            }
            let chain = match plain.0.next() {
                Some(first) => self.take_plain(walk, *first),
                None => match self.read_chain(ring, walk)? {
                    Ok(chain) => chain,
                    Err(unfit) => return Ok(Err(unfit)),
                },
            };
            let enough = self.add(walk, &chain)?;
            if !enough && !self.terms.mergeable {
                return Ok(Err(Unfit::Dropped(DropReason::TxTooLong)));
            }
        }
        Ok(Ok(()))
    }

    /// A buffer that was found before, as a chain of one.
    fn take_plain(&mut self, walk: &Walk<P>, plain: Plain) -> Chain {
        self.scratch.pieces[walk.found.pieces] = Stretch::new(plain.start, plain.len);
        Chain { buffer: plain.buffer, pieces: 1, cost: 1, bytes: plain.len.into() }
    }

    /// Reads the chain at the walk's place, and moves that behind it.
    fn read_chain<F: Available<Place = P>>(
        &mut self,
        ring: &mut F,
        walk: &mut Walk<P>,
    ) -> Result<Result<Chain, Unfit>, Fault> {
        if ring.ready(walk.at, 1)? == 0 {
            return Ok(Err(Unfit::NoBuffers));
        }
        let Some(head) = ring.head(walk.at)? else { return Ok(Err(Unfit::NoBuffers)) };
        // As many steps as are left of a packet's, and so many pieces.
        let pieces = walk.found.pieces..walk.found.pieces + (MAX_PIECES - walk.cost);
        let walker = Walker { ring: &*ring, view: self.view, terms: self.terms, direction: Direction::Write };
        match walker.collect(walk.at, &head, &mut self.scratch.pieces[pieces]) {
            Ok(chain) => {
                walk.at = ring.after(walk.at, chain.buffer);
                Ok(Ok(chain))
            }
            Err(ChainError::Fault(fault)) => Err(fault),
            Err(ChainError::NoRoom(_)) => {
                walk.cost = MAX_PIECES;
                Ok(Err(Unfit::Dropped(DropReason::TxTooLong)))
            }
        }
    }

    /// Adds a buffer to what was found; whether the packet has enough.
    fn add(&mut self, walk: &mut Walk<P>, chain: &Chain) -> Result<bool, Fault> {
        let bytes = usize::try_from(chain.bytes).unwrap_or(usize::MAX);
        if self.terms.mergeable && bytes < self.terms.hdr_len() {
            return Err(Fault::BufferTooShort);
        }
        let part = bytes.min(walk.need - walk.room);
        // Each cost at least 1, and all of them less than there are entries before this one.
        self.scratch.parts[walk.found.buffers] = Part { buffer: chain.buffer, len: part as u32 };
        walk.room += part;
        walk.cost += chain.cost;
        walk.slots = walk.slots.saturating_add(chain.buffer.slots.get());
        walk.found.buffers += 1;
        walk.found.pieces += chain.pieces;
        Ok(walk.room >= walk.need)
    }
}

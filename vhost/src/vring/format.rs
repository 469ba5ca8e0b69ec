//! What a ring's format does: find what the guest made available, and give it back. All else that the data plane does is
//! the same for every format, and is compiled once for each.
//!
//! | | [`Split`](super::split::Split), §2.7 | [`Packed`](super::packed::Packed), §2.8 |
//! |---|---|---|
//! | available | a head's number in the available ring, up to avail.idx | a descriptor whose two flags say so |
//! | a chain | each descriptor names the next | descriptors that stand one behind the other |
//! | given back | an entry of the used ring, up to used.idx | the chain's first descriptor, written over |
//! | a call is wanted | flags or used_event | the driver's event suppression structure |
//!
//! Buffers come back in the order in which they were made available, so one place says it all: what is before it is back
//! with the guest. Nothing of a buffer is remembered between two bursts but that place, and how far a walk came that found
//! no use for it ([`Long`], [`Short`](super::enqueue::Short)).
//!
//! # Two passes, two traits
//! A burst reads descriptors in its first pass and acts in its second. [`Available`] is all that the first pass has of a
//! ring; [`Used`] is all that the second has, and there is no descriptor to be had from it: it works by the private copies
//! that the first one made (decision 0014).

use core::num::NonZeroU16;

use crate::vring::Fault;
use crate::wire::ring::Desc;

/// What gives a buffer back to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    /// The chain's head (split), or the buffer's id (packed).
    pub(super) id: u16,
    /// How far the next buffer is away: in heads (split: 1), or in descriptors (packed). Never 0: no more buffers are found
    /// in a round than the ring has positions.
    pub(super) slots: NonZeroU16,
}

impl Buffer {
    /// Nobody's, to fill arrays with.
    pub(super) const NONE: Self = Self { id: 0, slots: NonZeroU16::MIN };
}

/// How far a walk came that found a chain longer than anybody deals with; it goes on in the next burst. The chain stands
/// at the ring's first place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Long {
    pub(super) head: Head,
    /// Descriptors of the ring that were read, the head included.
    pub(super) walked: u16,
    /// The last of them.
    pub(super) desc: Desc,
}

/// The private copy of a chain's first descriptor, `NEXT`, `WRITE` and `INDIRECT` being all that is left of its flags in
/// a packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) desc: Desc,
    /// Its number in the table. Nothing in a packed ring, where the chain's last descriptor has the id.
    pub(super) number: u16,
}

/// What a burst's first pass has of a ring: all that is read of what the guest made available, and nothing else.
pub(super) trait Available {
    /// Where a buffer stands, or may come to stand. Counted from the first buffer that is not given back, and no further than
    /// the ring is long.
    type Place: Copy;

    /// A chain's descriptors stand one behind the other, in the ring and in tables; they don't name each other.
    const CHAINS_ARE_RUNS: bool;

    /// Descriptors of the ring.
    fn size(&self) -> u16;

    /// The place of the first buffer that is not given back. Nothing is in hand when it is asked for.
    fn first(&self) -> Self::Place;

    /// The place `slots` behind `at`.
    fn beyond(&self, at: Self::Place, slots: u16) -> Self::Place;

    /// How far `to` is behind `from`.
    fn distance(&self, from: Self::Place, to: Self::Place) -> u16;

    /// At most how many buffers there are from `at` on; looks again only if fewer than `wanted` are known.
    fn ready(&mut self, at: Self::Place, wanted: usize) -> Result<usize, Fault>;

    /// Has the descriptors of the next `n` buffers from `at` on brought here, which must be ready. A hint: drivers that write
    /// them anew for each buffer leave them with another core, and who reads one after the other waits for each line.
    fn will_read(&self, at: Self::Place, n: usize);

    /// The head of the buffer at `at`, which must be among the ready ones, if there is one after all.
    fn head(&self, at: Self::Place) -> Result<Option<Head>, Fault>;

    /// The descriptor behind `desc`, which is the `walked`-th of the chain at `at` and says that there is one.
    fn follow(&self, at: Self::Place, walked: u16, desc: Desc) -> Result<Desc, Fault>;

    /// What gives back the chain of `head`, of which `walked` descriptors stand in the ring, `last` the last of them.
    fn buffer(&self, head: &Head, walked: NonZeroU16, last: Desc) -> Result<Buffer, Fault>;

    /// What gives back the chain at `at`, of which `long` says how far it was walked: at most `steps` further. If that does
    /// not lead to its end, how far it did.
    fn skip(&self, at: Self::Place, long: Long, steps: u16) -> Result<Result<Buffer, Long>, Fault>;

    /// The place behind `buffer`, which stands at `at`.
    fn after(&self, at: Self::Place, buffer: Buffer) -> Self::Place;

    /// An entry of an indirect table, from its two words.
    fn entry(addr: u64, rest: u64) -> Desc;
}

/// What a burst's second pass has of a ring: what gives buffers back. No descriptor can be read by it.
pub(super) trait Used {
    /// Notes that `len` bytes were written into the `i`-th buffer that is not given back. The guest sees nothing of it
    /// before [`publish`](Self::publish), and it may be noted again, differently.
    fn stage(&mut self, i: usize, buffer: Buffer, len: u32);

    /// Gives the first `n` buffers back as they were staged. On a fault, those before the one that is at fault.
    fn publish(&mut self, n: usize) -> Result<(), Fault>;

    /// The same, but a driver that polls may see the last few of them only after the next ones, or after
    /// [`show`](Self::show).
    fn publish_late(&mut self, n: usize) -> Result<(), Fault> {
        self.publish(n)
    }

    /// Whether some are given back that the guest does not see yet.
    fn is_late(&self) -> bool {
        false
    }

    /// Has the guest see all that is given back.
    fn show(&mut self) {}
}

/// A format's side of a started ring: both passes' sides, and what is said of calls and kicks.
pub(super) trait Format: Available + Used {
    /// Whether the guest wants a call for what was given back since it was asked last.
    fn wants_call(&mut self) -> bool;

    /// Forgets what it was asked: the next answer is yes, unless the guest wants no calls at all.
    fn forget_calls(&mut self);

    /// Asks the guest to kick at the next buffer; false if there is one already. Nothing is in hand. Looks at the ring after
    /// asking, with V4's fence in between.
    fn arm(&self) -> bool;

    /// Tells the guest that it need not kick: we poll. A new ring begins like this.
    fn disarm(&self);

    /// Where the ring stands, as SET_VRING_BASE and GET_VRING_BASE have it.
    fn base(&self) -> u32;
}

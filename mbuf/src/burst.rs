//! Up to [`MAX_BURST`] packets in hand.
#![expect(unsafe_code, reason = "a fixed array of which a prefix is filled")]
// UNSAFETY: slots[..len] hold mbufs that this burst owns; the rest is garbage. Every method keeps that.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};

use crate::layout::MetaPtr;
use crate::packet::Mbuf;

/// Most packets in a burst.
pub const MAX_BURST: usize = 32;

/// Up to [`MAX_BURST`] packets, in order. Dropping it gives them all back to their pools at once.
pub struct Burst<'t> {
    len: usize,
    slots: [MaybeUninit<MetaPtr>; MAX_BURST],
    _tails: PhantomData<Mbuf<'t>>,
}

const _: () = assert!(size_of::<Mbuf<'static>>() == size_of::<MetaPtr>());

impl Default for Burst<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Burst<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'t> Burst<'t> {
    /// An empty one. Costs nothing: the slots are not written.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, slots: [const { MaybeUninit::uninit() }; MAX_BURST], _tails: PhantomData }
    }

    /// Packets it can still take.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_BURST - self.len
    }

    /// Adds a packet at the end; gives it back if the burst is full.
    ///
    /// # Errors
    /// The packet, if there is no room.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf<'t>) -> Result<(), Mbuf<'t>> {
        if self.len == MAX_BURST {
            return Err(mbuf);
        }
        self.slots[self.len].write(mbuf.into_raw());
        self.len += 1;
        Ok(())
    }

    /// Takes the last packet out.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf<'t>> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the slot was filled, and is behind the end from here on.
        Some(unsafe { Mbuf::from_raw(self.slots[self.len].assume_init()) })
    }

    /// Drops the first `n` packets (at most all); the rest moves up.
    #[inline]
    pub fn drop_front(&mut self, n: usize) {
        let len = core::mem::take(&mut self.len);
        let n = n.min(len);
        // SAFETY: the first n are filled; they are out of the burst, which is empty until the rest has moved up.
        unsafe { Mbuf::free_all(self.slots[..n].assume_init_ref()) };
        self.slots.copy_within(n..len, 0);
        self.len = len - n;
    }

    /// Drops all packets but the first `n`.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        if n < self.len {
            let len = core::mem::replace(&mut self.len, n);
            // SAFETY: slots n..len were filled and are behind the end from here on.
            unsafe { Mbuf::free_all(self.slots[n..len].assume_init_ref()) };
        }
    }

    /// Drops all packets.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Takes the packets out one by one, first to last. Those that the caller does not take are dropped.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, 't> {
        let end = core::mem::replace(&mut self.len, 0);
        Drain { burst: self, next: 0, end }
    }

    /// Makes every packet own all its bytes; those for which the pools have no mbufs left are dropped.
    /// Returns the packets, free to go anywhere, and how many were dropped.
    pub fn own(mut self) -> (Burst<'static>, usize) {
        let mut owned = Burst::new();
        let mut lost = 0;
        for mbuf in self.drain() {
            match mbuf.own() {
                Ok(m) => {
                    let pushed = owned.push(m);
                    debug_assert!(pushed.is_ok(), "as many slots as before");
                }
                Err(_) => lost += 1,
            }
        }
        (owned, lost)
    }

    /// Takes all packets out, free to go anywhere. None, and nothing done, if one has a tail.
    #[inline]
    pub fn take_owned(&mut self) -> Option<Burst<'static>> {
        if self.iter().any(Mbuf::has_tail) {
            return None;
        }
        // Without tails there is nothing that 't bounds. Copied whole: cheaper than a loop, and the rest is garbage there too.
        let len = core::mem::replace(&mut self.len, 0);
        Some(Burst { len, slots: self.slots, _tails: PhantomData })
    }

    /// Moves all packets of `more` behind these, or none if there is not room for all; whether it did.
    #[inline]
    pub fn append(&mut self, more: &mut Self) -> bool {
        let (len, n) = (self.len, more.len);
        if n > MAX_BURST - len {
            return false;
        }
        self.slots[len..len + n].copy_from_slice(&more.slots[..n]);
        (self.len, more.len) = (len + n, 0);
        true
    }

    /// The `n` slots behind the end, if there are so many.
    #[inline]
    pub(crate) fn room_for(&mut self, n: usize) -> Option<&mut [MaybeUninit<MetaPtr>]> {
        self.slots.get_mut(self.len..self.len.checked_add(n)?)
    }

    /// Moves the end over `n` slots that were filled through `room_for`.
    ///
    /// # Safety
    /// They hold mbufs that nobody else holds.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        self.len += n;
    }
}

impl<'t> Deref for Burst<'t> {
    type Target = [Mbuf<'t>];
    #[inline]
    fn deref(&self) -> &[Mbuf<'t>] {
        // SAFETY: slots[..len] are filled; an Mbuf is a transparent MetaPtr.
        unsafe { core::slice::from_raw_parts(self.slots.as_ptr().cast(), self.len) }
    }
}

impl<'t> DerefMut for Burst<'t> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf<'t>] {
        // SAFETY: as above, and `&mut self` is the only way to them.
        unsafe { core::slice::from_raw_parts_mut(self.slots.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Burst<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.len != 0 {
            self.clear();
        }
    }
}

/// The packets of a burst on their way out.
#[derive(Debug)]
pub struct Drain<'b, 't> {
    burst: &'b mut Burst<'t>,
    next: usize,
    end: usize,
}

impl<'t> Iterator for Drain<'_, 't> {
    type Item = Mbuf<'t>;
    #[inline]
    fn next(&mut self) -> Option<Mbuf<'t>> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: next < end <= the old length: filled, and passed over only once.
        let m = unsafe { Mbuf::from_raw(self.burst.slots[self.next].assume_init()) };
        self.next += 1;
        Some(m)
    }
}

impl Drop for Drain<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: slots next..end were filled and not handed out.
        unsafe { Mbuf::free_all(self.burst.slots[self.next..self.end].assume_init_ref()) };
    }
}

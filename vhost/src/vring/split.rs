//! A split ring (§2.7): its three parts in guest memory, and our private indices into them.
#![expect(unsafe_code, reason = "reads and writes ring memory that the guest shares")]
// UNSAFETY: the three windows were translated with their full length when the ring was set up, and the vring that holds
// this keeps their mappings. Every access below is at an index masked to the ring's size. What the guest writes is
// loaded once, by one aligned atomic load a word, and only the copy is used.

use core::num::NonZeroU16;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};

use mbuf::foreign;
use ring::prefetch;

use crate::vring::format::{Available, Buffer, Format, Head, Long, Used};
use crate::vring::{Fault, VringSetup, hook};
use crate::wire::net;
use crate::wire::ring::{
    AVAIL_F_NO_INTERRUPT, AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, Desc, USED_ELEM_SIZE, USED_F_NO_NOTIFY,
    USED_IDX_OFFSET, USED_RING_OFFSET, avail_bytes, desc_bytes, need_event, used_bytes,
};

/// Descriptors in a cache line of 64 bytes.
const DESCS_OF_A_LINE: usize = 4;

/// Buffers that a driver that polls sees late. DPDK's frees all it has sent as soon as the ring has not more than so many, or a
/// quarter, in use; a thousand at once go past its mempool's cache, and it goes on with buffers that are in no cache at all.
/// As long as packets come it never finds so few.
const LATE: u16 = 32;

/// A split ring that runs. Everything before `done` is back with the guest, which sees it up to `shown`.
#[derive(Debug)]
pub(super) struct Split {
    desc: NonNull<u64>,
    avail: NonNull<u8>,
    used: NonNull<u8>,
    mask: u16,
    size: u16,
    done: u16,
    /// used.idx.
    shown: u16,
    /// The furthest avail.idx that was seen: what was made available once stays so.
    seen: u16,
    /// used.idx when the guest was last asked whether it wants a call.
    signalled: u16,
    /// Whether `signalled` means anything: not right after a start.
    signalled_valid: bool,
    /// Whether the guest said, when it was asked last, that it wants no calls at all.
    polled: bool,
    event_idx: bool,
}

// SAFETY: the pointers go into mappings that any thread may use and that the vring keeps; one thread at a time has it.
unsafe impl Send for Split {}

impl Split {
    pub(super) fn new(setup: &VringSetup) -> Self {
        assert!(setup.size.is_power_of_two(), "the control plane checks SET_VRING_NUM");
        assert!(setup.desc.len >= desc_bytes(setup.size), "the windows were translated for this size");
        assert!(setup.avail.len >= avail_bytes(setup.size) && setup.used.len >= used_bytes(setup.size));
        let base = u16::try_from(setup.base).expect("the control plane checks SET_VRING_BASE");
        let ring = Self {
            desc: setup.desc.start.cast(),
            avail: setup.avail.start,
            used: setup.used.start,
            mask: setup.size - 1,
            size: setup.size,
            done: base,
            shown: base,
            seen: base,
            signalled: base,
            signalled_valid: false,
            polled: false,
            event_idx: setup.features & net::F_EVENT_IDX != 0,
        };
        ring.used_word(0).store(0, Ordering::Relaxed);
        ring.disarm();
        ring
    }

    /// A private copy of descriptor `i`, which must be less than the size.
    #[inline(always)]
    fn desc(&self, i: u16) -> Desc {
        // SAFETY: `i & mask` is a descriptor of the table, which is aligned to 16.
        unsafe {
            let p = self.desc.as_ptr().add(usize::from(i & self.mask) * 2);
            let desc = Desc::from_words(foreign::load_u64(p), foreign::load_u64(p.add(1)));
            hook::read(desc);
            desc
        }
    }

    #[inline(always)]
    fn avail_entry(&self, at: u16) -> u16 {
        let at = usize::from(at & self.mask);
        // SAFETY: an entry of the available ring: at < size.
        let entry =
            unsafe { AtomicU16::from_ptr(self.avail.as_ptr().add(AVAIL_RING_OFFSET + 2 * at).cast()) };
        u16::from_le(entry.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn avail_idx(&self) -> u16 {
        // SAFETY: the available ring's idx, aligned to 2.
        // ORDERING: V1 (Acquire inside), pairs with the driver's store of avail.idx.
        unsafe { foreign::load_u16_acquire(self.avail.add(AVAIL_IDX_OFFSET).as_ptr().cast()) }
    }

    /// Says when a kick is wanted: with EVENT_IDX when the buffer at `event` is there, else by `flags` (§2.7.10).
    fn ask_for_kick(&self, event: u16, flags: u16) {
        if self.event_idx {
            let at = USED_RING_OFFSET + USED_ELEM_SIZE * usize::from(self.size);
            self.used_word(at).store(event.to_le(), Ordering::Relaxed);
        } else {
            self.used_word(0).store(flags.to_le(), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn show_until(&mut self, shown: u16) {
        self.shown = shown;
        // ORDERING: V2 Release, pairs with the driver's load of used.idx.
        self.used_word(USED_IDX_OFFSET).store(shown.to_le(), Ordering::Release);
    }

    fn avail_word(&self, offset: usize) -> u16 {
        // SAFETY: `offset` is that of flags or used_event, both u16 inside the available ring.
        let word = unsafe { AtomicU16::from_ptr(self.avail.as_ptr().add(offset).cast()) };
        u16::from_le(word.load(Ordering::Relaxed))
    }

    fn used_word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `offset` is that of flags, idx or avail_event, all u16 inside the used ring; an atomic may be shared with
        // anybody.
        unsafe { AtomicU16::from_ptr(self.used.as_ptr().add(offset).cast()) }
    }
}

impl Available for Split {
    /// A position in the available ring, counted on for ever.
    type Place = u16;

    const CHAINS_ARE_RUNS: bool = false;

    #[inline(always)]
    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn first(&self) -> u16 {
        self.done
    }

    #[inline(always)]
    fn ready(&mut self, at: u16, wanted: usize) -> Result<usize, Fault> {
        let ahead = at.wrapping_sub(self.done);
        let known = self.seen.wrapping_sub(self.done);
        if usize::from(known) >= usize::from(ahead) + wanted {
            return Ok(usize::from(known.saturating_sub(ahead)));
        }
        let now = self.avail_idx().wrapping_sub(self.done);
        // What we still hold cannot be available again.
        if now > self.size {
            return Err(Fault::AvailIndex);
        }
        // Nothing that was seen is taken back: `done` may pass it in this burst, and never passes `seen`.
        let known = now.max(known);
        self.seen = self.done.wrapping_add(known);
        Ok(usize::from(known.saturating_sub(ahead)))
    }

    fn beyond(&self, at: u16, slots: u16) -> u16 {
        at.wrapping_add(slots)
    }

    fn distance(&self, from: u16, to: u16) -> u16 {
        to.wrapping_sub(from)
    }

    /// Mostly heads are numbered one after the other, and four share a line.
    #[inline(always)]
    fn will_read(&self, at: u16, n: usize) {
        for i in (0..n as u16).step_by(DESCS_OF_A_LINE) {
            let head = self.avail_entry(at.wrapping_add(i)) & self.mask;
            prefetch::for_reading(self.desc.as_ptr().wrapping_add(usize::from(head) * 2).cast());
        }
    }

    #[inline(always)]
    fn head(&self, at: u16) -> Result<Option<Head>, Fault> {
        let number = self.avail_entry(at);
        if number >= self.size {
            return Err(Fault::DescIndex);
        }
        Ok(Some(Head { desc: self.desc(number), number }))
    }

    #[inline(always)]
    fn follow(&self, _: u16, _: u16, desc: Desc) -> Result<Desc, Fault> {
        if desc.next < self.size { Ok(self.desc(desc.next)) } else { Err(Fault::DescIndex) }
    }

    #[inline(always)]
    fn buffer(&self, head: &Head, _: NonZeroU16, _: Desc) -> Result<Buffer, Fault> {
        Ok(Buffer { id: head.number, slots: NonZeroU16::MIN })
    }

    /// Its head is all that gives it back.
    fn skip(&self, _: u16, long: Long, _: u16) -> Result<Result<Buffer, Long>, Fault> {
        Ok(Ok(Buffer { id: long.head.number, slots: NonZeroU16::MIN }))
    }

    #[inline(always)]
    fn after(&self, at: u16, _: Buffer) -> u16 {
        at.wrapping_add(1)
    }

    #[inline(always)]
    fn entry(addr: u64, rest: u64) -> Desc {
        Desc::from_words(addr, rest)
    }
}

impl Used for Split {
    #[inline(always)]
    fn stage(&mut self, i: usize, buffer: Buffer, len: u32) {
        let at = usize::from(self.done.wrapping_add(i as u16) & self.mask);
        let entry = u64::from(buffer.id) | u64::from(len) << 32;
        // Where buffers go round in order it mostly stands there since the last round, and its line need not change hands.
        // SAFETY: an entry of the used ring: at < size. The driver reads it only after V2, so a plain store will do.
        unsafe {
            foreign::update_u64(self.used.as_ptr().add(USED_RING_OFFSET + USED_ELEM_SIZE * at), entry);
        }
    }

    #[inline(always)]
    fn publish(&mut self, n: usize) -> Result<(), Fault> {
        hook::published(n, n, self.size);
        self.done = self.done.wrapping_add(n as u16);
        self.show_until(self.done);
        Ok(())
    }

    #[inline(always)]
    fn publish_late(&mut self, n: usize) -> Result<(), Fault> {
        if !self.polled {
            return self.publish(n);
        }
        hook::published(n, n, self.size);
        self.done = self.done.wrapping_add(n as u16);
        let late = LATE.min(self.size / 4);
        if self.done.wrapping_sub(self.shown) > late {
            self.show_until(self.done.wrapping_sub(late));
        }
        Ok(())
    }

    #[inline(always)]
    fn is_late(&self) -> bool {
        self.shown != self.done
    }

    fn show(&mut self) {
        if self.is_late() {
            self.show_until(self.done);
        }
    }
}

impl Format for Split {
    #[inline]
    fn wants_call(&mut self) -> bool {
        // ORDERING: V3, pairs with the driver's fence between storing used_event (or flags) and reading used.idx.
        fence(Ordering::SeqCst);
        let (new, old) = (self.shown, core::mem::replace(&mut self.signalled, self.shown));
        let valid = core::mem::replace(&mut self.signalled_valid, true);
        if self.event_idx {
            !valid || need_event(self.avail_word(AVAIL_RING_OFFSET + 2 * usize::from(self.size)), new, old)
        } else {
            self.polled = self.avail_word(0) & AVAIL_F_NO_INTERRUPT != 0;
            (!valid || old != new) && !self.polled
        }
    }

    fn forget_calls(&mut self) {
        self.signalled_valid = false;
    }

    fn arm(&self) -> bool {
        self.ask_for_kick(self.done, 0);
        // ORDERING: V4, pairs with the driver's fence between storing avail.idx and reading avail_event or flags (D3).
        fence(Ordering::SeqCst);
        self.avail_idx() == self.done
    }

    /// With EVENT_IDX the driver kicks once in 65,536 buffers, and nobody minds.
    fn disarm(&self) {
        self.ask_for_kick(self.done.wrapping_sub(1), USED_F_NO_NOTIFY);
    }

    fn base(&self) -> u32 {
        self.done.into()
    }
}

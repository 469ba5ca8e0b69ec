//! A started ring: its three parts in guest memory, and our private indices into them.
#![expect(unsafe_code, reason = "reads and writes ring memory that the guest shares")]
// UNSAFETY: the three windows were translated with their full length when the ring was set up, and `memory` keeps their
// mappings. Every access below is at an index masked to the ring's size. What the guest writes is loaded once, by
// one aligned atomic load a word, and only the copy is used.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mbuf::foreign;

use crate::memory::{Gpa, GuestMemory, RegionView};
use crate::vring::{Fault, VringSetup, bell};
use crate::wire::net;
use crate::wire::ring::{
    AVAIL_F_NO_INTERRUPT, AVAIL_IDX_OFFSET, AVAIL_RING_OFFSET, Desc, USED_ELEM_SIZE, USED_F_NO_NOTIFY,
    USED_IDX_OFFSET, USED_RING_OFFSET, avail_bytes, desc_bytes, need_event, used_bytes,
};

/// A ring that runs. All completions are in the order of availability, so two indices say it all: everything before
/// `done` is back with the guest, `done..taken` is in our hands.
#[derive(Debug)]
pub(crate) struct Vring {
    desc: NonNull<u64>,
    avail: NonNull<u8>,
    used: NonNull<u8>,
    mask: u16,
    size: u16,
    taken: u16,
    done: u16,
    /// avail.idx as last seen.
    seen: u16,
    /// used.idx when the guest was last asked whether it wants a call.
    signalled: u16,
    /// Whether `signalled` means anything: not right after a start.
    signalled_valid: bool,
    event_idx: bool,
    indirect: bool,
    mergeable: bool,
    hdr_len: u8,
    /// The region that was hit last.
    region: RegionView,
    features: u64,
    memory: Arc<GuestMemory>,
    call: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

// SAFETY: the pointers go into mappings that `memory` keeps and any thread may use; one thread at a time has the ring.
unsafe impl Send for Vring {}

impl Vring {
    pub(crate) fn new(setup: VringSetup) -> Self {
        let has = |feature| setup.features & feature != 0;
        assert!(setup.size.is_power_of_two(), "the control plane checks SET_VRING_NUM");
        assert!(setup.desc.len >= desc_bytes(setup.size), "the windows were translated for this size");
        assert!(setup.avail.len >= avail_bytes(setup.size) && setup.used.len >= used_bytes(setup.size));
        let ring = Self {
            desc: setup.desc.start.cast(),
            avail: setup.avail.start,
            used: setup.used.start,
            mask: setup.size - 1,
            size: setup.size,
            taken: setup.base,
            done: setup.base,
            seen: setup.base,
            signalled: setup.base,
            signalled_valid: false,
            event_idx: has(net::F_EVENT_IDX),
            indirect: has(net::F_INDIRECT_DESC),
            mergeable: has(net::F_MRG_RXBUF),
            hdr_len: net::hdr_len(setup.features) as u8,
            region: RegionView { gpa: 0, len: 0, host: NonNull::dangling() },
            features: setup.features,
            memory: setup.memory,
            call: setup.call,
            err: setup.err,
        };
        // We poll: the driver need not kick. With EVENT_IDX it looks at avail_event instead, kicks once in 65,536
        // buffers, and nobody minds.
        ring.used_word(0).store(if ring.event_idx { 0 } else { USED_F_NO_NOTIFY.to_le() }, Ordering::Relaxed);
        ring
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }
    pub(crate) fn features(&self) -> u64 {
        self.features
    }
    pub(crate) fn hdr_len(&self) -> usize {
        usize::from(self.hdr_len)
    }
    pub(crate) fn mergeable(&self) -> bool {
        self.mergeable
    }
    pub(crate) fn indirect(&self) -> bool {
        self.indirect
    }
    /// The next available index to look at, if everything taken is done.
    pub(crate) fn base(&self) -> u16 {
        self.done
    }
    /// Buffers taken and not yet done.
    #[inline(always)]
    pub(crate) fn in_hand(&self) -> u16 {
        self.taken.wrapping_sub(self.done)
    }
    pub(crate) fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
        self.signalled_valid = false;
    }
    pub(crate) fn set_err(&mut self, err: Option<OwnedFd>) {
        self.err = err;
    }
    /// Whether guest memory was taken away under us.
    #[inline(always)]
    pub(crate) fn memory_is_gone(&self) -> bool {
        self.memory.is_gone()
    }

    /// Buffers that the guest made available and nobody took yet; looks again only if fewer than `wanted` are known.
    #[inline(always)]
    pub(crate) fn available(&mut self, wanted: usize) -> Result<usize, Fault> {
        let known = self.seen.wrapping_sub(self.taken);
        if usize::from(known) >= wanted {
            return Ok(usize::from(known));
        }
        // SAFETY: the available ring's idx, aligned to 2.
        // ORDERING: V1 (Acquire inside), pairs with the driver's store of avail.idx.
        let idx = unsafe { foreign::load_u16_acquire(self.avail.add(AVAIL_IDX_OFFSET).as_ptr().cast()) };
        // What we still hold cannot be available again.
        if idx.wrapping_sub(self.done) > self.size || idx.wrapping_sub(self.taken) > self.size {
            return Err(Fault::AvailIndex);
        }
        self.seen = idx;
        Ok(usize::from(idx.wrapping_sub(self.taken)))
    }

    /// The head of the `i`-th available buffer, checked to be a descriptor's number.
    #[inline(always)]
    pub(crate) fn head(&self, i: usize) -> Result<u16, Fault> {
        let at = usize::from(self.taken.wrapping_add(i as u16) & self.mask);
        // SAFETY: an entry of the available ring: at < size.
        let head = unsafe { AtomicU16::from_ptr(self.avail.as_ptr().add(AVAIL_RING_OFFSET + 2 * at).cast()) };
        let head = u16::from_le(head.load(Ordering::Relaxed));
        if head < self.size { Ok(head) } else { Err(Fault::DescIndex) }
    }

    /// A private copy of descriptor `i`, which must be less than the size.
    #[inline(always)]
    pub(crate) fn desc(&self, i: u16) -> Desc {
        // SAFETY: `i & mask` is a descriptor of the table, which is aligned to 16.
        unsafe {
            let p = self.desc.as_ptr().add(usize::from(i & self.mask) * 2);
            Desc::from_words(foreign::load_u64(p), foreign::load_u64(p.add(1)))
        }
    }

    /// Where `len` bytes from `addr` on lie, if they lie in one region.
    #[inline(always)]
    pub(crate) fn translate(&mut self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let off = addr.wrapping_sub(self.region.gpa);
        if off < self.region.len && u64::from(len) <= self.region.len - off {
            // SAFETY: off + len is within the region's mapping.
            return Some(unsafe { self.region.host.add(off as usize) });
        }
        self.translate_elsewhere(addr, len)
    }

    #[cold]
    fn translate_elsewhere(&mut self, addr: u64, len: u32) -> Option<NonNull<u8>> {
        let region = self.memory.region_at(Gpa(addr))?;
        self.region = region;
        let off = addr - region.gpa;
        // SAFETY: as above.
        (u64::from(len) <= region.len - off).then(|| unsafe { region.host.add(off as usize) })
    }

    /// The first bytes of the `len` ones at `addr` that lie in one region, and how many they are (at least one).
    pub(crate) fn translate_part(&mut self, addr: u64, len: u64) -> Option<(NonNull<u8>, u64)> {
        let off = addr.wrapping_sub(self.region.gpa);
        if off >= self.region.len {
            self.region = self.memory.region_at(Gpa(addr))?;
        }
        let off = addr - self.region.gpa;
        // SAFETY: off < the region's length.
        Some((unsafe { self.region.host.add(off as usize) }, len.min(self.region.len - off)))
    }

    /// Notes that `n` more buffers are in our hands.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: usize) {
        self.taken = self.taken.wrapping_add(n as u16);
    }

    /// Writes the used entry of the `i`-th buffer that is not done yet. Not visible before [`publish`](Self::publish).
    #[inline(always)]
    pub(crate) fn write_used(&mut self, i: usize, head: u16, len: u32) {
        let at = usize::from(self.done.wrapping_add(i as u16) & self.mask);
        let entry = u64::from(head) | u64::from(len) << 32;
        // SAFETY: an entry of the used ring: at < size. The driver reads it only after V2, so a plain store will do.
        unsafe {
            let p = self.used.as_ptr().add(USED_RING_OFFSET + USED_ELEM_SIZE * at);
            p.cast::<u64>().write_unaligned(entry.to_le());
        }
    }

    /// Gives the first `n` buffers in our hands back to the guest.
    #[inline(always)]
    pub(crate) fn publish(&mut self, n: usize) {
        self.done = self.done.wrapping_add(n as u16);
        // ORDERING: V2 Release, pairs with the driver's load of used.idx.
        self.used_word(USED_IDX_OFFSET).store(self.done.to_le(), Ordering::Release);
    }

    /// Calls the guest if it asked for it. True if it was called.
    #[inline]
    pub(crate) fn notify(&mut self) -> bool {
        // ORDERING: V3, pairs with the driver's fence between storing used_event (or flags) and reading used.idx.
        fence(Ordering::SeqCst);
        let old = core::mem::replace(&mut self.signalled, self.done);
        let valid = core::mem::replace(&mut self.signalled_valid, true);
        let wanted = if self.event_idx {
            !valid
                || need_event(self.avail_word(AVAIL_RING_OFFSET + 2 * usize::from(self.size)), self.done, old)
        } else {
            (!valid || old != self.done) && self.avail_word(0) & AVAIL_F_NO_INTERRUPT == 0
        };
        wanted && self.call()
    }

    #[cold]
    fn call(&self) -> bool {
        let Some(call) = &self.call else { return false };
        bell::ring(call.as_fd());
        true
    }

    /// Tells the front end that the ring broke.
    #[cold]
    pub(crate) fn signal_err(&self) {
        if let Some(err) = &self.err {
            bell::ring(err.as_fd());
        }
    }

    fn avail_word(&self, offset: usize) -> u16 {
        // SAFETY: `offset` is that of flags or used_event, both u16 inside the available ring.
        let word = unsafe { AtomicU16::from_ptr(self.avail.as_ptr().add(offset).cast()) };
        u16::from_le(word.load(Ordering::Relaxed))
    }

    fn used_word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `offset` is that of flags or idx, both u16 inside the used ring; an atomic may be shared with anybody.
        unsafe { AtomicU16::from_ptr(self.used.as_ptr().add(offset).cast()) }
    }
}

//! The mbuf: one packet, owned.
#![expect(unsafe_code, reason = "an owned handle on raw packet memory")]
// UNSAFETY: an `Mbuf` owns its `Meta` and buffer (shared ones: read-only until alone again), its chained segments, and
// nothing of its tail. `data_off + data_len <= buf_len` always.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::layout::{Body, Meta, MetaPtr};
use crate::room::Room;
use crate::{Mempool, NoMbufs, Offload, TailSegment};

/// One packet. Its first bytes lie in its own memory ([`data`](Self::data)), more may lie in chained segments
/// ([`segments`](Self::segments)), the last ones in foreign memory that is readable during `'t` ([`tail`](Self::tail)).
/// Dropping it gives its memory back to the pool.
#[repr(transparent)]
pub struct Mbuf<'t> {
    raw: MetaPtr,
    _tail: PhantomData<&'t [TailSegment<'t>]>,
}

// SAFETY: all that it owns moves with it; the tail segments are addresses that any thread may copy from during 't.
unsafe impl Send for Mbuf<'_> {}

impl core::fmt::Debug for Mbuf<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.len()).field("port", &self.port()).finish_non_exhaustive()
    }
}

impl<'t> Mbuf<'t> {
    #[inline]
    pub(crate) fn into_raw(self) -> MetaPtr {
        ManuallyDrop::new(self).raw
    }

    /// # Safety
    /// The mbuf is out of its pool and the caller owns it.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: MetaPtr) -> Self {
        Self { raw, _tail: PhantomData }
    }

    #[inline]
    fn meta(&self) -> &Meta {
        // SAFETY: owned; sharers only read.
        unsafe { self.raw.meta() }
    }

    #[inline]
    fn body(&self) -> &Body {
        &self.meta().body
    }

    #[inline]
    fn body_mut(&mut self) -> &mut Body {
        assert!(self.is_unique(), "a shared mbuf is read-only");
        // SAFETY: owned, and by this handle alone.
        unsafe { self.raw.body_mut() }
    }

    /// Bytes of the buffer from where the data starts.
    #[inline]
    fn room_from_start(&self) -> usize {
        let m = self.body();
        usize::from(m.buf_len) - usize::from(m.data_off)
    }

    /// Bytes of the whole packet.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a packet of no bytes is none")]
    pub fn len(&self) -> usize {
        self.body().pkt_len as usize
    }

    /// The port it came in by.
    #[inline]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.body().port
    }

    /// Notes the port it came in by.
    ///
    /// # Panics
    /// If the packet is shared.
    #[inline]
    pub fn set_port(&mut self, port: u16) {
        self.body_mut().port = port;
    }

    /// What is owed to it.
    #[inline]
    #[must_use]
    pub fn offload(&self) -> &Offload {
        &self.body().offload
    }

    /// Sets what is owed to it.
    ///
    /// # Panics
    /// If the packet is shared: [`unshare`](Self::unshare) it first.
    #[inline]
    pub fn set_offload(&mut self, offload: Offload) {
        self.body_mut().offload = offload;
    }

    /// The pool it goes back to.
    #[inline]
    #[must_use]
    pub fn pool(&self) -> &'static Mempool {
        self.body().pool
    }

    /// The bytes of the first segment. In a packet from a guest that is at least the first 128 bytes of the frame, or all
    /// of it if it is shorter: a private copy that nobody else can change.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let m = self.body();
        // SAFETY: data_off + data_len <= buf_len, in memory that this handle owns (or shares read-only).
        unsafe { core::slice::from_raw_parts(self.raw.buf().add(m.data_off as usize), m.data_len as usize) }
    }

    /// The same, to change. `None` if it is shared: [`unshare`](Self::unshare) it first.
    #[inline]
    pub fn data_mut(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        let m = self.body_mut();
        let (off, len) = (m.data_off as usize, m.data_len as usize);
        // SAFETY: as `data`, and unique.
        Some(unsafe { core::slice::from_raw_parts_mut(self.raw.buf().add(off), len) })
    }

    /// Bytes free in front of the first segment's data.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.body().data_off as usize
    }

    /// Bytes free behind the first segment's data.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.room_from_start() - self.body().data_len as usize
    }

    /// Puts `n` bytes in front of the data and returns them to be written (their content is whatever stood there).
    /// `None` if the headroom is smaller or the packet is shared.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.headroom() || !self.is_unique() {
            return None;
        }
        let m = self.body_mut();
        m.data_off -= n as u16;
        m.data_len += n as u32;
        m.pkt_len += n as u32;
        self.data_mut().map(|d| &mut d[..n])
    }

    /// Takes the first `n` bytes off. False, and nothing done, if the first segment has fewer or the packet is shared.
    #[inline]
    pub fn trim_front(&mut self, n: usize) -> bool {
        if n > self.body().data_len as usize || !self.is_unique() {
            return false;
        }
        let m = self.body_mut();
        m.data_off += n as u16;
        m.data_len -= n as u32;
        m.pkt_len -= n as u32;
        true
    }

    /// Puts `n` bytes behind the first segment's data and returns them to be written (their content is whatever stood
    /// there). `None` if the room is smaller, or the packet is shared, chained or has a tail.
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.tailroom()
            || !self.is_unique()
            || self.body().next.is_some()
            || self.body().tail_count != 0
        {
            return None;
        }
        let m = self.body_mut();
        let old = m.data_len as usize;
        m.data_len += n as u32;
        m.pkt_len += n as u32;
        self.data_mut().map(|d| &mut d[old..])
    }

    /// The free bytes around the data of a fresh (empty, unshared) mbuf: pointer to the place where data starts, and the
    /// bytes that fit from there. For receive halves that write with raw copies; [`set_filled`](Self::set_filled) follows.
    #[inline]
    pub fn spare(&mut self) -> (NonNull<u8>, usize) {
        assert!(self.is_unique(), "a shared mbuf is read-only");
        (self.data_start(), self.room_from_start())
    }

    /// The same as one value, for receive halves that fill many: looked at once, filled once.
    ///
    /// # Panics
    /// If the packet is shared.
    #[inline(always)]
    pub fn room(&mut self) -> Room<'_> {
        let start = self.data_start();
        Room::new(self.body_mut(), start)
    }

    /// Declares the first `skip` bytes of what was written at [`spare`](Self::spare) to be headroom and the next `len`
    /// bytes to be the packet's data so far.
    ///
    /// # Panics
    /// If `skip + len` is more than there was room for: a bug of the caller, not of a peer.
    #[inline]
    pub fn set_filled(&mut self, skip: usize, len: usize) {
        let room = self.room_from_start();
        let m = self.body_mut();
        assert!(skip <= room && len <= room - skip, "{skip} + {len} bytes in {room}");
        m.data_off += skip as u16;
        m.data_len = len as u32;
        m.pkt_len = len as u32;
    }

    /// Declares what a device wrote into a fresh mbuf to be a packet of `len` bytes that came in by `port`: in one go what
    /// [`set_filled`](Self::set_filled), [`set_port`](Self::set_port) and [`set_offload`](Self::set_offload) do.
    ///
    /// # Panics
    /// If `len` is more than there was room for, or the mbuf is shared: a bug of the caller, not of a device.
    #[inline(always)]
    pub fn set_received(&mut self, len: usize, port: u16, offload: Offload) {
        let room = self.room_from_start();
        let m = self.body_mut();
        assert!(len <= room, "{len} bytes in {room}");
        m.data_len = len as u32;
        m.pkt_len = len as u32;
        m.port = port;
        m.offload = offload;
    }

    /// Where the first segment's data starts, for transmit halves that copy with raw copies.
    #[inline]
    #[must_use]
    pub fn data_start(&self) -> NonNull<u8> {
        let m = self.body();
        // SAFETY: data_off <= buf_len: inside the buffer or one past its end.
        unsafe { NonNull::new_unchecked(self.raw.buf().add(m.data_off as usize)) }
    }

    /// The segments of the packet that lie in its own memory, first to last.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.raw), _packet: PhantomData }
    }

    /// How many segments [`segments`](Self::segments) gives.
    #[inline]
    #[must_use]
    pub fn segment_count(&self) -> usize {
        if self.body().next.is_none() { 1 } else { self.segments().count() }
    }

    /// Hangs `more` behind this packet's last segment. Gives it back if either is shared or has a tail, or if the packet
    /// would reach 2³² bytes.
    ///
    /// # Errors
    /// The packet that could not be hung on.
    pub fn chain(&mut self, more: Mbuf<'static>) -> Result<(), Mbuf<'static>> {
        if !self.is_unique() || !more.is_unique() || self.has_tail() || more.has_tail() {
            return Err(more);
        }
        let Some(pkt_len) = self.body().pkt_len.checked_add(more.body().pkt_len) else { return Err(more) };
        let mut last = self.raw;
        // SAFETY: each `next` is a segment that this packet owns alone.
        unsafe {
            while let Some(next) = last.body_mut().next {
                last = next;
            }
            last.body_mut().next = Some(more.into_raw());
        }
        self.body_mut().pkt_len = pkt_len;
        Ok(())
    }

    /// Takes a chain apart: the first segment as a packet of its own, and the rest as another; none if there is no chain.
    /// For transmit halves whose receiver names each segment by itself. A packet that is shared or has a tail comes back
    /// whole.
    pub fn unchain(mut self) -> (Self, Option<Mbuf<'static>>) {
        if !self.is_unique() || self.has_tail() {
            return (self, None);
        }
        let m = self.body_mut();
        let rest_len = m.pkt_len - m.data_len;
        let Some(rest) = m.next.take() else { return (self, None) };
        m.pkt_len = m.data_len;
        // SAFETY: the packet owned this segment alone, and has just let go of it.
        let mut rest = unsafe { Mbuf::from_raw(rest) };
        rest.body_mut().pkt_len = rest_len;
        (self, Some(rest))
    }

    /// The foreign memory that ends the packet.
    #[inline]
    #[must_use]
    pub fn tail(&self) -> &'t [TailSegment<'t>] {
        let m = self.body();
        if m.tail_count == 0 {
            return &[];
        }
        // SAFETY: set by `set_tail` from a slice that lives for 't.
        unsafe { core::slice::from_raw_parts(m.tail.cast(), m.tail_count as usize) }
    }

    /// Whether some bytes lie in foreign memory.
    #[inline]
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.body().tail_count != 0
    }

    /// Ends the packet with foreign memory. False, and nothing done, if it is shared or has a tail, or if its length
    /// would reach 2³² or the number of segments 65,536.
    #[inline]
    pub fn set_tail(&mut self, tail: &'t [TailSegment<'t>]) -> bool {
        let bytes: usize = tail.iter().map(TailSegment::len).sum();
        let m = self.body();
        let (Ok(count), Some(len)) =
            (u16::try_from(tail.len()), u32::try_from(bytes).ok().and_then(|b| m.pkt_len.checked_add(b)))
        else {
            return false;
        };
        if !self.is_unique() || self.has_tail() {
            return false;
        }
        let m = self.body_mut();
        m.tail = tail.as_ptr().cast();
        m.tail_count = count;
        m.pkt_len = len;
        true
    }

    /// Copies the packet's bytes from `offset` on into `dst`, wherever they lie; returns how many there were.
    pub fn copy_to(&self, mut offset: usize, dst: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments() {
            if let Some(from) = segment.get(offset..) {
                let n = from.len().min(dst.len() - done);
                dst[done..done + n].copy_from_slice(&from[..n]);
                done += n;
                offset = 0;
            } else {
                offset -= segment.len();
            }
        }
        for segment in self.tail() {
            if offset >= segment.len() {
                offset -= segment.len();
                continue;
            }
            done += segment.copy_to(offset, &mut dst[done..]);
            offset = 0;
        }
        done
    }

    /// Whether this handle is the only one on the packet.
    #[inline]
    #[must_use]
    pub fn is_unique(&self) -> bool {
        // ORDERING: M1 Acquire, pairs with M2: what another sharer read, it read before we write.
        self.meta().refcnt.load(Ordering::Acquire) == 1
    }

    /// Another handle on the same packet, for a flood. Both are read-only until one of them is gone.
    #[inline]
    #[must_use]
    pub fn share(&self) -> Self {
        let old = self.meta().refcnt.fetch_add(1, Ordering::Relaxed);
        assert!(old < u16::MAX / 2, "an mbuf has more sharers than ports can exist");
        Self { raw: self.raw, _tail: PhantomData }
    }

    /// Says that a queue is about to hold the packet, by this handle or by one that shares it; whether it is the first. To count
    /// what the queues of a source hold, of a flood's packet once: it takes mbufs from the first queue that it enters to the last
    /// that it [leaves](Self::leave_queue). A packet to be shared is [unqueued](Self::set_unqueued) first.
    #[inline]
    pub fn enter_queue(&self) -> bool {
        let queued = &self.meta().queued;
        if self.is_unique() {
            queued.store(1, Ordering::Relaxed);
            return true;
        }
        queued.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Says that a queue holds the packet no more, for each [`enter_queue`](Self::enter_queue) once; whether it was the last.
    #[inline]
    pub fn leave_queue(&self) -> bool {
        let queued = &self.meta().queued;
        // Without another handle nobody enters or leaves meanwhile.
        if self.is_unique() {
            queued.store(0, Ordering::Relaxed);
            return true;
        }
        queued.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Says that no queue holds the packet, before it is shared for the first time. What is shared already stays as it is.
    #[inline]
    pub fn set_unqueued(&mut self) {
        if self.is_unique() {
            self.meta().queued.store(0, Ordering::Relaxed);
        }
    }

    /// A packet of the same bytes that may be changed: itself, or a copy if it is shared.
    ///
    /// # Errors
    /// [`NoMbufs`]; the packet is dropped then.
    pub fn unshare(self) -> Result<Self, NoMbufs> {
        if self.is_unique() { Ok(self) } else { self.duplicate().map(|m| m as Mbuf<'t>) }
    }

    /// A packet that owns all its bytes and may go anywhere: itself if it has no tail, or else with the tail copied into
    /// chained mbufs of its own pool.
    ///
    /// # Errors
    /// [`NoMbufs`]; the packet is dropped then.
    pub fn own(self) -> Result<Mbuf<'static>, NoMbufs> {
        if !self.has_tail() {
            let raw = self.into_raw();
            // SAFETY: owned, and without a tail there is nothing that 't bounds.
            return Ok(unsafe { Mbuf::from_raw(raw) });
        }
        self.duplicate()
    }

    /// A copy of the whole packet, in fresh mbufs of its pool that are [spare](Mempool::alloc_spare).
    ///
    /// # Errors
    /// [`NoMbufs`].
    pub fn duplicate(&self) -> Result<Mbuf<'static>, NoMbufs> {
        let owner = self.meta().owner.load(Ordering::Relaxed);
        let mut head: Option<Mbuf<'static>> = None;
        let mut at = 0;
        while at < self.len() || head.is_none() {
            let mut part = self.pool().alloc_spare(owner)?;
            let want = (self.len() - at).min(part.tailroom());
            let room = part.append(want).ok_or(NoMbufs)?;
            let n = self.copy_to(at, room);
            debug_assert_eq!(n, want, "pkt_len is the sum of all parts");
            at += want;
            match &mut head {
                None => head = Some(part),
                Some(h) => h.chain(part).map_err(|_| NoMbufs)?,
            }
        }
        let mut copy = head.ok_or(NoMbufs)?;
        let (offload, port) = (*self.offload(), self.port());
        copy.set_offload(offload);
        copy.set_port(port);
        Ok(copy)
    }

    /// Gives many packets back at once, at most [`MAX_BURST`](crate::MAX_BURST).
    ///
    /// # Safety
    /// The caller owns them, and forgets them.
    #[inline]
    pub(crate) unsafe fn free_all(mbufs: &[MetaPtr]) {
        let Some(first) = mbufs.first() else { return };
        // SAFETY: owned by contract.
        let pool = unsafe { first.meta() }.body.pool;
        let mut odd = 0;
        for m in mbufs {
            // SAFETY: owned by contract.
            let Meta { body, refcnt, .. } = unsafe { m.meta() };
            odd |= core::ptr::from_ref(body.pool).addr() ^ core::ptr::from_ref(pool).addr();
            odd |= body.next.map_or(0, |next| next.0.addr().get());
            // ORDERING: M1 Acquire, pairs with M2, as in `is_unique`.
            odd |= usize::from(refcnt.load(Ordering::Acquire) ^ 1);
        }
        if odd == 0 {
            // SAFETY: all of this pool, unshared, unchained, owned by contract.
            unsafe { pool.put(mbufs) };
        } else {
            // SAFETY: by contract.
            unsafe { Self::free_each(mbufs) };
        }
    }

    /// # Safety
    /// As for `free_all`.
    #[cold]
    unsafe fn free_each(mbufs: &[MetaPtr]) {
        for m in mbufs {
            // SAFETY: owned by contract, one at a time.
            drop(unsafe { Mbuf::from_raw(*m) });
        }
    }
}

impl Drop for Mbuf<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_unique() {
            let refcnt = &self.meta().refcnt;
            // ORDERING: M2 Release, pairs with M1 and with the Acquire of whoever is last here: reads through this handle
            // are done before the packet is changed or gone.
            if refcnt.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            refcnt.store(1, Ordering::Relaxed);
        }
        let mut at = Some(self.raw);
        while let Some(segment) = at {
            // SAFETY: the last handle owns all segments; each is unlinked before it goes back.
            unsafe {
                let body = segment.body_mut();
                at = body.next.take();
                body.pool.put(&[segment]);
            }
        }
    }
}

/// The owned segments of a packet.
#[derive(Debug, Clone)]
pub struct Segments<'m> {
    next: Option<MetaPtr>,
    _packet: PhantomData<&'m [u8]>,
}

impl<'m> Iterator for Segments<'m> {
    type Item = &'m [u8];
    #[inline]
    fn next(&mut self) -> Option<&'m [u8]> {
        // SAFETY: the packet owns its segments and is borrowed for 'm; data lies inside each one's buffer.
        unsafe {
            let at = self.next?;
            let m = &at.meta().body;
            self.next = m.next;
            Some(core::slice::from_raw_parts(at.buf().add(m.data_off as usize), m.data_len as usize))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Burst, Checksum, MempoolConfig, PageSize, ZoneConfig};

    fn pool(mbufs: usize) -> &'static Mempool {
        let zone = ZoneConfig { pages: PageSize::Small4K, ..ZoneConfig::default() };
        Mempool::new(&MempoolConfig { mbufs, data_room: 64, cache: 0, zone }).unwrap()
    }

    fn tail(bytes: &'static [u8]) -> [TailSegment<'static>; 1] {
        // SAFETY: readable for ever.
        [unsafe { TailSegment::new(NonNull::from(bytes).cast(), bytes.len() as u32) }]
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_detected_in_debug_builds() {
        let raw = pool(1).alloc(1).unwrap().into_raw();
        // SAFETY: the first is right, the second is the bug that the test is about; it changes nothing before it panics.
        unsafe {
            drop(Mbuf::from_raw(raw));
            drop(Mbuf::from_raw(raw));
        }
    }

    #[test]
    fn a_shared_packet_is_read_only_until_it_is_alone() {
        let pool = pool(2);
        let mut a = pool.alloc(1).unwrap();
        a.append(4).unwrap().copy_from_slice(b"abcd");
        let b = a.share();
        assert!(
            a.data_mut().is_none() && a.append(1).is_none() && a.prepend(1).is_none() && !a.trim_front(1)
        );
        assert!(a.chain(pool.alloc(1).unwrap()).is_err());
        drop(b);
        a.data_mut().unwrap()[0] = b'x';
        assert_eq!(a.data(), b"xbcd");
        drop(a);
        assert_eq!(pool.balance().free, 2);
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn setting_a_shared_packets_port_is_a_bug() {
        let mut a = pool(1).alloc(1).unwrap();
        let _b = a.share();
        a.set_port(1);
    }

    #[test]
    fn unsharing_copies_what_others_still_see() {
        let pool = pool(4);
        let mut a = pool.alloc(7).unwrap();
        a.append(4).unwrap().copy_from_slice(b"abcd");
        a.set_port(3);
        let mut owed = Offload::NONE;
        (owed.checksum, owed.csum_start, owed.csum_offset) = (Checksum::Partial, 34, 16);
        a.set_offload(owed);
        let mut b = a.share().unshare().unwrap();
        b.data_mut().unwrap()[0] = b'x';
        assert_eq!((a.data(), b.data(), b.port(), b.offload()), (&b"abcd"[..], &b"xbcd"[..], 3, a.offload()));
        assert_eq!(pool.balance().out_by_owner, [(7, 2)]);
        let at = a.data_start();
        assert_eq!(a.unshare().unwrap().data_start(), at, "alone: itself");
    }

    #[test]
    fn owning_a_tail_copies_it_into_as_many_mbufs_as_it_takes() {
        static BYTES: [u8; 300] = [5; 300];
        let (pool, tail) = (pool(4), tail(&BYTES));
        let mut a = pool.alloc(1).unwrap();
        a.append(10).unwrap().fill(4);
        assert!(a.set_tail(&tail) && !a.set_tail(&tail) && a.append(1).is_none());
        assert_eq!((a.len(), a.data().len(), a.segment_count()), (310, 10, 1));
        let owned = a.own().unwrap();
        assert_eq!((owned.len(), owned.segment_count(), owned.has_tail()), (310, 3, false));
        let bytes = owned.segments().collect::<Vec<_>>().concat();
        assert!(bytes[..10].iter().all(|&b| b == 4) && bytes[10..] == BYTES);
        let mut b = pool.alloc(1).unwrap();
        assert!(b.set_tail(&tail));
        assert_eq!(b.own().err(), Some(NoMbufs), "one is left, and three are needed");
        assert_eq!(pool.balance().out, 3, "what was taken for it is back, and so is the packet");
    }

    #[test]
    fn a_chain_comes_apart_into_what_it_was_made_of() {
        let pool = pool(3);
        let mut a = pool.alloc(1).unwrap();
        for bytes in [&b"abc"[..], b"de", b"f"] {
            let mut m = pool.alloc(1).unwrap_or_else(|_| unreachable!("there are three"));
            m.append(bytes.len()).unwrap().copy_from_slice(bytes);
            if bytes == b"abc" { a = m } else { a.chain(m).unwrap() }
        }
        assert_eq!(a.len(), 6);
        let (a, rest) = a.unchain();
        let (b, rest) = rest.unwrap().unchain();
        let (c, rest) = rest.unwrap().unchain();
        assert!(rest.is_none());
        assert_eq!([a.len(), b.len(), c.len()], [3, 2, 1]);
        assert_eq!([a.data(), b.data(), c.data()], [&b"abc"[..], b"de", b"f"]);
        assert_eq!([a.segment_count(), b.segment_count()], [1, 1]);
        let shared = a.share();
        assert!(a.unchain().1.is_none());
        drop((shared, b, c));
        assert_eq!(pool.balance().free, 3);
    }

    #[test]
    fn an_empty_packet_can_be_copied() {
        let a = pool(2).alloc(1).unwrap();
        assert_eq!(a.duplicate().unwrap().len(), 0);
    }

    #[test]
    fn what_a_receive_half_wrote_becomes_the_data() {
        let mut a = pool(1).alloc(1).unwrap();
        let (at, room) = a.spare();
        assert_eq!((at, room), (a.data_start(), a.tailroom()));
        // SAFETY: 22 bytes of the spare room.
        unsafe { at.as_ptr().write_bytes(6, 22) };
        a.set_filled(12, 10);
        assert_eq!((a.data(), a.headroom(), a.tailroom()), (&[6; 10][..], crate::HEADROOM + 12, room - 22));
    }

    #[test]
    #[should_panic(expected = "bytes in")]
    fn filling_more_than_there_is_room_for_is_a_bug() {
        pool(1).alloc(1).unwrap().set_filled(usize::MAX, 2);
    }

    #[test]
    fn what_a_device_wrote_is_a_packet() {
        let mut a = pool(1).alloc(1).unwrap();
        let room = a.tailroom();
        let mut good = Offload::NONE;
        good.checksum = Checksum::Valid;
        a.set_received(room, 5, good);
        assert_eq!((a.len(), a.data().len(), a.port(), a.tailroom()), (room, room, 5, 0));
        assert_eq!((a.offload(), a.headroom()), (&good, crate::HEADROOM));
    }

    #[test]
    #[should_panic(expected = "bytes in")]
    fn a_device_writes_no_more_than_there_is_room_for() {
        let mut a = pool(1).alloc(1).unwrap();
        let room = a.tailroom();
        a.set_received(room + 1, 5, Offload::NONE);
    }

    #[test]
    fn a_packet_in_many_queues_is_in_them_from_the_first_to_the_last() {
        let mut a = pool(1).alloc(1).unwrap();
        assert!(a.enter_queue() && a.leave_queue() && a.enter_queue() && a.leave_queue(), "alone");
        a.set_unqueued();
        let (b, c) = (a.share(), a.share());
        assert!(a.enter_queue() && !b.enter_queue());
        assert!(!a.leave_queue());
        assert!(!c.enter_queue());
        drop(a);
        assert!(!b.leave_queue());
        drop(b);
        assert!(c.leave_queue(), "the last handle");
        let d = c.share();
        assert!(c.enter_queue() && c.leave_queue() && d.enter_queue(), "out of all, and into one again");
    }

    #[test]
    fn bursts_are_owned_and_joined_whole_or_not_at_all() {
        static BYTES: [u8; 30] = [5; 30];
        let (pool, tail) = (pool(64), tail(&BYTES));
        let burst = |n: usize| {
            let mut burst = Burst::new();
            (0..n).for_each(|_| burst.push(pool.alloc(1).unwrap()).unwrap());
            burst
        };
        let mut owned = burst(20).take_owned().unwrap();
        let mut more = burst(12);
        let last = more[11].data_start();
        assert!(owned.append(&mut more) && more.is_empty());
        assert_eq!((owned.len(), owned[31].data_start()), (32, last));
        assert!(!owned.append(&mut burst(1)) && owned.append(&mut more), "full");
        let mut tailed = burst(2);
        assert!(tailed[1].set_tail(&tail));
        assert!(tailed.take_owned().is_none());
        assert_eq!(tailed.len(), 2);
        drop(tailed);
        assert_eq!(pool.balance().out, 32);
        drop(owned);
        assert_eq!(pool.balance().out, 0);
    }

    #[test]
    fn a_burst_of_all_kinds_goes_back_to_where_each_came_from() {
        let (one, other) = (pool(8), pool(8));
        let mut burst = Burst::new();
        let mut jumbo = one.alloc(1).unwrap();
        jumbo.chain(other.alloc(1).unwrap()).unwrap();
        let flooded = one.alloc(1).unwrap();
        for m in [flooded.share(), jumbo, other.alloc(1).unwrap(), flooded, one.alloc(1).unwrap()] {
            burst.push(m).unwrap();
        }
        assert_eq!((one.balance().out, other.balance().out), (3, 2));
        burst.drop_front(1);
        assert_eq!((burst.len(), one.balance().out), (4, 3), "its twin is still there");
        drop(burst);
        assert_eq!((one.balance().free, other.balance().free), (8, 8));
    }
}

//! The four rings of a socket (the kernel's Documentation/networking/af_xdp.rst, "Rings"): memory that the kernel and we
//! share, a producer and a consumer index in it, and a power of two of entries.
#![expect(unsafe_code, reason = "reads and writes memory that the kernel shares with us")]
// UNSAFETY: a `Shared` keeps its mapping alive, and its three words and its entries were checked to lie inside of it, aligned,
// when it was made. Nobody ever makes a reference to an entry: those are read and written whole, as plain numbers of which
// every bit pattern is a value. What the kernel writes into an index cannot lead outside: it only ever counts, masked.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::{XdpDesc, XdpRingOffset};

/// XDP_RING_NEED_WAKEUP in a ring's flags: the kernel looks at the ring only after a system call.
const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// Memory of a socket's, mapped. It keeps the socket open as well as a descriptor does.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range, reached only by atomics and by the one owner of each end of a ring.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of the socket's, at one of its XDP_PGOFF_ offsets.
    pub(crate) fn of(socket: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a new mapping where the kernel likes; nothing else is replaced.
        let base = unsafe { mmap(core::ptr::null_mut(), len, protection, flags, socket, offset) }?;
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// Memory of nobody's, to try rings on.
    #[cfg(test)]
    pub(crate) fn anonymous(len: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes; nothing else is replaced.
        let base =
            unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, protection, MapFlags::PRIVATE) };
        Self { base: NonNull::new(base.unwrap().cast()).unwrap(), len }
    }

    /// Where `count` values of `T` lie from `offset` on; `None` if they do not, or not aligned.
    fn place<T>(&self, offset: u64, count: u32) -> Option<NonNull<T>> {
        let offset = usize::try_from(offset).ok()?;
        let end = (count as usize).checked_mul(size_of::<T>())?.checked_add(offset)?;
        // SAFETY: the sum is inside the mapping.
        let at = if end <= self.len { unsafe { self.base.add(offset) } } else { return None };
        at.cast::<T>().is_aligned().then(|| at.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole; the rings in it are gone, since each holds it.
        let done = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(done.is_ok(), "munmap of a whole mapping: {done:?}");
    }
}

/// What stands in a ring.
pub(crate) trait Entry: Copy + Send + 'static {}

/// Fill and completion ring: an address in the UMEM.
impl Entry for u64 {}
/// Receive and transmit ring.
impl Entry for XdpDesc {}

const _: () = assert!(size_of::<XdpDesc>() == 16 && align_of::<XdpDesc>() == 8);

/// A ring's memory, as both ends see it.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _memory: Arc<Mapping>,
    _entries: PhantomData<T>,
}

// SAFETY: it holds the mapping, whose words are atomics and whose entries belong to one end at a time.
unsafe impl<T: Entry> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    /// Bytes to map for a ring of `size` entries.
    pub(crate) fn bytes(places: &XdpRingOffset, size: u32) -> usize {
        places.desc as usize + size as usize * size_of::<T>()
    }

    /// The ring of `size` entries, a power of two, in `memory`. `None` if the kernel's offsets make no sense.
    pub(crate) fn new(memory: &Arc<Mapping>, places: &XdpRingOffset, size: u32) -> Option<Self> {
        debug_assert!(size.is_power_of_two());
        Some(Self {
            producer: memory.place(places.producer, 1)?,
            consumer: memory.place(places.consumer, 1)?,
            flags: memory.place(places.flags?, 1)?,
            entries: memory.place(places.desc, size)?,
            size,
            _memory: Arc::clone(memory),
            _entries: PhantomData,
        })
    }

    #[inline(always)]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping that `self` holds.
        unsafe { self.producer.as_ref() }
    }

    #[inline(always)]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> *mut T {
        // SAFETY: the mask keeps it below `size`, and so many entries lie in the mapping.
        unsafe { self.entries.as_ptr().add((index & (self.size - 1)) as usize) }
    }
}

/// Our end of a ring that the kernel takes from: fill and transmit.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Shared<T>,
    /// Our index: what it will be once published.
    own: u32,
    /// The kernel's, when last looked at.
    other: u32,
}

impl<T: Entry> Producer<T> {
    pub(crate) fn new(ring: Shared<T>) -> Self {
        let own = ring.producer().load(Ordering::Relaxed);
        let other = ring.consumer().load(Ordering::Relaxed);
        Self { ring, own, other }
    }

    /// Entries that can be put in now. Looks at the kernel's index only if there were fewer than `want` by the last look.
    #[inline]
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        let size = self.ring.size;
        if size - self.in_use() < want {
            // ORDERING: X1 Acquire, pairs with the kernel's release of its consumer index (D in its net/xdp/xsk_queue.h): what it
            // has taken it has read, before we write over it.
            self.other = self.ring.consumer().load(Ordering::Acquire);
        }
        size - self.in_use()
    }

    /// Entries that the kernel has not taken, by the last look.
    #[inline]
    fn in_use(&self) -> u32 {
        self.own.wrapping_sub(self.other).min(self.ring.size)
    }

    /// Entries that the kernel has not taken by now.
    pub(crate) fn pending(&mut self) -> u32 {
        // Looks, because no ring has so much room.
        self.ring.size - self.room(u32::MAX)
    }

    /// Puts one in; there is room for it. The kernel sees it after [`publish`](Self::publish).
    #[inline]
    pub(crate) fn put(&mut self, entry: T) {
        debug_assert!(self.in_use() < self.ring.size, "the caller asked for room");
        // SAFETY: a place in the mapping, which the kernel reads only once it is published.
        unsafe { self.ring.entry(self.own).write_volatile(entry) };
        self.own = self.own.wrapping_add(1);
    }

    /// Shows the kernel all that was put in.
    #[inline]
    pub(crate) fn publish(&self) {
        // ORDERING: X2 Release, pairs with the kernel's acquire of the producer index (C): the entries are there before it.
        self.ring.producer().store(self.own, Ordering::Release);
    }

    /// Whether the kernel has to be told by a system call that something was published.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        // ORDERING: X3 full fence, between our producer index and the kernel's flag; pairs with the kernel's look at the producer
        // index after it has set the flag: one of the two sees the other.
        fence(Ordering::SeqCst);
        // SAFETY: inside the mapping that the ring holds.
        unsafe { self.ring.flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// Our end of a ring that the kernel puts into: receive and completion.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Shared<T>,
    /// Our index: what it will be once released.
    own: u32,
    /// The kernel's, when last looked at.
    other: u32,
}

impl<T: Entry> Consumer<T> {
    pub(crate) fn new(ring: Shared<T>) -> Self {
        let own = ring.consumer().load(Ordering::Relaxed);
        let other = ring.producer().load(Ordering::Relaxed);
        Self { ring, own, other }
    }

    /// Entries that are there now.
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        // ORDERING: X4 Acquire, pairs with the kernel's release of its producer index (B): the entries, and the frames that they
        // name, are there before it.
        self.other = self.ring.producer().load(Ordering::Acquire);
        self.other.wrapping_sub(self.own).min(self.ring.size)
    }

    /// Takes one out; one is there. The kernel has its place back after [`release`](Self::release).
    #[inline]
    pub(crate) fn take(&mut self) -> T {
        debug_assert!(self.other != self.own, "the caller asked how many there are");
        // SAFETY: a place in the mapping, which the kernel writes only once it was released; any bits are a value.
        let entry = unsafe { self.ring.entry(self.own).read_volatile() };
        self.own = self.own.wrapping_add(1);
        entry
    }

    /// Gives the kernel back the places of all that was taken out.
    #[inline]
    pub(crate) fn release(&self) {
        // ORDERING: X5 Release, pairs with the kernel's acquire of the consumer index (A): the entries were read before.
        self.ring.consumer().store(self.own, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, flags: Some(128), desc: 192 };
    const SIZE: u32 = 8;

    /// Both ends of one ring whose indices stand at `start`.
    fn both_ends(start: u32) -> (Producer<u64>, Consumer<u64>) {
        let memory = Arc::new(Mapping::anonymous(Shared::<u64>::bytes(&PLACES, SIZE)));
        let ring = || Shared::<u64>::new(&memory, &PLACES, SIZE).unwrap();
        ring().producer().store(start, Ordering::Relaxed);
        ring().consumer().store(start, Ordering::Relaxed);
        (Producer::new(ring()), Consumer::new(ring()))
    }

    #[test]
    fn what_goes_in_comes_out_in_order_also_where_the_indices_wrap() {
        for start in [0, 5, u32::MAX - 2] {
            let (mut ours, mut theirs) = both_ends(start);
            for round in 0..5u64 {
                assert_eq!(ours.room(SIZE), SIZE);
                (0..6).for_each(|i| ours.put(round * 10 + i));
                assert_eq!(theirs.available(), 0, "not published");
                ours.publish();
                assert_eq!((theirs.available(), ours.room(1), ours.pending()), (6, 2, 6));
                let out: Vec<_> = (0..6).map(|_| theirs.take()).collect();
                assert_eq!(out, (0..6).map(|i| round * 10 + i).collect::<Vec<_>>());
                assert_eq!(ours.room(SIZE), 2, "not released");
                theirs.release();
            }
            assert_eq!(ours.pending(), 0);
        }
    }

    #[test]
    fn an_index_that_makes_no_sense_leads_nowhere() {
        let (mut ours, mut theirs) = both_ends(0);
        ours.ring.consumer().store(0x8000_0000, Ordering::Relaxed);
        assert_eq!((ours.pending(), ours.room(1)), (SIZE, 0));
        theirs.ring.producer().store(0x8000_0000, Ordering::Relaxed);
        assert_eq!(theirs.available(), SIZE);
        assert_eq!((0..SIZE).map(|_| theirs.take()).sum::<u64>(), 0);
    }

    #[test]
    fn the_kernel_asks_to_be_woken_by_the_lowest_flag() {
        let (ours, _) = both_ends(0);
        // SAFETY: inside the mapping that the ring holds.
        let flags = unsafe { ours.ring.flags.as_ref() };
        for (bits, asked) in [(0, false), (1, true), (2, false), (3, true)] {
            flags.store(bits, Ordering::Relaxed);
            assert_eq!(ours.needs_wakeup(), asked);
        }
    }

    #[test]
    fn offsets_outside_of_the_memory_are_refused() {
        let memory = Arc::new(Mapping::anonymous(4096));
        for places in [
            XdpRingOffset { desc: 4096 - 56, ..PLACES },
            XdpRingOffset { producer: u64::MAX, ..PLACES },
            XdpRingOffset { consumer: 3, ..PLACES },
            XdpRingOffset { flags: None, ..PLACES },
        ] {
            assert!(Shared::<u64>::new(&memory, &places, SIZE).is_none(), "{places:?}");
        }
    }
}

//! The bare loop: ring entries and bytes, by raw pointers.
#![expect(
    unsafe_code,
    reason = "reads and writes guests' memory without the checks whose price it is there to show"
)]
#![expect(
    clippy::cast_ptr_alignment,
    reason = "a ring that a guest has set up is aligned, as virtio 1.3 §2.7 demands"
)]
// UNSAFETY: nothing that a guest says is checked: an index, an address or a length that is wrong is followed wherever it leads.
// That is what this program measures, and why nothing but `perf`'s own guests may be its guests: they post one descriptor a
// frame, in one region of memory, never longer than the receiver's buffers, and keep their rings sound. The other end writes
// while this one reads: ring words are atomics; the bytes of a frame belong to the side that the ring's index says.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use virtio_queue::{Queue, QueueT};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryLoadGuard,
    GuestMemoryMmap, GuestMemoryRegion,
};

/// Most frames at once.
pub(crate) const MAX_BURST: usize = 256;
/// Room for a frame between two copies.
const ROOM: usize = 9216 + 64;
/// Where `num_buffers` stands in the virtio-net header (virtio 1.3 §5.1.6), in words of 16 bits.
const NUM_BUFFERS: usize = 5;

/// A split ring (virtio 1.3 §2.7) as it stands in this process.
pub(crate) struct Ring {
    desc: *const u8,
    avail: *const u8,
    used: *mut u8,
    mask: u16,
    next: u16,
    /// From guest-physical addresses to ours.
    offset: usize,
    /// Keeps it mapped.
    _memory: GuestMemoryLoadGuard<GuestMemoryMmap>,
}

// SAFETY: the pointers go into a mapping that belongs to no thread and lives as long as `_memory`; only the owner uses them.
unsafe impl Send for Ring {}

impl Ring {
    /// The ring that a guest has set up. It asks the guest for no kicks from now on.
    pub(crate) fn new(memory: &GuestMemoryAtomic<GuestMemoryMmap>, queue: &Queue) -> Result<Self, String> {
        let memory = memory.memory();
        if memory.num_regions() != 1 {
            return Err(format!("one region of guest memory is expected, not {}", memory.num_regions()));
        }
        let start = memory.iter().next().map_or(GuestAddress(0), GuestMemoryRegion::start_addr);
        let host = |address| memory.get_host_address(address).map_err(|e| e.to_string());
        let offset = host(start)?.addr().wrapping_sub(start.0 as usize);
        let desc = host(GuestAddress(queue.desc_table()))?;
        let avail = host(GuestAddress(queue.avail_ring()))?;
        let used = host(GuestAddress(queue.used_ring()))?;
        let (mask, next) = (queue.size() - 1, queue.next_avail());
        let ring = Self { desc, avail, used, mask, next, offset, _memory: memory };
        // VIRTQ_USED_F_NO_NOTIFY (§2.7.10).
        ring.used_word(0).store(1, Ordering::Relaxed);
        Ok(ring)
    }

    #[inline(always)]
    fn avail_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: the available ring is words of 16 bits, aligned, and `at` one of them.
        unsafe { &*self.avail.cast::<AtomicU16>().add(at) }
    }

    #[inline(always)]
    fn used_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: `at` is 0 or 1: flags and idx, words of 16 bits, aligned.
        unsafe { &*self.used.cast::<AtomicU16>().add(at) }
    }

    /// Buffers that the guest made available and this loop has not taken.
    #[inline(always)]
    fn ready(&self) -> u16 {
        // ORDERING: V1 Acquire, pairs with the driver's D1: entries, descriptors and bytes behind the index are seen.
        self.avail_word(1).load(Ordering::Acquire).wrapping_sub(self.next)
    }

    /// The next buffer's number, address and length.
    #[inline(always)]
    fn take(&self, i: u16) -> (u16, *mut u8, u32) {
        let head =
            self.avail_word(2 + usize::from(self.next.wrapping_add(i) & self.mask)).load(Ordering::Relaxed);
        // SAFETY: a descriptor is two words of 64 bits, aligned to 16; a sound guest names one of its table's.
        let words = unsafe { &*self.desc.cast::<[AtomicU64; 2]>().add(head.into()) };
        let (address, rest) = (words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed));
        let address = self.offset.wrapping_add(address as usize);
        (head, self.used.with_addr(address), rest as u32)
    }

    /// Writes a used entry.
    #[inline(always)]
    fn give_back(&self, i: u16, head: u16, len: u32) {
        let at = usize::from(self.next.wrapping_add(i) & self.mask);
        // SAFETY: behind two words of 16 bits the used ring is entries of two words of 32, aligned to 4; `at` is one of them.
        let entry = unsafe { &*self.used.add(4).cast::<[AtomicU32; 2]>().add(at) };
        entry[0].store(head.into(), Ordering::Relaxed);
        entry[1].store(len, Ordering::Relaxed);
    }

    /// Publishes `n` used entries.
    #[inline(always)]
    fn publish(&mut self, n: u16) {
        self.next = self.next.wrapping_add(n);
        // ORDERING: V2 Release, pairs with the driver's D2: who sees the index sees the entries and the bytes behind it.
        self.used_word(1).store(self.next, Ordering::Release);
    }
}

/// A frame on its way.
#[derive(Clone, Copy)]
struct Move {
    from: *const u8,
    to: *mut u8,
    len: u32,
    from_head: u16,
    to_head: u16,
}

/// From one guest's transmit queue to another's receive queue.
pub(crate) struct Way {
    from: Ring,
    to: Ring,
    moves: Vec<Move>,
    /// Where frames lie between two copies.
    between: Option<Box<[[u8; ROOM]]>>,
}

impl Way {
    pub(crate) fn new(from: Ring, to: Ring, copies: u8) -> Self {
        let between = (copies == 2).then(|| vec![[0; ROOM]; MAX_BURST].into_boxed_slice());
        Self { from, to, moves: Vec::with_capacity(MAX_BURST), between }
    }

    /// Moves what is there and has room, `burst` frames at most.
    pub(crate) fn turn(&mut self, burst: usize) {
        let n = self.from.ready().min(self.to.ready()).min(burst as u16);
        if n == 0 {
            return;
        }
        self.moves.clear();
        for i in 0..n {
            let (from_head, from, len) = self.from.take(i);
            let (to_head, to, _) = self.to.take(i);
            prefetch(from);
            self.moves.push(Move { from, to, len, from_head, to_head });
        }
        self.copy();
        for (i, one) in (0..n).zip(&self.moves) {
            self.from.give_back(i, one.from_head, 0);
            self.to.give_back(i, one.to_head, one.len);
        }
        self.from.publish(n);
        self.to.publish(n);
    }

    #[inline(always)]
    fn copy(&mut self) {
        let Some(between) = &mut self.between else {
            // SAFETY: as the head note says, both ends have `len` bytes, and these frames are this side's now.
            self.moves.iter().for_each(|one| unsafe { deliver(one.from, one.to, one.len as usize) });
            return;
        };
        for (one, room) in self.moves.iter().zip(between.iter_mut()) {
            // SAFETY: as above; `ROOM` is more than `perf`'s longest frame and its header.
            unsafe { copy(one.from, room.as_mut_ptr(), one.len as usize) };
        }
        for (one, room) in self.moves.iter().zip(between.iter()) {
            // SAFETY: as above.
            unsafe { deliver(room.as_ptr(), one.to, one.len as usize) };
        }
    }
}

/// Copies header and frame, and says in the header that this buffer holds all of it (§5.1.6.4).
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`, 12 at least; `to` is aligned to 2.
#[inline(always)]
unsafe fn deliver(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as required; the word of 16 bits at byte 10 is within the header.
    unsafe {
        copy(from, to, len);
        to.cast::<u16>().add(NUM_BUFFERS).write(1);
    }
}

/// Copies: small frames by whole cache lines, the last of which may overlap the one before.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if !(64..=512).contains(&len) {
        // SAFETY: as required; two guests' memory does not overlap.
        unsafe { to.copy_from_nonoverlapping(from, len) };
        return;
    }
    for at in (0..len - 64).step_by(64).chain([len - 64]) {
        // SAFETY: at + 64 <= len.
        unsafe { to.add(at).cast::<[u8; 64]>().copy_from_nonoverlapping(from.add(at).cast(), 1) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that anybody could notice, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    // SAFETY: as above.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64).cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch(_line: *const u8) {}

//! The slots of a ring: where elements lie, and the copies into and out of them.
//!
//! UNSAFETY: a slot is `MaybeUninit` behind an `UnsafeCell` at a raw address, so nothing here knows which
//! slots hold an element or which thread may touch them. The ring's indices know: every method that touches a
//! slot takes an index range and demands that the caller owns it. The other proof obligation, that a slot
//! lies inside the arena, is kept here by masking.
#![expect(unsafe_code, reason = "elements are moved into and out of uninitialised, shared slots")]

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::capacity::{Geometry, RingError};
use crate::sync::UnsafeCell;

type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// What a ring's slots need of an arena: size, and alignment to a cache line at least.
pub(crate) fn layout<T>(geometry: Geometry) -> Result<Layout, RingError> {
    let too_large = RingError::TooLarge { slots: geometry.slots(), element_bytes: size_of::<T>() };
    Layout::array::<Slot<T>>(geometry.slots())
        .and_then(|layout| layout.align_to(align_of::<CachePadded<u8>>()))
        .map_err(|_| too_large)
}

/// The slots, as one of the ring's halves needs them: a copy per half keeps them a load away.
pub(crate) struct Slots<T> {
    base: NonNull<Slot<T>>,
    mask: u32,
}

// SAFETY: `Slots` is an address and a mask. Its methods that touch memory are unsafe and demand that the
// caller owns the slots; an element written by one thread may be taken by another, which is what `T: Send`
// allows.
unsafe impl<T: Send> Send for Slots<T> {}
// SAFETY: as for `Send`; no method gives out a reference to an element, so `T: Sync` is not needed.
unsafe impl<T: Send> Sync for Slots<T> {}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slots<T> {}

impl<T> Slots<T> {
    /// The slot of an index.
    #[inline(always)]
    fn slot(&self, index: u32) -> NonNull<Slot<T>> {
        // SAFETY: the arena has `mask + 1` slots (`Arena`'s invariant) and the masked index is at most
        // `mask`.
        unsafe { self.base.add((index & self.mask) as usize) }
    }

    /// Moves an element into a slot.
    ///
    /// # Safety
    /// The arena lives, no other thread touches the slot of `index`, and it holds no element (one would
    /// leak).
    #[inline(always)]
    pub(crate) unsafe fn write(&self, index: u32, value: T) {
        // SAFETY: `slot` is inside the live arena; the caller owns it.
        unsafe { store(self.slot(index), MaybeUninit::new(value)) }
    }

    /// Moves an element out of a slot.
    ///
    /// # Safety
    /// The arena lives, no other thread touches the slot of `index`, it holds an element, and the caller
    /// treats it as empty from now on.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, index: u32) -> T {
        // SAFETY: `slot` is inside the live arena; the caller owns it and says that it is initialised.
        unsafe { load(self.slot(index)).assume_init() }
    }

    /// Prefetches as many slots as an operation moves, `count` from `index` on, but [`AHEAD`] bytes further on, and up to the
    /// arena's end: it pays this way for a later one's misses. Never more than the `left` slots behind its own that the
    /// caller knows to be its side's: a line that the other side still works on would be torn away from it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, index: u32, count: u32, left: u32, line: impl Fn(*const u8)) {
        let ahead = const { ahead_slots::<T>() };
        if ahead <= left {
            let first = index.wrapping_add(ahead);
            let mut at = self.slot(first).as_ptr().cast::<u8>().cast_const();
            let end = at.wrapping_add(self.before_end(first, count as usize) * size_of::<T>());
            while at < end {
                line(at);
                at = at.wrapping_add(64);
            }
        }
    }

    /// How many of `count` slots from `index` on lie before the arena's end.
    #[inline(always)]
    fn before_end(&self, index: u32, count: usize) -> usize {
        count.min((self.mask - (index & self.mask)) as usize + 1)
    }

    /// Moves `count` elements from `src` into the slots from `index` on, up to `SHORT` bytes without a call.
    ///
    /// # Safety
    /// As [`write`](Self::write) for each of the slots; `count` is at most the number of slots; `src` is
    /// valid for reading `count` elements, which are moved: the caller treats them as moved out unless `T` is
    /// `Copy`.
    #[inline(always)]
    pub(crate) unsafe fn copy_in<const SHORT: usize>(&self, index: u32, src: *const T, count: usize) {
        let first = self.before_end(index, count);
        // SAFETY: the first segment ends at the arena's end or before; `src` has `count >= first` elements.
        unsafe { copy_in::<T, SHORT>(self.slot(index), src, first) };
        if first < count {
            core::hint::cold_path();
            // SAFETY: the rest starts at slot 0 and is shorter than the arena as `count` is at most its
            // slots; `src` has `count - first` elements behind `first`.
            unsafe { copy_in::<T, 0>(self.base, src.add(first), count - first) };
        }
    }

    /// Moves `count` elements out of the slots from `index` on to `dst`, up to `SHORT` bytes without a call.
    ///
    /// # Safety
    /// As [`read`](Self::read) for each of the slots; `count` is at most the number of slots; `dst` is valid
    /// for writing `count` elements and does not lie in the arena.
    #[inline(always)]
    pub(crate) unsafe fn copy_out<const SHORT: usize>(&self, index: u32, dst: *mut T, count: usize) {
        let first = self.before_end(index, count);
        // SAFETY: the first segment ends at the arena's end or before; `dst` has room for `count >= first`.
        unsafe { copy_out::<T, SHORT>(self.slot(index), dst, first) };
        if first < count {
            core::hint::cold_path();
            // SAFETY: the rest starts at slot 0 and is shorter than the arena as `count` is at most its
            // slots; `dst` has room for `count - first` behind `first`.
            unsafe { copy_out::<T, 0>(self.base, dst.add(first), count - first) };
        }
    }

    /// Moves the first `count` elements of `src` into the slots from `index` on; those behind move up.
    ///
    /// # Safety
    /// As [`write`](Self::write) for each of the slots; `count` is at most the number of slots and
    /// `src.len()`.
    #[inline(always)]
    pub(crate) unsafe fn move_in<const SHORT: usize>(&self, index: u32, src: &mut Vec<T>, count: usize) {
        let rest = src.len() - count;
        let start = src.as_mut_ptr();
        // SAFETY: the slots are the caller's promise. The vector's first `count` elements are moved out, the
        // `rest` behind them moved to its start (both inside its length), and the length is set to what it
        // then holds; nothing between can panic.
        unsafe {
            self.copy_in::<SHORT>(index, start, count);
            core::ptr::copy(start.add(count), start, rest);
            src.set_len(rest);
        }
    }

    /// Moves `count` elements out of the slots from `index` on to the end of `dst`.
    ///
    /// # Safety
    /// As [`read`](Self::read) for each of the slots; `count` is at most the number of slots and `dst`'s
    /// spare capacity.
    #[inline(always)]
    pub(crate) unsafe fn move_out<const SHORT: usize>(&self, index: u32, dst: &mut Vec<T>, count: usize) {
        let len = dst.len();
        // SAFETY: the slots are the caller's promise; the spare capacity has room for `count` elements behind
        // `len`, which are initialised before the length covers them.
        unsafe {
            self.copy_out::<SHORT>(index, dst.as_mut_ptr().add(len), count);
            dst.set_len(len + count);
        }
    }

    /// Drops the elements of the slots from `head` up to `tail`.
    ///
    /// # Safety
    /// As [`read`](Self::read) for each of these slots.
    pub(crate) unsafe fn drop_range(&self, head: u32, tail: u32) {
        if core::mem::needs_drop::<T>() {
            for offset in 0..tail.wrapping_sub(head) {
                // SAFETY: the caller's promise, slot by slot; each is read once.
                drop(unsafe { self.read(head.wrapping_add(offset)) });
            }
        }
    }
}

/// How far ahead of an operation its prefetches are, in bytes of slots. With a quarter of it they come too late, with four
/// times as much the lines are in the way until they are needed.
const AHEAD: usize = 1024;

/// [`AHEAD`] in slots; one at least.
const fn ahead_slots<T>() -> u32 {
    let slots = AHEAD.checked_div(size_of::<T>());
    match slots {
        None | Some(0) => 1,
        Some(slots) => slots as u32,
    }
}

/// Owns, or has borrowed, the memory of the slots. Dropping it drops no element.
pub(crate) struct Arena<T> {
    slots: Slots<T>,
    /// What is to be given back to the allocator.
    owned: Option<Layout>,
}

impl<T> Arena<T> {
    /// Slots on the heap.
    pub(crate) fn on_heap(geometry: Geometry) -> Result<Self, RingError> {
        let layout = layout::<T>(geometry)?;
        if layout.size() == 0 {
            // Elements without size need an aligned address and no memory.
            return Ok(Self { slots: Slots { base: NonNull::dangling(), mask: geometry.mask }, owned: None });
        }
        // SAFETY: the size is not 0, as checked above.
        let memory = unsafe { std::alloc::alloc(layout) };
        let memory = NonNull::new(memory).ok_or(RingError::OutOfMemory { bytes: layout.size() })?;
        // SAFETY: just allocated with `layout`, given back in `drop` and not before, known to nobody else.
        let arena = unsafe { Self::at(geometry, memory) };
        Ok(Self { owned: Some(layout), ..arena })
    }

    /// Slots in the caller's memory.
    ///
    /// # Safety
    /// `memory` is valid for reads and writes of `len` bytes for as long as the ring lives, and nobody else
    /// uses it.
    pub(crate) unsafe fn in_memory(
        geometry: Geometry,
        memory: NonNull<u8>,
        len: usize,
    ) -> Result<Self, RingError> {
        let layout = layout::<T>(geometry)?;
        if len < layout.size() {
            return Err(RingError::ArenaTooShort { need: layout.size(), got: len });
        }
        if !memory.addr().get().is_multiple_of(layout.align()) {
            return Err(RingError::ArenaMisaligned { align: layout.align() });
        }
        // SAFETY: size and alignment are checked; the rest is the caller's promise.
        Ok(unsafe { Self::at(geometry, memory) })
    }

    /// # Safety
    /// `memory` has the size and alignment of [`layout`], and is for this ring alone for as long as it lives.
    unsafe fn at(geometry: Geometry, memory: NonNull<u8>) -> Self {
        let base = memory.cast::<Slot<T>>();
        #[cfg(loom)]
        for slot in 0..geometry.slots() {
            // SAFETY: within `layout`, aligned as `Slot<T>`, and nobody else's.
            unsafe { base.add(slot).write(UnsafeCell::new(MaybeUninit::uninit())) };
        }
        Self { slots: Slots { base, mask: geometry.mask }, owned: None }
    }

    /// The slots; valid while this arena lives.
    pub(crate) fn slots(&self) -> Slots<T> {
        self.slots
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        if let Some(layout) = self.owned {
            // SAFETY: `base` came from `alloc` with this layout in `on_heap`, and is given back this once.
            unsafe { std::alloc::dealloc(self.slots.base.cast().as_ptr(), layout) };
        }
    }
}

/// # Safety
/// `slot` is valid and the caller's alone.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn store<T>(slot: NonNull<Slot<T>>, value: MaybeUninit<T>) {
    // SAFETY: valid and unshared by the caller's promise, and aligned as it came from `slot`.
    unsafe { UnsafeCell::raw_get(slot.as_ptr()).write(value) }
}

/// # Safety
/// `slot` is valid and the caller's alone.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn load<T>(slot: NonNull<Slot<T>>) -> MaybeUninit<T> {
    // SAFETY: valid and unshared by the caller's promise, and aligned as it came from `slot`.
    unsafe { UnsafeCell::raw_get(slot.as_ptr()).read() }
}

/// # Safety
/// `slot` and the `count - 1` behind it are valid and the caller's alone; `src` is valid for reading `count`.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn copy_in<T, const SHORT: usize>(slot: NonNull<Slot<T>>, src: *const T, count: usize) {
    // SAFETY: both sides are valid for `count` by the caller's promise. They don't overlap: the slots are the
    // caller's alone, and no reference to a slot leaves this module. `UnsafeCell<MaybeUninit<T>>` has the
    // layout of `T`.
    unsafe { copy_run::<T, SHORT>(src, slot.as_ptr().cast::<T>(), count) }
}

/// # Safety
/// `slot` and the `count - 1` behind it are valid and the caller's alone; `dst` is valid for writing `count`.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn copy_out<T, const SHORT: usize>(slot: NonNull<Slot<T>>, dst: *mut T, count: usize) {
    // SAFETY: as in `copy_in`, with source and target changed over.
    unsafe { copy_run::<T, SHORT>(slot.as_ptr().cast::<T>(), dst, count) }
}

/// Copies a run of up to `SHORT` (at most 128) bytes right here, as a piece from its front and one from its end that may
/// overlap, which costs less than the call of `memcpy`.
///
/// # Safety
/// As [`core::ptr::copy_nonoverlapping`].
#[cfg(not(loom))]
#[inline(always)]
unsafe fn copy_run<T, const SHORT: usize>(src: *const T, dst: *mut T, count: usize) {
    // SAFETY: the caller's promise; both pieces lie inside the run.
    unsafe {
        match count * size_of::<T>() {
            bytes if bytes > SHORT || bytes < 8 => {
                // What the call needs saved is then saved around it alone, not by every short run too.
                core::hint::cold_path();
                core::ptr::copy_nonoverlapping(src, dst, count);
            }
            bytes @ 64.. => copy_ends::<64>(src.cast(), dst.cast(), bytes),
            bytes @ 32.. => copy_ends::<32>(src.cast(), dst.cast(), bytes),
            bytes @ 16.. => copy_ends::<16>(src.cast(), dst.cast(), bytes),
            bytes => copy_ends::<8>(src.cast(), dst.cast(), bytes),
        }
    }
}

/// # Safety
/// As [`core::ptr::copy_nonoverlapping`] for `bytes`, which are `PIECE` to twice as many.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn copy_ends<const PIECE: usize>(src: *const u8, dst: *mut u8, bytes: usize) {
    let second = bytes - PIECE;
    // SAFETY: the caller's promise; both pieces lie inside. `MaybeUninit` takes padding and pointers as they are.
    unsafe {
        let front = src.cast::<[MaybeUninit<u8>; PIECE]>().read();
        let end = src.add(second).cast::<[MaybeUninit<u8>; PIECE]>().read();
        dst.cast::<[MaybeUninit<u8>; PIECE]>().write(front);
        dst.add(second).cast::<[MaybeUninit<u8>; PIECE]>().write(end);
    }
}

/// # Safety
/// `slot` is valid and the caller's alone (loom checks the latter).
#[cfg(loom)]
unsafe fn store<T>(slot: NonNull<Slot<T>>, value: MaybeUninit<T>) {
    // SAFETY: `Arena::at` has made the cell; loom checks that nobody else accesses it now.
    unsafe { slot.as_ref().with_mut(|cell| cell.write(value)) }
}

/// # Safety
/// `slot` is valid and the caller's alone (loom checks the latter).
#[cfg(loom)]
unsafe fn load<T>(slot: NonNull<Slot<T>>) -> MaybeUninit<T> {
    // SAFETY: as in `store`. Mutably, as moving out is a change.
    unsafe { slot.as_ref().with_mut(|cell| cell.read()) }
}

/// # Safety
/// As [`store`] for `count` slots, and `src` is valid for reading as many.
#[cfg(loom)]
unsafe fn copy_in<T, const SHORT: usize>(slot: NonNull<Slot<T>>, src: *const T, count: usize) {
    for i in 0..count {
        // SAFETY: the caller's promise, element by element.
        unsafe { store(slot.add(i), src.add(i).cast::<MaybeUninit<T>>().read()) };
    }
}

/// # Safety
/// As [`load`] for `count` slots, and `dst` is valid for writing as many.
#[cfg(loom)]
unsafe fn copy_out<T, const SHORT: usize>(slot: NonNull<Slot<T>>, dst: *mut T, count: usize) {
    for i in 0..count {
        // SAFETY: the caller's promise, element by element.
        unsafe { dst.add(i).cast::<MaybeUninit<T>>().write(load(slot.add(i))) };
    }
}

//! Memory of somebody else that ends a packet.
#![expect(unsafe_code, reason = "a tail segment names memory that no reference may name")]
// UNSAFETY: one raw pointer with a length. To read by it takes a lifetime, and an unsafe constructor whose caller vouches for the
// memory during it; the copies rely on that.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::foreign;

/// A stretch of foreign memory: readable, and changing under our eyes. Only ever copied from.
///
/// A copy of it does not outlive the memory's stay:
///
/// ```compile_fail,E0499
/// use mbuf::Burst;
///
/// struct Queue;
/// impl Queue {
///     fn rx_burst<'t>(&'t mut self, _: &mut Burst<'t>) {}
///     /// The guest has its memory back.
///     fn complete(&mut self) {}
/// }
///
/// let (mut queue, mut burst) = (Queue, Burst::new());
/// queue.rx_burst(&mut burst);
/// let kept = burst.iter().next().map(|mbuf| mbuf.tail()[0]);
/// drop(burst);
/// queue.complete();
/// kept.map(|kept| kept.copy_to(0, &mut [0; 8]));
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct TailSegment<'t> {
    stretch: Stretch,
    _memory: PhantomData<&'t [u8]>,
}

/// Where foreign memory lies, and how much. Nothing is read by it: it becomes a [`TailSegment`] where somebody vouches for
/// the time in which it is readable.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    start: NonNull<u8>,
    len: u32,
}

// SAFETY: an address and a length, by which no safe code reads.
unsafe impl Send for Stretch {}
// SAFETY: as above.
unsafe impl Sync for Stretch {}

impl Stretch {
    /// An empty one, to fill arrays with.
    pub const EMPTY: Self = Self::new(NonNull::dangling(), 0);

    /// `len` bytes from `start` on.
    #[inline(always)]
    #[must_use]
    pub const fn new(start: NonNull<u8>, len: u32) -> Self {
        Self { start, len }
    }

    /// Length in bytes.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is nothing special")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Where it starts.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl<'t> TailSegment<'t> {
    /// Names `len` bytes from `start` on.
    ///
    /// # Safety
    /// During `'t` the bytes must stay mapped for reading, or be registered with [`foreign`] so that a vanished page is
    /// replaced instead of killing the process.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, len: u32) -> Self {
        Self { stretch: Stretch::new(start, len), _memory: PhantomData }
    }

    /// Vouches for all of `stretches`.
    ///
    /// # Safety
    /// As for [`new`](Self::new), for each of them.
    #[inline(always)]
    #[must_use]
    pub unsafe fn all(stretches: &'t [Stretch]) -> &'t [Self] {
        // SAFETY: the same layout (transparent); that all are readable during 't is the caller's contract.
        unsafe { core::slice::from_raw_parts(stretches.as_ptr().cast(), stretches.len()) }
    }

    /// Length in bytes.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is nothing special")]
    pub fn len(&self) -> usize {
        self.stretch.len()
    }

    /// Where it starts.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.stretch.start()
    }

    /// Copies bytes from `offset` on into `dst`; returns how many there were.
    pub fn copy_to(&self, offset: usize, dst: &mut [u8]) -> usize {
        let n = self.len().saturating_sub(offset).min(dst.len());
        if n > 0 {
            // SAFETY: offset + n <= len, which `new`'s contract makes readable as long as this is; dst is ours and n <= its
            // length.
            unsafe { foreign::copy(dst.as_mut_ptr(), self.start().as_ptr().add(offset), n) };
        }
        n
    }
}

//! Memory of somebody else that ends a packet.
#![expect(unsafe_code, reason = "a tail segment names memory that no reference may name")]
// UNSAFETY: one raw pointer with a length, made by an unsafe constructor whose contract the copies rely on.

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
pub struct TailSegment {
    start: NonNull<u8>,
    len: u32,
}

// SAFETY: it is an address and a length; reading through it is only by `foreign`'s copies, which tolerate any writer.
unsafe impl Send for TailSegment {}
// SAFETY: as above.
unsafe impl Sync for TailSegment {}

impl TailSegment {
    /// An empty segment, to fill arrays with.
    pub const EMPTY: Self = Self { start: NonNull::dangling(), len: 0 };

    /// Names `len` bytes from `start` on.
    ///
    /// # Safety
    /// As long as the segment is used (for an mbuf: its lifetime `'t`) the bytes must stay mapped for reading, or be
    /// registered with [`foreign`] so that a vanished page is replaced instead of killing the process.
    #[must_use]
    pub unsafe fn new(start: NonNull<u8>, len: u32) -> Self {
        Self { start, len }
    }

    /// Length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty one is nothing special")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Where it starts.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Copies bytes from `offset` on into `dst`; returns how many there were.
    pub fn copy_to(&self, offset: usize, dst: &mut [u8]) -> usize {
        let n = self.len().saturating_sub(offset).min(dst.len());
        if n > 0 {
            // SAFETY: offset + n <= len, which `new`'s contract makes readable; dst is ours and n <= its length.
            unsafe { foreign::copy(dst.as_mut_ptr(), self.start.as_ptr().add(offset), n) };
        }
        n
    }
}

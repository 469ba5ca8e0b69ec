//! What a virtqueue of either format is to the rings above it.

use mbuf::Iova;

use super::features::Features;
use crate::bus::{BusError, PciDevice};

/// Most buffers in hand at once.
pub(super) const BATCH: usize = mbuf::MAX_BURST;

/// A piece of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) addr: Iova,
    pub(super) len: u32,
    /// The device writes it; otherwise it reads it.
    pub(super) writable: bool,
}

/// A buffer that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Which: as [`Virtqueue::post`] called it. One that was with the device, and is not any more.
    pub(super) id: u16,
    /// Bytes that the device says it wrote; [`WHOLE`] for all that there was room for.
    pub(super) len: u32,
}

impl Used {
    /// To fill arrays with.
    pub(super) const NONE: Self = Self { id: 0, len: 0 };
}

/// The length of a buffer that the device used up without saying so (§2.7.9: the skipped ones of a batch).
pub(super) const WHOLE: u32 = u32::MAX;

/// How a device breaks a ring. Nothing that it writes is believed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingFault {
    /// used.idx moved by more buffers than the device has.
    UsedIndex,
    /// A buffer came back that the device does not have: no such, not posted, or twice.
    UsedId,
    /// More bytes were written, it says, than there was room for.
    UsedLength,
    /// A packet of more buffers than the ring has.
    BufferCount,
    /// The rest of a packet does not come.
    Unfinished,
    /// Packets that were to be sent do not come back.
    TransmitStalled,
}

impl RingFault {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::UsedIndex => "the device returned more buffers than it had",
            Self::UsedId => "the device returned a buffer that it did not have",
            Self::UsedLength => "the device wrote, it says, more than a buffer holds",
            Self::BufferCount => "the device named more buffers for a packet than its ring has",
            Self::Unfinished => "the device did not finish a packet",
            Self::TransmitStalled => "the device does not send what it is given",
        }
    }
}

/// The device's addresses of a queue's three parts (§4.1.4.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueAddresses {
    pub(super) desc: Iova,
    pub(super) driver: Iova,
    pub(super) device: Iova,
}

/// The driver's side of a virtqueue. Buffers are posted, seen by the device when they are published, and come back used.
///
/// What the device writes is loaded once into private copies; all else that the queue knows of itself it keeps in private
/// memory and never reads back.
pub(super) trait Virtqueue: Send + Sized + 'static {
    /// One of `size` descriptors, a power of two; in memory of its own. The device is asked not to notify.
    fn new<D: PciDevice>(device: &D, size: u16, features: Features) -> Result<Self, BusError>;

    /// Where its parts lie.
    fn addresses(&self) -> QueueAddresses;

    /// Descriptors.
    fn size(&self) -> u16;

    /// Descriptors that are free.
    fn free(&self) -> usize;

    /// What the next buffer that is posted will be called; less than the size.
    fn next_id(&self) -> u16;

    /// Names a buffer to the device: pieces to read first, then pieces to write. Not seen before [`publish`](Self::publish).
    /// Returns what it will be called when it comes back.
    ///
    /// # Panics
    /// If there are no pieces, or more than free descriptors.
    fn post(&mut self, pieces: &[Piece]) -> u16;

    /// The same for many buffers of one piece each, at most as many as `ids` has room for what they are called.
    ///
    /// # Panics
    /// If there are more than free descriptors.
    fn post_each(&mut self, pieces: &[Piece], ids: &mut [u16]);

    /// Lets the device see all that was posted.
    fn publish(&mut self);

    /// Whether the device wants its doorbell rung for what was published since the last time that it was asked.
    fn wants_kick(&mut self) -> bool;

    /// The next buffers that the device is done with, as many as there are and `into` has room for; how many. A fault comes
    /// after what came before it.
    ///
    /// # Errors
    /// [`RingFault`]: the ring is broken, at the first buffer.
    fn take_used(&mut self, into: &mut [Used]) -> Result<usize, RingFault>;

    /// Asks the device to notify at the next used buffer; false, and not asked, if there is one already.
    fn arm(&mut self) -> bool;

    /// Asks it not to.
    fn disarm(&mut self);
}

/// Whether the other side is to be notified after moving an index from `old` to `new` (§2.7.7.2, §2.7.10.1).
#[inline(always)]
pub(super) const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_at_the_wrap() {
        assert!(need_event(0xffff, 0, 0xffff), "passed the event");
        assert!(!need_event(0, 0, 0xffff), "not there yet");
        assert!(!need_event(5, 5, 5), "nothing moved");
        assert!(need_event(4, 5, 4));
    }
}

//! A guest's transmit ring.

use super::net_hdr::NetHdr;
use super::queue::{Direction, Queue};
use super::ram::{GuestRam, Span};
use super::ring_config::{RingConfig, RingConfigError, RingError};

/// A guest's transmit ring: the device reads what is posted here.
///
/// Two ways to use it. Frame by frame: [`send`](Self::send), or [`post`](Self::post) and [`publish`](Self::publish). Or a
/// generator's: write all slots once ([`prepare`](Self::prepare)), then post them again and again, with a word changed
/// ([`post_prepared`](Self::post_prepared), [`reclaim`](Self::reclaim)).
#[derive(Debug)]
pub struct TxRing {
    queue: Queue,
}

/// Why a frame was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// All slots are with the device.
    #[error("the ring is full")]
    Full,
    /// No slot holds such a frame.
    #[error("a frame of {len} bytes does not fit into a slot, which holds {room}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// A slot's bytes, without the header.
        room: usize,
    },
    /// The device broke the ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// The buffer of a free slot, to write a frame into.
#[derive(Debug)]
pub struct TxFrame<'q> {
    buffers: &'q Span,
    /// Where the header starts.
    start: usize,
    /// Where the frame starts.
    frame: usize,
    /// Bytes for the frame.
    room: usize,
}

impl TxFrame<'_> {
    /// Most bytes that a frame here can have.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Writes `bytes` at `at` of the frame.
    ///
    /// # Panics
    /// Beyond [`room`](Self::room).
    #[inline(always)]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.room && bytes.len() <= self.room - at, "{at}+{} of {}", bytes.len(), self.room);
        self.buffers.write(self.frame + at, bytes);
    }

    /// Writes a little-endian u64 at `at` of the frame.
    #[inline(always)]
    pub fn set_word(&self, at: usize, word: u64) {
        self.write(at, &word.to_le_bytes());
    }

    /// Writes the header.
    #[inline(always)]
    pub fn set_header(&self, hdr: NetHdr) {
        self.buffers.write(self.start, &hdr.to_bytes()[..self.frame - self.start]);
    }
}

/// The buffer of `slot`, which must be free.
#[inline(always)]
fn frame(queue: &Queue, slot: u16) -> TxFrame<'_> {
    let (start, hdr) = (queue.buffer(slot), queue.hdr_len);
    let room = queue.config().buffer_bytes as usize - hdr;
    TxFrame { buffers: queue.buffers(), start, frame: start + hdr, room }
}

impl TxRing {
    /// A ring in `ram`, empty.
    ///
    /// # Errors
    /// [`RingConfigError`].
    pub fn new(ram: &GuestRam, config: RingConfig) -> Result<Self, RingConfigError> {
        Ok(Self { queue: Queue::new(ram, config, Direction::DeviceReads)? })
    }

    /// What is common to both kinds of ring: the ring in memory, its eventfds, its indices.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The same, to kick or to wait.
    pub fn queue_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Free slots.
    #[inline(always)]
    #[must_use]
    pub fn room(&self) -> usize {
        self.queue.room()
    }

    /// Writes each free slot by `write`, which gets a running number and the buffer and says how long the frame is. The
    /// header is zeroed before.
    ///
    /// # Panics
    /// If a frame is longer than its room.
    pub fn prepare(&mut self, mut write: impl FnMut(usize, &TxFrame<'_>) -> usize) {
        self.queue.arrange(self.queue.room());
        for i in 0..self.queue.room() {
            let slot = self.queue.slot_at(self.queue.next_avail().wrapping_add(i as u16));
            let frame = frame(&self.queue, slot);
            frame.set_header(NetHdr::default());
            let len = write(i, &frame);
            assert!(len <= frame.room(), "a frame of {len} bytes in {}", frame.room());
            self.describe(slot, len);
        }
    }

    #[inline(always)]
    fn describe(&mut self, slot: u16, frame_len: usize) {
        let bytes = (self.queue.hdr_len + frame_len) as u32;
        if self.queue.described(slot) != bytes {
            self.queue.describe(slot, bytes);
        }
    }

    /// Posts and publishes up to `most` free slots with the frames that stand in them, after `touch` has changed what it
    /// wants to. Returns how many.
    #[inline]
    pub fn post_prepared(&mut self, most: usize, mut touch: impl FnMut(&TxFrame<'_>)) -> usize {
        let n = most.min(self.queue.room());
        self.queue.arrange(n);
        self.queue.will_fill(n);
        self.queue.stage_next(n, |queue, slot| touch(&frame(queue, slot)));
        self.queue.publish();
        n
    }

    /// Copies a frame into the next free slot and stages it. The device sees it after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`PostError::Full`] and [`PostError::TooLong`].
    #[inline]
    pub fn post(&mut self, hdr: NetHdr, frame: &[u8]) -> Result<(), PostError> {
        if self.queue.room() == 0 {
            return Err(PostError::Full);
        }
        self.queue.arrange(1);
        let slot = self.queue.slot_at(self.queue.next_avail());
        let buffer = self::frame(&self.queue, slot);
        if frame.len() > buffer.room() {
            return Err(PostError::TooLong { len: frame.len(), room: buffer.room() });
        }
        buffer.set_header(hdr);
        buffer.write(0, frame);
        self.describe(slot, frame.len());
        self.queue.stage(slot);
        Ok(())
    }

    /// Shows the device what was staged and kicks it if it asks for that. Returns whether it kicked.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.queue.publish()
    }

    /// Takes back all slots that the device is done with; returns how many.
    ///
    /// # Errors
    /// [`RingError`], now and ever after.
    #[inline]
    pub fn reclaim(&mut self) -> Result<usize, RingError> {
        let ready = usize::from(self.queue.ready()?);
        let mut left = ready;
        while left > 0 {
            let run = self.queue.take_run(left, false, |_, _, _| true);
            if run == 0 {
                self.queue.take_back(left as u16, false)?;
            }
            left -= run.max(1);
        }
        Ok(ready)
    }

    /// Sends one frame: reclaims, posts, publishes.
    ///
    /// # Errors
    /// [`PostError`].
    pub fn send(&mut self, hdr: NetHdr, frame: &[u8]) -> Result<(), PostError> {
        self.reclaim()?;
        self.post(hdr, frame)?;
        self.publish();
        Ok(())
    }
}

//! A guest's receive ring.

use super::net_hdr::NetHdr;
use super::queue::{Direction, Queue};
use super::ram::{GuestRam, Span};
use super::ring_config::{RingConfig, RingConfigError, RingError};
use crate::wire::net::{HDR_LEN, NUM_BUFFERS_OFFSET};

/// A guest's receive ring: the device writes into what is posted here.
#[derive(Debug)]
pub struct RxRing {
    queue: Queue,
    /// The further buffers of a packet: where in `buffers`, how many bytes.
    more: Vec<(usize, usize)>,
}

/// What stands where a header will be, if it is to be foreign.
const FOREIGN: [u8; HDR_LEN] = [0xa5; HDR_LEN];

/// A frame that came in, where it lies. Its buffers go back to the device with the next refill.
#[derive(Debug)]
pub struct RxFrame<'q> {
    buffers: &'q Span,
    /// Where the header starts.
    start: usize,
    hdr_len: usize,
    /// Bytes of the frame in the first buffer.
    first_len: usize,
    more: &'q [(usize, usize)],
}

impl RxFrame<'_> {
    /// The frame's bytes, without the virtio-net header.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.first_len + self.more.iter().map(|&(_, len)| len).sum::<usize>()
    }

    /// Whether the frame has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Buffers over which it is spread.
    #[must_use]
    pub fn buffers(&self) -> usize {
        1 + self.more.len()
    }

    /// The virtio-net header.
    #[must_use]
    pub fn header(&self) -> NetHdr {
        let mut bytes = [0; HDR_LEN];
        self.buffers.read(self.start, &mut bytes[..self.hdr_len]);
        NetHdr::from_bytes(bytes)
    }

    /// The little-endian u64 at `at` of the frame.
    ///
    /// # Panics
    /// Beyond the frame's end.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Copies the frame's bytes from `at` on.
    ///
    /// # Panics
    /// Beyond the frame's end.
    #[inline(always)]
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        if at <= self.first_len && bytes.len() <= self.first_len - at {
            self.buffers.read(self.start + self.hdr_len + at, bytes);
        } else {
            self.read_scattered(at, bytes);
        }
    }

    #[cold]
    fn read_scattered(&self, mut at: usize, mut bytes: &mut [u8]) {
        let first = (self.start + self.hdr_len, self.first_len);
        for (start, len) in [first].into_iter().chain(self.more.iter().copied()) {
            if at >= len {
                at -= len;
                continue;
            }
            let (now, later) = bytes.split_at_mut(bytes.len().min(len - at));
            self.buffers.read(start + at, now);
            (bytes, at) = (later, 0);
        }
        assert!(bytes.is_empty(), "beyond the frame's end");
    }

    /// Replaces `bytes` by the whole frame.
    pub fn copy_to(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.len(), 0);
        self.read(0, bytes);
    }
}

/// What the header at `start` says of the buffers that its packet takes.
#[inline(always)]
fn num_buffers(queue: &Queue, start: usize) -> u16 {
    queue.buffers().load_u16(start + NUM_BUFFERS_OFFSET, core::sync::atomic::Ordering::Relaxed)
}

impl RxRing {
    /// A ring in `ram`, with all its slots still to be [refilled](Self::refill).
    ///
    /// # Errors
    /// [`RingConfigError`].
    pub fn new(ram: &GuestRam, config: RingConfig) -> Result<Self, RingConfigError> {
        let queue = Queue::new(ram, config, Direction::DeviceWrites)?;
        let more = Vec::with_capacity(queue.slots().min(64));
        Ok(Self { queue, more })
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

    /// Gives all free slots to the device and kicks it if it asks for that. Returns how many.
    #[inline]
    pub fn refill(&mut self) -> usize {
        self.refill_some(usize::MAX)
    }

    /// As [`refill`](Self::refill), `most` slots at most.
    #[inline]
    pub fn refill_some(&mut self, most: usize) -> usize {
        let n = most.min(self.queue.room());
        if self.queue.config().foreign_headers {
            self.queue.stage_next(n, |queue, slot| {
                queue.buffers().write(queue.buffer(slot), &FOREIGN[..queue.hdr_len]);
            });
        } else {
            self.queue.stage_next(n, |_, _| ());
        }
        self.queue.publish();
        n
    }

    /// Shows `each` of the next frames, `most` at most; returns how many there were. Their buffers are free afterwards.
    ///
    /// # Errors
    /// [`RingError`], now and ever after.
    #[inline]
    pub fn poll(&mut self, most: usize, mut each: impl FnMut(&RxFrame<'_>)) -> Result<usize, RingError> {
        let mut left = self.queue.ready()?;
        self.queue.will_look_at(most.min(left.into()));
        let mut frames = 0;
        while left > 0 && frames < most {
            let run = self.poll_run((most - frames).min(left.into()), &mut each);
            (left, frames) = (left - run as u16, frames + run);
            if run > 0 {
                continue;
            }
            let (start, len) = self.next_buffer(left, self.queue.hdr_len)?;
            let buffers = self.num_buffers(start, left)?;
            if buffers > 1 {
                self.gather(buffers, left)?;
            }
            let hdr_len = self.queue.hdr_len;
            let more = if buffers > 1 { &self.more[..] } else { &[] };
            each(&RxFrame { buffers: self.queue.buffers(), start, hdr_len, first_len: len - hdr_len, more });
            left -= buffers;
            frames += 1;
        }
        Ok(frames)
    }

    /// Shows `each` of the next frames, `most` at most, as long as they take one sound buffer each and come back in a row.
    #[inline(always)]
    fn poll_run(&mut self, most: usize, each: &mut impl FnMut(&RxFrame<'_>)) -> usize {
        self.queue.take_run(most, true, |queue, slot, len| {
            let (start, len, hdr_len) = (queue.buffer(slot), len as usize, queue.hdr_len);
            let whole = !queue.mergeable || num_buffers(queue, start) == 1;
            let sound = whole && (hdr_len..=queue.described(slot) as usize).contains(&len);
            if sound {
                each(&RxFrame {
                    buffers: queue.buffers(),
                    start,
                    hdr_len,
                    first_len: len - hdr_len,
                    more: &[],
                });
            }
            sound
        })
    }

    /// Takes the next used buffer: where it starts, and its used bytes, `least` or more.
    #[inline(always)]
    fn next_buffer(&mut self, left: u16, least: usize) -> Result<(usize, usize), RingError> {
        let at = self.queue.next_used();
        let (slot, len) = self.queue.take_back(left, true)?;
        let room = self.queue.described(slot);
        if len > room || (len as usize) < least {
            return Err(self.queue.latch(RingError::UsedLen { at, len, room }));
        }
        Ok((self.queue.buffer(slot), len as usize))
    }

    /// Buffers of the packet that starts at `start`, of which the first is taken; all of them must be among the `left`.
    #[inline(always)]
    fn num_buffers(&mut self, start: usize, left: u16) -> Result<u16, RingError> {
        if !self.queue.mergeable {
            return Ok(1);
        }
        let num_buffers = num_buffers(&self.queue, start);
        if num_buffers == 0 || num_buffers > left {
            let at = self.queue.next_used().wrapping_sub(1);
            return Err(self.queue.latch(RingError::NumBuffers { at, num_buffers, there: left }));
        }
        Ok(num_buffers)
    }

    /// Takes the further buffers of a packet of `buffers`.
    #[cold]
    fn gather(&mut self, buffers: u16, left: u16) -> Result<(), RingError> {
        self.more.clear();
        for taken in 1..buffers {
            let part = self.next_buffer(left - taken, 0)?;
            self.more.push(part);
        }
        Ok(())
    }

    /// Receives one frame into `frame`, if there is one, and gives its buffers back.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn recv(&mut self, frame: &mut Vec<u8>) -> Result<Option<NetHdr>, RingError> {
        let mut header = None;
        self.poll(1, |got| {
            got.copy_to(frame);
            header = Some(got.header());
        })?;
        self.refill();
        Ok(header)
    }
}

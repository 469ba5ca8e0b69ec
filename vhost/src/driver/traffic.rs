//! A stream of frames that can be checked: each says who it is, and proves that nobody changed it.
//!
//! | at | what |
//! |---|---|
//! | 0 | destination, source, EtherType 0x88B5 (IEEE 802: local experiments) |
//! | 14 | stream, u16 |
//! | 16 | sequence number, u64 |
//! | 24 | filler, different in each stream |
//! | end - 4 | CRC32C of all before it |
//!
//! Numbers are little-endian. In light mode there is no CRC, and one word of each frame is written and read.

use super::net_hdr::NetHdr;
use super::ring_config::RingError;
use super::rx::RxFrame;
use super::tx::{PostError, TxRing};

/// EtherType of the frames: local experiments.
pub const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// The shortest frame that holds all fields.
pub const MIN_FRAME: usize = SEQUENCE_AT + 8 + CRC_BYTES;

const STREAM_AT: usize = 14;
const SEQUENCE_AT: usize = 16;
const CRC_BYTES: usize = 4;

/// How thoroughly frames are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each byte, by its CRC.
    #[default]
    Verify,
    /// The sequence number alone.
    Light,
}

/// What a [`Sender`] sends.
#[derive(Clone, Copy, Debug)]
pub struct StreamConfig {
    /// Source MAC address.
    pub src: [u8; 6],
    /// Destination MAC address.
    pub dst: [u8; 6],
    /// The stream's number.
    pub stream: u16,
    /// Bytes of each frame, [`MIN_FRAME`] or more, without FCS.
    pub size: usize,
    /// With or without CRC.
    pub mode: Mode,
}

/// Sends a stream.
#[derive(Debug)]
pub struct Sender {
    frame: Vec<u8>,
    mode: Mode,
    next: u64,
}

impl Sender {
    /// A sender of the stream from its start.
    ///
    /// # Panics
    /// With a size below [`MIN_FRAME`].
    #[must_use]
    pub fn new(config: StreamConfig) -> Self {
        assert!(config.size >= MIN_FRAME, "frames of {} bytes; {MIN_FRAME} at least", config.size);
        let filler = |i: usize| (i as u16).wrapping_mul(31).wrapping_add(config.stream) as u8;
        let mut frame: Vec<u8> = (0..config.size).map(filler).collect();
        frame[..6].copy_from_slice(&config.dst);
        frame[6..12].copy_from_slice(&config.src);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[STREAM_AT..SEQUENCE_AT].copy_from_slice(&config.stream.to_le_bytes());
        Self { frame, mode: config.mode, next: 0 }
    }

    /// Frames sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// The next frame's bytes. Counts it as sent.
    pub fn next_frame(&mut self) -> &[u8] {
        self.frame[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&self.next.to_le_bytes());
        if self.mode == Mode::Verify {
            let body_bytes = self.frame.len() - CRC_BYTES;
            let (body, crc) = self.frame.split_at_mut(body_bytes);
            crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        }
        self.next += 1;
        &self.frame
    }

    /// Writes the frame into all free slots of `ring`: once, before sending in light mode.
    ///
    /// # Panics
    /// If the slots are too small for it.
    pub fn prepare(&self, ring: &mut TxRing) {
        ring.prepare(|_, slot| {
            slot.write(0, &self.frame);
            self.frame.len()
        });
    }

    /// Takes back what the device is done with and sends as many frames as there is room for, `most` at most. Returns how
    /// many. In light mode the ring must have been [prepared](Self::prepare).
    ///
    /// # Errors
    /// [`RingError`].
    ///
    /// # Panics
    /// If the slots are too small for the frame.
    pub fn send(&mut self, ring: &mut TxRing, most: usize) -> Result<usize, RingError> {
        ring.reclaim()?;
        if self.mode == Mode::Verify {
            return self.send_whole(ring, most);
        }
        let next = &mut self.next;
        Ok(ring.post_prepared(most, |slot| {
            slot.set_word(SEQUENCE_AT, *next);
            *next += 1;
        }))
    }

    fn send_whole(&mut self, ring: &mut TxRing, most: usize) -> Result<usize, RingError> {
        let n = most.min(ring.room());
        for _ in 0..n {
            match ring.post(NetHdr::default(), self.next_frame()) {
                Ok(()) => {}
                Err(PostError::Ring(error)) => return Err(error),
                Err(error) => unreachable!("{error}: there was room, and the caller chose the slots' size"),
            }
        }
        ring.publish();
        Ok(n)
    }
}

/// What became of a stream's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Good frames, each counted once.
    pub received: u64,
    /// Numbers that a later one overtook and that have not come since.
    pub lost: u64,
    /// Came again. A number that comes later than [`WINDOW`] others is counted here, too.
    pub duplicated: u64,
    /// Came after a later one.
    pub reordered: u64,
    /// Too short, or the CRC is wrong.
    pub corrupted: u64,
    /// Frames of other kinds or streams.
    pub foreign: u64,
}

impl Tally {
    /// Whether all of `sent` frames came, each once and in order.
    #[must_use]
    pub fn is_clean(&self, sent: u64) -> bool {
        let bad = self.lost + self.duplicated + self.reordered + self.corrupted;
        self.received == sent && bad == 0
    }
}

/// How far back a number is remembered.
pub const WINDOW: u64 = 1 << 16;

/// Checks a stream.
#[derive(Debug)]
pub struct Checker {
    stream: u16,
    mode: Mode,
    tally: Tally,
    next: u64,
    /// Bit n % WINDOW: n was received, of the last `WINDOW` numbers before `next`.
    seen: Box<[u64]>,
    frame: Vec<u8>,
}

impl Checker {
    /// A checker of the stream of that number, from its start.
    #[must_use]
    pub fn new(stream: u16, mode: Mode) -> Self {
        let seen = vec![0; (WINDOW / 64) as usize].into();
        Self { stream, mode, tally: Tally::default(), next: 0, seen, frame: Vec::with_capacity(2048) }
    }

    /// The counts so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The counts, given that the sender has sent `sent` frames and that nothing is under way any more.
    #[must_use]
    pub fn settle(&self, sent: u64) -> Tally {
        Tally { lost: self.tally.lost + sent.saturating_sub(self.next), ..self.tally }
    }

    /// Checks a frame where it lies.
    #[inline]
    pub fn check(&mut self, frame: &RxFrame<'_>) {
        if self.mode == Mode::Verify {
            let mut bytes = std::mem::take(&mut self.frame);
            frame.copy_to(&mut bytes);
            self.check_bytes(&bytes);
            self.frame = bytes;
        } else if frame.len() < MIN_FRAME {
            self.tally.corrupted += 1;
        } else {
            self.number(frame.word(SEQUENCE_AT));
        }
    }

    /// Checks a frame's bytes, CRC and all.
    pub fn check_bytes(&mut self, bytes: &[u8]) {
        if bytes.get(12..14).is_none_or(|kind| kind != ETHERTYPE) {
            self.tally.foreign += 1;
            return;
        }
        let (body, crc) = bytes.split_at(bytes.len().saturating_sub(CRC_BYTES));
        if bytes.len() < MIN_FRAME || crc32c::crc32c(body).to_le_bytes() != crc {
            self.tally.corrupted += 1;
        } else if body[STREAM_AT..SEQUENCE_AT] != self.stream.to_le_bytes() {
            self.tally.foreign += 1;
        } else {
            let number = body[SEQUENCE_AT..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            self.number(number);
        }
    }

    /// A good frame of this number came: for whoever has found number and goodness by itself.
    #[inline]
    pub fn number(&mut self, number: u64) {
        if number == self.next {
            self.next += 1;
            self.tally.received += 1;
            self.mark(number, true);
        } else if number > self.next {
            self.skip_to(number);
        } else {
            self.late(number);
        }
    }

    #[cold]
    fn skip_to(&mut self, number: u64) {
        self.tally.lost += number - self.next;
        for missing in self.next.max(number.saturating_sub(WINDOW))..number {
            self.mark(missing, false);
        }
        self.next = number + 1;
        self.tally.received += 1;
        self.mark(number, true);
    }

    #[cold]
    fn late(&mut self, number: u64) {
        if self.next - number > WINDOW || self.is_marked(number) {
            self.tally.duplicated += 1;
            return;
        }
        self.mark(number, true);
        self.tally.reordered += 1;
        self.tally.received += 1;
        self.tally.lost -= 1;
    }

    #[inline(always)]
    fn mark(&mut self, number: u64, seen: bool) {
        let at = number % WINDOW;
        let word = &mut self.seen[(at / 64) as usize];
        *word = *word & !(1 << (at % 64)) | u64::from(seen) << (at % 64);
    }

    fn is_marked(&self, number: u64) -> bool {
        let at = number % WINDOW;
        self.seen[(at / 64) as usize] >> (at % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: u16, size: usize) -> Sender {
        let config = StreamConfig {
            src: [2, 0, 0, 0, 0, 1],
            dst: [2, 0, 0, 0, 0, 2],
            stream: number,
            size,
            mode: Mode::Verify,
        };
        Sender::new(config)
    }

    #[test]
    fn a_clean_stream_is_clean() {
        for size in [MIN_FRAME, 60, 64, 1514, 65_535] {
            let (mut sender, mut checker) = (stream(7, size), Checker::new(7, Mode::Verify));
            for _ in 0..100 {
                checker.check_bytes(sender.next_frame());
            }
            assert!(checker.settle(100).is_clean(100), "{:?}", checker.tally());
        }
    }

    #[test]
    fn each_kind_of_harm_has_its_counter() {
        let (mut sender, mut checker) = (stream(7, 64), Checker::new(7, Mode::Verify));
        let frames: Vec<Vec<u8>> = (0..10).map(|_| sender.next_frame().to_vec()).collect();
        for i in [0, 1, 3, 2, 3, 6, 1] {
            checker.check_bytes(&frames[i]);
        }
        for at in 14..64 {
            let mut bent = frames[7].clone();
            bent[at] ^= 0x10;
            checker.check_bytes(&bent);
        }
        checker.check_bytes(&frames[7][..20]);
        checker.check_bytes(&[0; 64]);
        checker.check_bytes(&[0; 5]);
        checker.check_bytes(stream(8, 64).next_frame());
        let tally = Tally { received: 5, lost: 2, duplicated: 2, reordered: 1, corrupted: 51, foreign: 3 };
        assert_eq!(checker.tally(), tally);
        assert_eq!(checker.settle(10), Tally { lost: 5, ..tally });
        assert!(!checker.settle(10).is_clean(10));
    }

    #[test]
    fn numbers_are_remembered_for_a_window() {
        let mut checker = Checker::new(0, Mode::Light);
        checker.number(0);
        checker.number(3 * WINDOW);
        assert_eq!(checker.tally().lost, 3 * WINDOW - 1);
        checker.number(2 * WINDOW + 1);
        checker.number(2 * WINDOW + 1);
        checker.number(2 * WINDOW);
        let expected =
            Tally { received: 3, lost: 3 * WINDOW - 2, duplicated: 2, reordered: 1, ..Tally::default() };
        assert_eq!(checker.tally(), expected);
    }
}

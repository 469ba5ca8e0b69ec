//! Numbers, stamps and checksums in frames.
//!
//! | at | what |
//! |---|---|
//! | `at` | stream, u16, and sequence number, u48: the one word that is written into each frame, and read of it |
//! | `at + 8` | time of sending in ns, u64, if latency is measured |
//! | end - 4 | CRC32C of all before it, if frames are verified |
//!
//! Little-endian. Stream n is of endpoint n / 256, queue n % 256.

use vhost::driver::traffic::{Checker, Mode, Tally};

/// Where the probe lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Offset of its first word.
    pub at: usize,
}

/// What is written into frames beside their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// A CRC over the whole frame.
    pub verify: bool,
    /// The time of sending.
    pub latency: bool,
}

impl Extent {
    /// The shortest frame that has room for it all.
    #[must_use]
    pub fn least(self, layout: Layout) -> usize {
        layout.at + 8 + if self.latency { 8 } else { 0 } + if self.verify { 4 } else { 0 }
    }

    /// Whether one word a frame is all.
    #[must_use]
    pub fn is_light(self) -> bool {
        self == Self::default()
    }
}

const SEQUENCE_BITS: u32 = 48;

/// Numbers a stream's frames.
#[derive(Clone, Copy, Debug)]
pub struct Stamper {
    stream: u16,
    next: u64,
    layout: Layout,
    extent: Extent,
}

impl Stamper {
    /// A stream from its start.
    #[must_use]
    pub fn new(stream: u16, layout: Layout, extent: Extent) -> Self {
        Self { stream, next: 0, layout, extent }
    }

    /// Frames numbered so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.next
    }

    /// Where the word goes, and the word for the next frame.
    #[inline(always)]
    pub fn word(&mut self) -> (usize, u64) {
        let word = u64::from(self.stream) | self.next << (64 - SEQUENCE_BITS);
        self.next += 1;
        (self.layout.at, word)
    }

    /// Takes the last `n` numbers back: their frames were not sent after all.
    pub fn take_back(&mut self, n: usize) {
        self.next -= n as u64;
    }

    /// Writes all of the probe into a frame that has the room.
    #[inline]
    pub fn stamp(&mut self, frame: &mut [u8], now_ns: u64) {
        let (at, word) = self.word();
        frame[at..at + 8].copy_from_slice(&word.to_le_bytes());
        if self.extent.latency {
            frame[at + 8..at + 16].copy_from_slice(&now_ns.to_le_bytes());
        }
        if self.extent.verify {
            let (body, crc) = frame.split_at_mut(frame.len() - 4);
            crc.copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        }
    }
}

/// Checks what an endpoint receives from its partner: one stream a queue of the partner's.
#[derive(Debug)]
pub struct Streams {
    partner: u8,
    layout: Layout,
    extent: Extent,
    checkers: Vec<Checker>,
    foreign: u64,
    corrupted: u64,
}

impl Streams {
    /// Of endpoint `partner` with so many queues.
    #[must_use]
    pub fn new(partner: u8, queues: usize, layout: Layout, extent: Extent) -> Self {
        let checkers = (0..queues).map(|_| Checker::new(0, Mode::Light)).collect();
        Self { partner, layout, extent, checkers, foreign: 0, corrupted: 0 }
    }

    /// Where the word stands that [`light`](Self::light) wants.
    #[inline(always)]
    #[must_use]
    pub fn at(&self) -> usize {
        self.layout.at
    }

    /// A frame came whose probe begins with `word`.
    #[inline(always)]
    pub fn light(&mut self, word: u64) {
        let [queue, endpoint] = (word as u16).to_le_bytes();
        match self.checkers.get_mut(usize::from(queue)) {
            Some(checker) if endpoint == self.partner => checker.number(word >> (64 - SEQUENCE_BITS)),
            _ => self.foreign += 1,
        }
    }

    /// Checks a whole frame; its time of sending, if it is a good one that carries that.
    #[inline]
    pub fn whole(&mut self, frame: &[u8]) -> Option<u64> {
        let at = self.layout.at;
        let word_at =
            |at: usize| frame.get(at..).and_then(|f| f.first_chunk()).map(|w| u64::from_le_bytes(*w));
        if frame.get(6..9) != Some(&crate::pattern::MAC_PREFIX) {
            self.foreign += 1;
            return None;
        }
        if self.extent.verify {
            let (body, crc) = frame.split_at(frame.len().saturating_sub(4));
            if crc32c::crc32c(body).to_le_bytes() != crc {
                self.corrupted += 1;
                return None;
            }
        }
        let Some(word) = word_at(at) else {
            self.corrupted += 1;
            return None;
        };
        self.light(word);
        if self.extent.latency { word_at(at + 8) } else { None }
    }

    /// Good frames so far.
    #[inline]
    #[must_use]
    pub fn received(&self) -> u64 {
        self.checkers.iter().map(|c| c.tally().received).sum()
    }

    /// What became of the streams. `sent` by queue, if nothing is under way any more.
    #[must_use]
    pub fn tally(&self, sent: Option<&[u64]>) -> Tally {
        let mut all = Tally { foreign: self.foreign, corrupted: self.corrupted, ..Tally::default() };
        for (queue, checker) in self.checkers.iter().enumerate() {
            let one = match sent.and_then(|s| s.get(queue)) {
                Some(sent) => checker.settle(*sent),
                None => checker.tally(),
            };
            all.received += one.received;
            all.lost += one.lost;
            all.duplicated += one.duplicated;
            all.reordered += one.reordered;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::{Pattern, Sizes};

    fn verified() -> (Pattern, Extent) {
        (Pattern { sizes: Sizes::Fixed(64), ..Pattern::default() }, Extent { verify: true, latency: true })
    }

    #[test]
    fn a_stream_is_numbered_stamped_and_checked() {
        let (pattern, extent) = verified();
        let layout = pattern.layout();
        assert!(extent.least(layout) <= 64);
        let (mut stamper, mut streams) =
            (Stamper::new(0x0301, layout, extent), Streams::new(3, 2, layout, extent));
        let mut frame = pattern.frame(0, 3, 4);
        for now in 0..100 {
            stamper.stamp(&mut frame, 1000 + now);
            assert_eq!(streams.whole(&frame), Some(1000 + now));
        }
        let tally = streams.tally(Some(&[0, 100]));
        assert!(tally.is_clean(100) && tally.foreign == 0, "{tally:?}");
        assert_eq!(streams.tally(Some(&[0, 103])).lost, 3);
    }

    #[test]
    fn each_bit_that_changes_is_seen() {
        let (pattern, extent) = verified();
        let layout = pattern.layout();
        let (mut stamper, mut streams) =
            (Stamper::new(0, layout, extent), Streams::new(0, 1, layout, extent));
        let mut frame = pattern.frame(0, 0, 1);
        stamper.stamp(&mut frame, 7);
        for bit in 0..frame.len() * 8 {
            let mut bent = frame.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(streams.whole(&bent), None, "bit {bit}");
        }
        let tally = streams.tally(None);
        assert_eq!((tally.received, tally.corrupted + tally.foreign), (0, 64 * 8));
        assert_eq!(streams.whole(&[]), None);
        assert_eq!(streams.whole(&frame[..11]), None);
    }

    #[test]
    fn other_streams_are_foreign() {
        let layout = Pattern::default().layout();
        let mut streams = Streams::new(1, 1, layout, Extent::default());
        for stream in [0x0101, 0x0000, 0x0200] {
            streams.light(Stamper::new(stream, layout, Extent::default()).word().1);
        }
        assert_eq!((streams.tally(None).foreign, streams.received()), (3, 0));
    }
}

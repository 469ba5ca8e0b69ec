//! Pass one: read each packet's addresses, learn who sent it, look up where it goes.

use mbuf::{MAX_BURST, Mbuf};
use pmd::DropReason;

use crate::fdb::{Fdb, Learn, Reader, key_of};
use crate::stats::LearnTally;
use crate::verdict::Verdict;
use crate::weight::Scale;
use crate::{Mac, PortId};

/// No packet's address: beyond the bits that a key has.
const NOBODY: u64 = u64::MAX;
/// Stands for the destination of a frame that is too short to have one. A group's, so that nobody looks it up.
const TOO_SHORT: u64 = 1 << 63 | 1;
/// 01-80-C2-00-00-00, the first of the reserved group addresses.
const RESERVED_GROUP: Mac = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);

/// Seconds for which a sender that was seen behind another port keeps its place against its own frames' reflections. One that
/// really moved behind the reflecting port is believed when it sends to anybody in particular, or after this.
const REFLECTION_S: u32 = 2;

/// What a receive half remembers from its last packet. Most bursts are of one flow, and then this is all that is read.
#[derive(Debug)]
pub(crate) struct Memo {
    epoch: u64,
    now_s: u32,
    src: u64,
    dst: u64,
    verdict: Verdict,
}

impl Default for Memo {
    fn default() -> Self {
        Self { epoch: u64::MAX, now_s: 0, src: NOBODY, dst: NOBODY, verdict: Verdict::FLOOD }
    }
}

impl Memo {
    /// Forgets what may no longer be so: entries changed, or ages want to be set to 0 again.
    #[inline(always)]
    fn renew(&mut self, epoch: u64, now_s: u32) {
        if self.epoch != epoch || self.now_s != now_s {
            *self = Self { epoch, now_s, ..Self::default() };
        }
    }
}

/// The verdicts on a burst.
#[derive(Debug)]
pub(crate) enum Verdicts {
    /// One for all.
    Same(Verdict),
    /// One each.
    Each([Verdict; MAX_BURST]),
}

impl Verdicts {
    /// On the packet at `at`.
    pub(crate) fn of(&self, at: usize) -> Verdict {
        match self {
            Self::Same(verdict) => *verdict,
            Self::Each(verdicts) => verdicts[at],
        }
    }
}

/// Who looks, and at what time.
pub(crate) struct Classifier<'c> {
    pub(crate) fdb: &'c Fdb,
    pub(crate) tally: &'c LearnTally,
    pub(crate) port: PortId,
    pub(crate) now_s: u32,
    /// Whether a group's frame may be one that the port itself sent.
    pub(crate) reflects: bool,
}

/// The addresses of a burst, and a bit for each one that is not the one before.
struct Addresses {
    dst: [u64; MAX_BURST],
    src: [u64; MAX_BURST],
    new_dst: u32,
    new_src: u32,
}

/// Destination and source as words. Two unaligned loads.
#[inline(always)]
fn addresses(frame: &[u8]) -> (u64, u64) {
    let Some(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]) = frame.first_chunk() else {
        return (TOO_SHORT, 0);
    };
    let dst = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, s0, s1]);
    let src = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, t0, t1]);
    (key_of(dst, 0), key_of(src, 0))
}

/// The verdict on a group's address: reserved ones are not forwarded (IEEE 802.1Q-2022 8.6.3).
#[cold]
fn group_verdict(dst: u64) -> Verdict {
    if dst == TOO_SHORT {
        Verdict::drop(DropReason::RxTooShort)
    } else if dst & !(0xf << 40) == RESERVED_GROUP.to_word() {
        Verdict::drop(DropReason::ReservedGroup)
    } else {
        Verdict::FLOOD
    }
}

/// The verdicts, but for the frames of a set, which are dropped.
#[cold]
fn drop_reflected(mut verdicts: [Verdict; MAX_BURST], mut reflected: u32) -> [Verdict; MAX_BURST] {
    while reflected != 0 {
        verdicts[take_lowest(&mut reflected)] = Verdict::drop(DropReason::Reflected);
    }
    verdicts
}

#[inline(always)]
fn is_group(key: u64) -> bool {
    key & 1 == 1
}

/// Takes the lowest bit out of a set that has one, and tells its place.
#[inline(always)]
fn take_lowest(set: &mut u32) -> usize {
    let at = set.trailing_zeros() as usize % MAX_BURST;
    *set &= *set - 1;
    at
}

impl Addresses {
    /// Prefetches what all lookups will read: they wait for few misses at once, prefetches for many.
    #[inline(never)]
    fn fetch(&self, reader: &Reader<'_>) {
        let (mut src, mut dst) = (self.new_src, self.new_dst);
        while src != 0 {
            reader.fetch(self.src[take_lowest(&mut src)]);
        }
        while dst != 0 {
            reader.fetch(self.dst[take_lowest(&mut dst)]);
        }
    }
}

impl Classifier<'_> {
    /// Learns the senders of a burst and says where its packets go. `scale` weighs them: they are looked at anyway.
    #[inline(always)]
    pub(crate) fn classify(&self, burst: &[Mbuf<'_>], memo: &mut Memo, scale: &mut Scale) -> Verdicts {
        memo.renew(self.fdb.epoch(), self.now_s);
        let mut seen = Addresses { dst: [0; MAX_BURST], src: [0; MAX_BURST], new_dst: 0, new_src: 0 };
        for (at, mbuf) in burst.iter().enumerate().take(MAX_BURST) {
            let (dst, src) = addresses(mbuf.data());
            scale.add(mbuf);
            (seen.dst[at], seen.src[at]) = (dst, src);
            seen.new_dst |= u32::from(dst != memo.dst) << at;
            seen.new_src |= u32::from(src != memo.src) << at;
        }
        if seen.new_dst | seen.new_src == 0 {
            return Verdicts::Same(memo.verdict);
        }
        self.look_up_all(&seen, burst.len(), memo)
    }

    #[inline(never)]
    fn look_up_all(&self, seen: &Addresses, count: usize, memo: &mut Memo) -> Verdicts {
        let reader = self.fdb.reader();
        if reader.is_dense() {
            seen.fetch(&reader);
        }
        let reflected = if self.reflects { self.reflected(seen) } else { 0 };
        let learned = seen.new_src & !reflected;
        if learned != 0 {
            self.learn_all(&reader, seen, learned, memo);
        }
        if seen.new_dst | reflected == 0 {
            return Verdicts::Same(memo.verdict);
        }
        let mut verdicts = [memo.verdict; MAX_BURST];
        let mut new = seen.new_dst;
        while new != 0 {
            let at = take_lowest(&mut new);
            verdicts[at] = self.verdict(&reader, seen.dst[at]);
        }
        (memo.dst, memo.verdict) = (seen.dst[count - 1], verdicts[count - 1]);
        if reflected != 0 {
            // A verdict on these frames only: not one to be remembered for their destination.
            return Verdicts::Each(drop_reflected(verdicts, reflected));
        }
        if verdicts[..count].iter().all(|v| *v == memo.verdict) {
            return Verdicts::Same(memo.verdict);
        }
        Verdicts::Each(verdicts)
    }

    /// A bit for each frame that this port itself sent to a group, and that its device gave back.
    #[cold]
    fn reflected(&self, seen: &Addresses) -> u32 {
        let (reader, mut new, mut reflected) = (self.fdb.reader(), seen.new_src, 0);
        while new != 0 {
            let at = take_lowest(&mut new);
            let back = is_group(seen.dst[at])
                && reader.is_elsewhere(seen.src[at], self.port, self.now_s.saturating_sub(REFLECTION_S));
            reflected |= u32::from(back) << at;
        }
        reflected
    }

    /// The lookups do not wait for each other: a burst's cache misses overlap.
    #[inline(always)]
    fn learn_all(&self, reader: &Reader<'_>, seen: &Addresses, mut new: u32, memo: &mut Memo) {
        while new != 0 {
            let src = seen.src[take_lowest(&mut new)];
            if is_group(src) || src == 0 {
                continue;
            }
            match reader.learn(src, self.port, self.now_s) {
                Learn::Known => memo.src = src,
                other => self.tally.count(other),
            }
        }
    }

    #[inline(always)]
    fn verdict(&self, reader: &Reader<'_>, dst: u64) -> Verdict {
        if is_group(dst) {
            return group_verdict(dst);
        }
        match reader.port_of(dst) {
            Some(port) if port.number() == self.port.number() => Verdict::drop(DropReason::SamePort),
            Some(port) => Verdict::port(port.number()),
            None => Verdict::FLOOD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_lie() {
        let mut frame = [0xaau8; 20];
        frame[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        frame[6..12].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 9]);
        let (dst, src) = addresses(&frame);
        assert_eq!(Mac::from_word(dst), Mac([1, 2, 3, 4, 5, 6]));
        assert_eq!(Mac::from_word(src), Mac([0x52, 0x54, 0, 0, 0, 9]));
        assert_eq!(addresses(&frame[..13]), (TOO_SHORT, 0));
    }

    #[test]
    fn sixteen_groups_are_reserved() {
        for last in 0..=255u8 {
            let verdict = group_verdict(Mac([0x01, 0x80, 0xc2, 0, 0, last]).to_word());
            let reserved = Verdict::drop(DropReason::ReservedGroup);
            assert_eq!(verdict, if last < 16 { reserved } else { Verdict::FLOOD });
        }
        assert_eq!(group_verdict(Mac::BROADCAST.to_word()), Verdict::FLOOD);
        assert_eq!(group_verdict(TOO_SHORT), Verdict::drop(DropReason::RxTooShort));
    }

    #[test]
    fn bits_are_walked_in_order() {
        let mut set = 0b1010_0001 | 1 << 31;
        let places: Vec<_> = (0..4).map(|_| take_lowest(&mut set)).collect();
        assert_eq!((places, set), (vec![0, 5, 7, 31], 0));
    }
}

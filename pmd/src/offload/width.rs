//! Sums over many bytes, as many at once as the processor can.
//!
//! One loop, compiled three times: for every x86-64, for AVX2 and for AVX-512. Which of them runs is asked of the processor when
//! there is something long to sum.
//!
//! UNSAFETY: code for instructions that not every processor has may be called only where it was asked for them.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls code that needs AVX2 or AVX-512"))]

/// What is shorter than this costs less than asking the processor, and a call.
const LONG: usize = 128;

/// The sum of `bytes` as 32-bit words in the machine's own byte order, the last one padded with zeroes; below 2^64 for less than
/// 16 GiB.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    if bytes.len() < LONG { by_words(bytes) } else { Width::widest().sum(bytes) }
}

/// How many bytes are summed at once. They all give the same sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// What the compiler makes of it for every processor; 16 bytes on x86-64.
    Plain,
    /// 32 bytes, where the processor has AVX2.
    Avx2,
    /// 64 bytes, where the processor has AVX-512F.
    Avx512,
}

impl Width {
    /// All of them, whether this processor can or not.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Avx2, Self::Avx512];

    /// The widest that this processor has.
    #[inline]
    #[must_use]
    pub fn widest() -> Self {
        // The answer is remembered: one load and one test each.
        if Self::Avx512.is_here() {
            Self::Avx512
        } else if Self::Avx2.is_here() {
            Self::Avx2
        } else {
            Self::Plain
        }
    }

    /// Whether this processor has it.
    #[inline]
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The sum of `bytes` as [`Sum`](super::Sum) takes it, before it is folded to 16 bits; as [`Plain`](Self::Plain) where the
    /// processor cannot do better.
    #[must_use]
    pub fn sum(self, bytes: &[u8]) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX2.
            Self::Avx2 if self.is_here() => unsafe { by_words_avx2(bytes) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has AVX-512F.
            Self::Avx512 if self.is_here() => unsafe { by_words_avx512(bytes) },
            _ => by_words(bytes),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn by_words_avx2(bytes: &[u8]) -> u64 {
    by_words(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn by_words_avx512(bytes: &[u8]) -> u64 {
    by_words(bytes)
}

/// 32-bit words into 64 bits, which do not overflow below 16 GiB; the compiler makes vector code of it.
#[inline(always)]
fn by_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut acc: u64 = words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum();
    let (pairs, last) = rest.as_chunks::<2>();
    acc += pairs.iter().map(|p| u64::from(u16::from_ne_bytes(*p))).sum::<u64>();
    acc + last.first().map_or(0, |b| u64::from(u16::from_ne_bytes([*b, 0])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_widths_have_the_same_sum(bytes in proptest::collection::vec(any::<u8>(), 0..2000), from in 0..64usize) {
            let bytes = bytes.get(from..).unwrap_or_default();
            for width in Width::ALL {
                prop_assert_eq!(width.sum(bytes), by_words(bytes), "{:?}", width);
            }
            prop_assert_eq!(sum(bytes), by_words(bytes));
        }
    }

    #[test]
    fn the_widest_is_here() {
        assert!(Width::widest().is_here());
        let wider = Width::ALL.into_iter().rev().take_while(|w| *w != Width::widest());
        assert!(wider.map(Width::is_here).all(|here| !here), "a wider one is not taken");
    }
}

//! Which port: its number, and which of the ports that had it.

use std::fmt;

/// How many ports a switch can have at a time.
pub const MAX_PORTS: usize = 1024;

/// A port of the switch. Numbers are used again after a port was removed; the generation tells the two ports apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(u32);

impl PortId {
    /// `number` is below [`MAX_PORTS`]; `generation` is not 0, so that no id is 0 as a word.
    #[must_use]
    pub(crate) fn new(number: u16, generation: u16) -> Self {
        debug_assert!(usize::from(number) < MAX_PORTS && generation != 0);
        Self(u32::from(number) | u32::from(generation) << 16)
    }

    /// An id out of thin air, for tests and benchmarks of the FDB by itself.
    ///
    /// # Panics
    /// If `number` is not below [`MAX_PORTS`].
    #[must_use]
    pub fn for_test(number: u16) -> Self {
        assert!(usize::from(number) < MAX_PORTS);
        Self::new(number, 1)
    }

    /// 0 to [`MAX_PORTS`] - 1: what goes into [`pmd::QueueEnv::port`].
    #[inline]
    #[must_use]
    pub fn number(self) -> u16 {
        self.0 as u16
    }

    /// Which of the ports that had this number, from 1 on.
    #[must_use]
    pub fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub(crate) fn to_word(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u32) -> Self {
        Self(word)
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number(), self.generation())
    }
}

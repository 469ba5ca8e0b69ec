//! Where a packet goes, as one word.

use pmd::DropReason;

use crate::MAX_PORTS;

/// A port's number, or flood, or drop with a reason; below [`VERDICTS`], so that tables can be made by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Verdict(u16);

const FLOOD: u16 = MAX_PORTS as u16;
const DROP: u16 = FLOOD + 1;

/// How many verdicts there are.
pub(crate) const VERDICTS: usize = DROP as usize + DropReason::COUNT;

/// A verdict taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Port(u16),
    Flood,
    Drop(DropReason),
}

impl Verdict {
    pub(crate) const FLOOD: Self = Self(FLOOD);

    #[inline(always)]
    pub(crate) const fn port(number: u16) -> Self {
        Self(number)
    }

    #[inline(always)]
    pub(crate) const fn drop(reason: DropReason) -> Self {
        Self(DROP + reason as u16)
    }

    /// The word that tells verdicts apart.
    #[inline(always)]
    pub(crate) fn to_word(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u16) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) fn action(self) -> Action {
        match self.0 {
            FLOOD => Action::Flood,
            number if number < FLOOD => Action::Port(number),
            drop => {
                let at = usize::from(drop - DROP);
                Action::Drop(DropReason::ALL.get(at).copied().unwrap_or(DropReason::NoOutput))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_actions() {
        assert_eq!(Verdict::port(1023).action(), Action::Port(1023));
        assert_eq!(Verdict::FLOOD.action(), Action::Flood);
        for reason in DropReason::ALL {
            assert_eq!(Verdict::drop(*reason).action(), Action::Drop(*reason));
        }
    }
}

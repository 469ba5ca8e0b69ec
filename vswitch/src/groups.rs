//! Sorting a burst: one burst a destination, order kept.

use mbuf::{Burst, MAX_BURST, Mbuf};

/// Bursts by key, in the order in which the keys came up. Never more than a burst's packets in all.
pub(crate) struct Groups<'t> {
    len: usize,
    keys: [u16; MAX_BURST],
    bursts: [Burst<'t>; MAX_BURST],
}

impl<'t> Groups<'t> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { len: 0, keys: [0; MAX_BURST], bursts: std::array::from_fn(|_| Burst::new()) }
    }

    /// Puts a packet behind those of the same key. The first few keys are found at once; a burst has few.
    #[inline(always)]
    pub(crate) fn push(&mut self, key: u16, mbuf: Mbuf<'t>) {
        let at = self.keys[..self.len].iter().position(|k| *k == key).unwrap_or(self.len);
        if at == self.len {
            self.keys[at] = key;
            self.len += 1;
        }
        let pushed = self.bursts[at].push(mbuf);
        debug_assert!(pushed.is_ok(), "a group has at most the packets of its burst");
    }

    /// The groups, with their keys.
    #[inline(always)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Burst<'t>)> {
        self.keys[..self.len].iter().copied().zip(self.bursts.iter_mut())
    }
}

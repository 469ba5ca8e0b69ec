//! Sorting a burst: one burst a destination, order kept.

use mbuf::{Burst, MAX_BURST, Mbuf};

use crate::verdict::VERDICTS;

/// Where each key's group is, if it has one: a guess that a look at the group confirms, so it is never cleared.
pub(crate) struct Places(Box<[u8; VERDICTS]>);

impl Default for Places {
    fn default() -> Self {
        Self(Box::new([0; VERDICTS]))
    }
}

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

    /// Puts a packet behind those of the same key.
    #[inline(always)]
    pub(crate) fn push(&mut self, places: &mut Places, key: u16, mbuf: Mbuf<'t>) {
        let place = &mut places.0[usize::from(key) % VERDICTS];
        let mut at = usize::from(*place) % MAX_BURST;
        if at >= self.len || self.keys[at] != key {
            at = self.len % MAX_BURST;
            (*place, self.keys[at]) = (at as u8, key);
            self.len = at + 1;
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

//! Which of a ring's descriptors (split) or buffer IDs (packed) are free, and which the device has.

/// A circle of numbers: the free ones stand in `taken..back` of it, those that the device has in the rest, oldest first as
/// long as they come back in order. They leave the circle in the order in which they came into it, so that a device that
/// keeps the order sees them go round: 0, 1, 2 ... as VIRTIO_F_IN_ORDER demands (virtio 1.3 §2.7.9).
#[derive(Debug)]
pub(super) struct Ids {
    circle: Box<[u16]>,
    mask: u16,
    taken: u16,
    back: u16,
}

impl Ids {
    /// All of `0..size` free; a power of two, at most 32,768.
    pub(super) fn new(size: u16) -> Self {
        assert!(size.is_power_of_two(), "ring sizes are chosen by us");
        Self { circle: (0..size).collect(), mask: size - 1, taken: 0, back: size }
    }

    /// How many are free.
    #[inline(always)]
    pub(super) fn free(&self) -> u16 {
        self.back.wrapping_sub(self.taken)
    }

    /// The free one that is taken `n` takes from now.
    #[inline(always)]
    pub(super) fn next(&self, n: u16) -> u16 {
        self.circle[usize::from(self.taken.wrapping_add(n) & self.mask)]
    }

    /// Takes the next `n`.
    ///
    /// # Panics
    /// If they are not free: the caller looked.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u16) {
        assert!(n <= self.free(), "{n} of {} free ones", self.free());
        self.taken = self.taken.wrapping_add(n);
    }

    /// Takes one back, which was taken.
    #[inline(always)]
    pub(super) fn give_back(&mut self, id: u16) {
        self.circle[usize::from(self.back & self.mask)] = id;
        self.back = self.back.wrapping_add(1);
    }

    /// The one that was taken first of all that are not back, if all came back in order so far.
    #[inline(always)]
    pub(super) fn oldest(&self) -> u16 {
        self.circle[usize::from(self.back & self.mask)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_they_go_round() {
        let mut ids = Ids::new(4);
        for expected in (0..4).cycle().take(100_000) {
            assert_eq!((ids.next(0), ids.next(1), ids.free()), (expected, (expected + 1) % 4, 4));
            ids.take(1);
            assert_eq!(ids.oldest(), expected);
            ids.give_back(expected);
        }
    }

    #[test]
    fn out_of_order_none_is_lost() {
        let mut ids = Ids::new(4);
        ids.take(4);
        assert_eq!(ids.free(), 0);
        [2, 0, 3, 1].into_iter().for_each(|id| ids.give_back(id));
        assert_eq!((0..4).map(|n| ids.next(n)).collect::<Vec<_>>(), [2, 0, 3, 1]);
    }
}

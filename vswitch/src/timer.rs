//! A timer wheel: set, cancel and expire in constant time, all memory fixed when it is made.
//!
//! Eleven levels of 64 slots cover all of `u64` ticks. A timer lies on the level of the highest bit in which its deadline
//! differs from the present, so each level holds only what is ahead, and the lowest level that is not empty has the next.

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const LEVELS: usize = 64usize.div_ceil(LEVEL_BITS as usize);
/// The list of those whose time has come.
const DUE: usize = LEVELS * SLOTS;
/// The list of free nodes.
const FREE: usize = DUE + 1;
/// No node.
const NONE: u32 = u32::MAX;

/// A timer that was set. It stays that timer's name when the place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    node: u32,
    generation: u32,
}

/// The wheel holds as many timers as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the timer wheel is full")]
pub struct WheelFull;

#[derive(Debug)]
struct Node<T> {
    deadline: u64,
    generation: u32,
    list: usize,
    prev: u32,
    next: u32,
    item: Option<T>,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// Timers with an item each. A tick is whatever the caller counts in.
#[derive(Debug)]
pub struct TimerWheel<T> {
    now: u64,
    nodes: Box<[Node<T>]>,
    lists: Box<[List]>,
    /// A bit for each slot of a level that holds something.
    occupied: [u64; LEVELS],
}

impl<T> TimerWheel<T> {
    /// For up to `capacity` timers (at most 2³² - 1), at time 0.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        let node = |_| Node { deadline: 0, generation: 0, list: FREE, prev: NONE, next: NONE, item: None };
        let mut wheel = Self {
            now: 0,
            nodes: (0..capacity).map(node).collect(),
            lists: vec![List { first: NONE, last: NONE }; FREE + 1].into(),
            occupied: [0; LEVELS],
        };
        (0..capacity).for_each(|node| wheel.link(node, FREE));
        wheel
    }

    /// The tick up to which timers have been expired.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sets a timer for tick `deadline`; what is not ahead expires at once.
    ///
    /// # Errors
    /// [`WheelFull`].
    pub fn set(&mut self, deadline: u64, item: T) -> Result<TimerId, WheelFull> {
        let node = self.lists[FREE].first;
        if node == NONE {
            return Err(WheelFull);
        }
        self.unlink(node);
        let at = &mut self.nodes[node as usize];
        at.deadline = deadline;
        at.item = Some(item);
        let id = TimerId { node, generation: at.generation };
        self.sort_in(node);
        Ok(id)
    }

    /// Takes a timer out before its time; its item, if it has not expired.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let node = self.nodes.get(id.node as usize)?;
        if node.generation != id.generation || node.item.is_none() {
            return None;
        }
        self.release(id.node)
    }

    /// The next timer whose time has come by tick `now`, earliest first. Call it until it gives none.
    pub fn pop_expired(&mut self, now: u64) -> Option<T> {
        loop {
            let due = self.lists[DUE].first;
            if due != NONE {
                return self.release(due);
            }
            match self.next_slot() {
                Some((list, start)) if start <= now => self.open(list, start),
                _ => {
                    self.now = self.now.max(now);
                    return None;
                }
            }
        }
    }

    /// A tick before which no timer expires, the next one's or an earlier one. `None` if there are no timers.
    #[must_use]
    pub fn next_tick(&self) -> Option<u64> {
        if self.lists[DUE].first != NONE {
            return Some(self.now);
        }
        self.next_slot().map(|(_, start)| start)
    }

    /// The slot that is next to come, and the tick at which it does.
    fn next_slot(&self) -> Option<(usize, u64)> {
        let level = (0..LEVELS).find(|level| self.occupied[*level] != 0)?;
        let slot = u64::from(self.occupied[level].trailing_zeros());
        let shift = level as u32 * LEVEL_BITS;
        let above = self.now.checked_shr(shift + LEVEL_BITS).unwrap_or(0);
        let start = above.checked_shl(shift + LEVEL_BITS).unwrap_or(0) | slot << shift;
        Some((level * SLOTS + slot as usize, start))
    }

    /// Its start has come: what lies in it goes to lower levels, or is due.
    fn open(&mut self, list: usize, start: u64) {
        self.now = start;
        while self.lists[list].first != NONE {
            let node = self.lists[list].first;
            self.unlink(node);
            self.sort_in(node);
        }
    }

    fn sort_in(&mut self, node: u32) {
        let deadline = self.nodes[node as usize].deadline;
        if deadline <= self.now {
            return self.link(node, DUE);
        }
        let level = (deadline ^ self.now).ilog2() / LEVEL_BITS;
        let slot = (deadline >> (level * LEVEL_BITS)) as usize % SLOTS;
        self.link(node, level as usize * SLOTS + slot);
    }

    fn release(&mut self, node: u32) -> Option<T> {
        self.unlink(node);
        let at = &mut self.nodes[node as usize];
        at.generation = at.generation.wrapping_add(1);
        let item = at.item.take();
        self.link(node, FREE);
        item
    }

    fn link(&mut self, node: u32, list: usize) {
        let last = std::mem::replace(&mut self.lists[list].last, node);
        match self.nodes.get_mut(last as usize) {
            Some(before) => before.next = node,
            None => self.lists[list].first = node,
        }
        let at = &mut self.nodes[node as usize];
        (at.list, at.prev, at.next) = (list, last, NONE);
        if let Some(level) = self.occupied.get_mut(list / SLOTS) {
            *level |= 1 << (list % SLOTS);
        }
    }

    fn unlink(&mut self, node: u32) {
        let Node { list, prev, next, .. } = self.nodes[node as usize];
        match self.nodes.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.lists[list].first = next,
        }
        match self.nodes.get_mut(next as usize) {
            Some(after) => after.prev = prev,
            None => self.lists[list].last = prev,
        }
        if self.lists[list].first == NONE
            && let Some(level) = self.occupied.get_mut(list / SLOTS)
        {
            *level &= !(1 << (list % SLOTS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Op {
        Set(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let ahead = prop_oneof![0..100u64, 0..10_000u64, 0..1u64 << 40, Just(u64::MAX)];
        prop_oneof![
            3 => ahead.clone().prop_map(Op::Set),
            1 => any::<usize>().prop_map(Op::Cancel),
            2 => ahead.prop_map(Op::Advance),
        ]
    }

    proptest! {
        /// The same as a sorted map of (deadline, order of setting).
        #[test]
        fn behaves_as_a_sorted_map(ops in proptest::collection::vec(op(), 1..200)) {
            let mut wheel = TimerWheel::with_capacity(64);
            let mut model = BTreeMap::new();
            let mut ids = Vec::new();
            let mut now = 0u64;
            for (order, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Set(ahead) => {
                        let deadline = now.saturating_add(ahead);
                        match wheel.set(deadline, order) {
                            Ok(id) => {
                                ids.push((id, deadline, order));
                                model.insert((deadline, order), ());
                            }
                            Err(WheelFull) => prop_assert_eq!(model.len(), 64),
                        }
                    }
                    Op::Cancel(which) if !ids.is_empty() => {
                        let (id, deadline, order) = ids[which % ids.len()];
                        let there = model.remove(&(deadline, order)).map(|()| order);
                        prop_assert_eq!(wheel.cancel(id), there);
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(by) => {
                        now = now.saturating_add(by);
                        let next = wheel.next_tick();
                        prop_assert_eq!(next.is_some(), !model.is_empty());
                        let first = model.keys().next().map(|(deadline, _)| *deadline);
                        prop_assert!(next <= first, "{next:?} is behind {first:?}");
                        let mut fired = Vec::new();
                        while let Some(order) = wheel.pop_expired(now) {
                            fired.push(order);
                        }
                        let later = model.split_off(&(now.saturating_add(1), 0));
                        let mut due: Vec<_> = std::mem::replace(&mut model, later).into_keys().collect();
                        if now == u64::MAX {
                            due.extend(std::mem::take(&mut model).into_keys());
                        }
                        let deadline = |o: &usize| ids.iter().find(|(_, _, order)| order == o).unwrap().1;
                        prop_assert!(fired.is_sorted_by_key(deadline), "earliest first");
                        fired.sort_unstable_by_key(|o| (deadline(o), *o));
                        prop_assert_eq!(fired, due.into_iter().map(|(_, o)| o).collect::<Vec<_>>());
                        prop_assert_eq!(wheel.now(), now);
                    }
                }
            }
        }
    }

    #[test]
    fn an_old_name_cancels_nothing() {
        let mut wheel = TimerWheel::with_capacity(1);
        let old = wheel.set(5, 'a').unwrap();
        assert_eq!(wheel.set(6, 'b'), Err(WheelFull));
        assert_eq!(wheel.pop_expired(5), Some('a'));
        let new = wheel.set(9, 'c').unwrap();
        assert_eq!((wheel.cancel(old), wheel.cancel(new)), (None, Some('c')));
        assert_eq!(wheel.pop_expired(u64::MAX), None);
    }
}

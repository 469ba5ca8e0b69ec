//! Where entries lie: words of atomics in buckets of one cache line. Layout and access alone.
//!
//! A reader loads key, value, key again; a writer (one at a time, see `Writer`) takes the key away before it changes a
//! slot's owner. So a reader never sees one address with another's value, unless the slot is given away *and back* between
//! its two looks at the key, which a writer cannot make happen on purpose (keyed hash) and which would misdirect one packet.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::PortId;

/// Entries in a bucket.
pub(super) const WAYS: usize = 4;

const SEEN_SHIFT: u32 = 32;
const SEEN_BITS: u64 = (1 << 31) - 1;
const STATIC: u64 = 1 << 63;

/// What is known of an address: bits 0-31 the port's id, 32-62 the second it was last seen in, 63 static.
/// As a word never 0, for no port's id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value(pub(super) u64);

impl Value {
    pub(super) fn dynamic(port: PortId, now_s: u32) -> Self {
        Self(u64::from(port.to_word()) | (u64::from(now_s) & SEEN_BITS) << SEEN_SHIFT)
    }

    pub(super) fn fixed(port: PortId) -> Self {
        Self(u64::from(port.to_word()) | STATIC)
    }

    #[inline(always)]
    pub(super) fn port(self) -> PortId {
        PortId::from_word(self.0 as u32)
    }

    #[inline(always)]
    pub(super) fn seen_s(self) -> u32 {
        (self.0 >> SEEN_SHIFT & SEEN_BITS) as u32
    }

    #[inline(always)]
    pub(super) fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// Seconds since it was seen. Lcores read the clock at slightly different moments: never negative.
    pub(super) fn age_s(self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.seen_s())
    }
}

/// Four entries. A key of 0 is an empty slot.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Bucket {
    keys: [AtomicU64; WAYS],
    values: [AtomicU64; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    /// What is known of `key`, if it lies in slot `way`.
    #[inline(always)]
    pub(super) fn get_at(&self, way: usize, key: u64) -> Option<Value> {
        // ORDERING: F1 Acquire, pairs with F2: whoever sees the key sees the value that came with it.
        if self.keys[way % WAYS].load(Ordering::Acquire) != key {
            return None;
        }
        // ORDERING: F3 Acquire, pairs with F4: a value of the slot's next owner shows that the key is gone.
        let value = self.values[way % WAYS].load(Ordering::Acquire);
        let still = self.keys[way % WAYS].load(Ordering::Relaxed) == key;
        (still & (value != 0)).then_some(Value(value))
    }

    /// The slot that holds `key`, or some slot. Without branches: which slot it is, nobody can predict.
    #[inline(always)]
    fn likely(&self, key: u64) -> usize {
        let is = |way: usize| self.keys[way].load(Ordering::Relaxed) == key;
        (usize::from(is(1)) + usize::from(is(2)) * 2 + usize::from(is(3)) * 3) % WAYS
    }

    /// What is known of `key`, and in which slot.
    #[inline(always)]
    pub(super) fn get(&self, key: u64) -> Option<(usize, Value)> {
        let way = self.likely(key);
        self.get_at(way, key).map(|value| (way, value))
    }

    /// Whether slot `way` says just this of `key`. Of an entry that changes meanwhile it may be what was or what will be.
    #[inline(always)]
    pub(super) fn is_at(&self, way: usize, key: u64, value: Value) -> bool {
        let key_there = self.keys[way % WAYS].load(Ordering::Relaxed);
        let value_there = self.values[way % WAYS].load(Ordering::Relaxed);
        (key_there == key) & (value_there == value.0)
    }

    /// [`is_at`](Self::is_at) in any slot.
    #[inline(always)]
    pub(super) fn is(&self, key: u64, value: Value) -> bool {
        self.is_at(self.likely(key), key, value)
    }

    /// Key and value of a slot as they are; exact for the writer, a hint for others.
    pub(super) fn peek(&self, way: usize) -> Option<(u64, Value)> {
        let key = self.keys[way].load(Ordering::Relaxed);
        let value = self.values[way].load(Ordering::Relaxed);
        (key != 0 && value != 0).then_some((key, Value(value)))
    }

    /// An empty slot, `first` if that is one.
    pub(super) fn vacancy(&self, first: usize) -> Option<usize> {
        let mut ways = (0..WAYS).map(|n| (first + n) % WAYS);
        ways.find(|way| self.keys[*way].load(Ordering::Relaxed) == 0)
    }

    /// Changes what is known of a key, unless somebody else did since it was `old`. Any thread may.
    #[inline]
    pub(super) fn replace(&self, way: usize, old: Value, new: Value) -> bool {
        // ORDERING: F4 Release, pairs with F3.
        self.values[way].compare_exchange(old.0, new.0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Gives the slot to `key`. The writer only; the slot is empty.
    pub(super) fn fill(&self, way: usize, key: u64, value: Value) {
        // ORDERING: F4 Release, pairs with F3: the key that stood here before was taken away before this.
        self.values[way].store(value.0, Ordering::Release);
        // ORDERING: F2 Release, pairs with F1.
        self.keys[way].store(key, Ordering::Release);
    }

    /// Sets the value of a key that stays. The writer only.
    pub(super) fn set(&self, way: usize, value: Value) {
        // ORDERING: F4 Release, pairs with F3.
        self.values[way].store(value.0, Ordering::Release);
    }

    /// Empties the slot. The writer only.
    pub(super) fn clear(&self, way: usize) {
        self.keys[way].store(0, Ordering::Relaxed);
        // ORDERING: F4 Release, pairs with F3: who sees the value gone sees the key gone.
        self.values[way].store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_its_parts() {
        let port = PortId::new(1023, u16::MAX);
        let value = Value::dynamic(port, 0x7fff_fffe);
        assert_eq!((value.port(), value.seen_s(), value.is_static()), (port, 0x7fff_fffe, false));
        assert_eq!((value.age_s(u32::MAX >> 1), value.age_s(5)), (1, 0));
        assert!(Value::fixed(port).is_static() && Value::fixed(port).port() == port);
    }

    #[test]
    fn slots_fill_and_empty() {
        let bucket = Bucket::default();
        let value = Value::dynamic(PortId::for_test(3), 9);
        for key in 1..=4 {
            bucket.fill(bucket.vacancy(2).unwrap(), key, value);
        }
        assert_eq!(bucket.vacancy(0), None);
        assert_eq!(bucket.get(1), Some((2, value)));
        bucket.clear(2);
        assert_eq!((bucket.get(1), bucket.get(0), bucket.vacancy(3)), (None, None, Some(2)));
        assert!(!bucket.replace(2, value, value), "a value that is gone is not refreshed");
    }
}

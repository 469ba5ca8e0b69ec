//! The table as a burst's lookups read it.

use std::sync::atomic::Ordering;

use ring::prefetch;

use super::entry::{Bucket, Value};
use super::{Fdb, Learn, first_way};
use crate::PortId;
use crate::hash::KeyedHash;

impl Fdb {
    /// The table, for a burst's lookups.
    #[inline(always)]
    pub(crate) fn reader(&self) -> Reader<'_> {
        let sparse = self.total.load(Ordering::Relaxed) < self.capacity / 4;
        Reader { fdb: self, buckets: &self.buckets, hash: self.hash.clone(), sparse }
    }
}

/// What lookups need of the table, at hand for the length of a burst.
#[derive(Clone)]
pub(crate) struct Reader<'f> {
    fdb: &'f Fdb,
    buckets: &'f [Bucket],
    hash: KeyedHash,
    /// Few entries: nearly each lies where it is looked for first, and the processor learns to count on that. Once there
    /// are many, a compare with all four slots costs less than guessing wrong.
    sparse: bool,
}

impl Reader<'_> {
    #[inline(always)]
    fn primary(&self, hash: u64) -> &Bucket {
        &self.buckets[hash as usize & (self.buckets.len() - 1)]
    }

    /// Whether there are so many entries that what a lookup reads is unlikely to be in the nearest cache.
    #[inline(always)]
    pub(crate) fn is_dense(&self) -> bool {
        !self.sparse
    }

    /// Prefetches what a lookup of `key` will read.
    #[inline(always)]
    pub(crate) fn fetch(&self, key: u64) {
        prefetch::for_reading(std::ptr::from_ref(self.primary(self.hash.hash(key))).cast());
    }

    /// The port behind which `key` is.
    #[inline(always)]
    pub(crate) fn port_of(&self, key: u64) -> Option<PortId> {
        let hash = self.hash.hash(key);
        let bucket = self.primary(hash);
        if self.sparse
            && let Some(value) = bucket.get_at(first_way(hash), key)
        {
            return Some(value.port());
        }
        match bucket.get(key) {
            Some((_, value)) => Some(value.port()),
            None => self.port_in_secondary(key, hash),
        }
    }

    /// Whether `key` is known behind another port than `port`, and was seen there in second `since_s` or later (a static
    /// entry always counts).
    pub(crate) fn is_elsewhere(&self, key: u64, port: PortId, since_s: u32) -> bool {
        let hash = self.hash.hash(key);
        let primary = self.primary(hash).get(key).map(|(_, value)| value);
        let value = primary.or_else(|| self.fdb.find_secondary(key, hash).map(|(_, _, value)| value));
        value.is_some_and(|v| v.port() != port && (v.is_static() || v.seen_s() >= since_s))
    }

    /// One in twenty when the table is full to its capacity, hardly any before; and the unknown.
    #[inline(never)]
    fn port_in_secondary(&self, key: u64, hash: u64) -> Option<PortId> {
        self.fdb.find_secondary(key, hash).map(|(_, _, value)| value.port())
    }

    /// Notes that `key` was seen behind `port` in second `now_s`. Nothing to be done for most packets of a second.
    #[inline(always)]
    pub(crate) fn learn(&self, key: u64, port: PortId, now_s: u32) -> Learn {
        let hash = self.hash.hash(key);
        let (bucket, fresh) = (self.primary(hash), Value::dynamic(port, now_s));
        if (self.sparse && bucket.is_at(first_way(hash), key, fresh)) || bucket.is(key, fresh) {
            return Learn::Known;
        }
        self.learn_slow(key, hash, port, now_s)
    }

    #[inline(never)]
    fn learn_slow(&self, key: u64, hash: u64, port: PortId, now_s: u32) -> Learn {
        self.fdb.learn_key(key, hash, port, now_s)
    }
}

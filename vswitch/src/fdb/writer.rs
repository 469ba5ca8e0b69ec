//! The one thread that may change who owns which slot.

use std::sync::atomic::Ordering;

use super::entry::{Bucket, Value, WAYS};
use super::{Fdb, Learn, first_way};
use crate::PortId;

/// Buckets looked at for an entry to evict when the table is at its capacity.
const EVICT_PROBES: u64 = 64;

/// The right to change the table, from [`Fdb::try_write`] to drop.
pub(super) struct Writer<'f> {
    fdb: &'f Fdb,
}

/// A slot and what lies in it.
struct Slot<'f> {
    bucket: &'f Bucket,
    way: usize,
    key: u64,
    value: Value,
}

impl Fdb {
    /// The right to change the table, if nobody else has it.
    pub(super) fn try_write(&self) -> Option<Writer<'_>> {
        let free = !self.locked.load(Ordering::Relaxed);
        // ORDERING: F5 Acquire, pairs with F6: the last writer's counts and slots are seen.
        let taken =
            free && self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Not `then_some`: a writer made in vain would give back, in its drop, a lock that somebody else has.
        taken.then(|| Writer { fdb: self })
    }

    /// The right to change the table. The control path only: it waits.
    pub(super) fn write(&self) -> Writer<'_> {
        loop {
            if let Some(writer) = self.try_write() {
                return writer;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // ORDERING: F6 Release, pairs with F5.
        self.fdb.locked.store(false, Ordering::Release);
    }
}

impl<'f> Writer<'f> {
    pub(super) fn learn(&mut self, key: u64, hash: u64, port: PortId, now_s: u32) -> Learn {
        let value = Value::dynamic(port, now_s);
        if self.held(port) >= self.fdb.quota {
            return Learn::RefusedQuota;
        }
        if let Some((bucket, way, old)) = self.fdb.find(key, hash) {
            return self.change_port(&Slot { bucket, way, key, value: old }, value);
        }
        if !self.below_capacity(self.held(port)) || !self.place(key, hash, value) {
            return Learn::RefusedFull;
        }
        self.fdb.tally.learned.add(1);
        Learn::Learned
    }

    /// The entry was found by the time the lock was had.
    fn change_port(&mut self, slot: &Slot<'_>, value: Value) -> Learn {
        if slot.value.is_static() {
            return Learn::RefusedStatic;
        }
        if slot.value.port() == value.port() {
            return Learn::Known;
        }
        slot.bucket.set(slot.way, value);
        self.count(slot.value, false);
        self.count(value, true);
        self.next_epoch();
        self.fdb.tally.moved.add(1);
        Learn::Moved
    }

    /// Finds a slot for a key that is not in the table and fills it.
    pub(super) fn place(&mut self, key: u64, hash: u64, value: Value) -> bool {
        let Some((bucket, way)) =
            self.vacancy(hash).or_else(|| self.relocate(hash)).or_else(|| self.evict(hash, value))
        else {
            return false;
        };
        bucket.fill(way, key, value);
        self.count(value, true);
        self.fdb.total.store(self.fdb.total.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.next_epoch();
        true
    }

    fn vacancy(&self, hash: u64) -> Option<(&'f Bucket, usize)> {
        let [a, b] = self.candidates(hash);
        let first = first_way(hash);
        a.vacancy(first).map(|way| (a, way)).or_else(|| b.vacancy(first).map(|way| (b, way)))
    }

    /// Makes room by moving one of the eight entries that are in the way to the other of its own two buckets. A reader
    /// finds it in one of the two, or (once) in none.
    fn relocate(&self, hash: u64) -> Option<(&'f Bucket, usize)> {
        for slot in self.slots(hash) {
            let home = self.fdb.hash(slot.key);
            let other = self.candidates(home).into_iter().find(|b| !std::ptr::eq(*b, slot.bucket));
            if let Some((bucket, way)) = other.and_then(|b| b.vacancy(first_way(home)).map(|way| (b, way))) {
                bucket.fill(way, slot.key, slot.value);
                slot.bucket.clear(slot.way);
                self.fdb.tally.relocated.add(1);
                return Some((slot.bucket, slot.way));
            }
        }
        None
    }

    /// Takes a slot from the one of the eight whose port holds most, if that is more than the newcomer's port holds.
    fn evict(&mut self, hash: u64, newcomer: Value) -> Option<(&'f Bucket, usize)> {
        let heaviest = self
            .slots(hash)
            .filter(|slot| !slot.value.is_static())
            .max_by_key(|slot| (self.held(slot.value.port()), u32::MAX - slot.value.seen_s()))?;
        let fair = newcomer.is_static() || self.held(heaviest.value.port()) > self.held(newcomer.port());
        fair.then(|| {
            self.take_out(&heaviest);
            self.fdb.tally.evicted.add(1);
            (heaviest.bucket, heaviest.way)
        })
    }

    /// Whether one more fits, if need be by taking out one of the port that holds most, if that is more than `held`.
    pub(super) fn below_capacity(&mut self, held: u32) -> bool {
        self.fdb.total.load(Ordering::Relaxed) < self.fdb.capacity || self.evict_anywhere(held)
    }

    #[cold]
    fn evict_anywhere(&mut self, held: u32) -> bool {
        let seen = self.fdb.ports_seen.load(Ordering::Relaxed);
        let counts = self.fdb.held[..seen].iter().map(|n| n.load(Ordering::Relaxed));
        let Some((most, heaviest)) = counts.zip(0u16..).max() else { return false };
        most > held && self.evict_of(heaviest)
    }

    /// Looks for an entry of the port of this number in random buckets, each for itself: a run of neighbours would eat the
    /// table bare in places, and then find nothing there. It fails only when the port's share of the table is small.
    fn evict_of(&mut self, number: u16) -> bool {
        let fdb = self.fdb;
        let first = fdb.evict_probes.load(Ordering::Relaxed);
        let its = |slot: &Slot<'_>| slot.value.port().number() == number && !slot.value.is_static();
        for probe in first..first + EVICT_PROBES {
            if let Some(slot) = slots_of(fdb.primary(fdb.hash(probe))).find(its) {
                self.take_out(&slot);
                fdb.tally.evicted.add(1);
                fdb.evict_probes.store(probe + 1, Ordering::Relaxed);
                return true;
            }
        }
        fdb.evict_probes.store(first + EVICT_PROBES, Ordering::Relaxed);
        false
    }

    /// Empties the slots of bucket `at` that `gone` names; returns how many.
    pub(super) fn take_out_where(&mut self, at: usize, gone: impl Fn(Value) -> bool) -> u64 {
        let mut taken = 0;
        for slot in slots_of(&self.fdb.buckets[at]).filter(|slot| gone(slot.value)) {
            self.take_out(&slot);
            taken += 1;
        }
        taken
    }

    /// Empties the slot of `key`.
    pub(super) fn take_out_key(&mut self, key: u64, hash: u64) -> Option<Value> {
        let (bucket, way, value) = self.fdb.find(key, hash)?;
        self.take_out(&Slot { bucket, way, key, value });
        Some(value)
    }

    fn take_out(&mut self, slot: &Slot<'_>) {
        slot.bucket.clear(slot.way);
        self.count(slot.value, false);
        self.fdb.total.store(self.fdb.total.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        self.next_epoch();
    }

    fn candidates(&self, hash: u64) -> [&'f Bucket; 2] {
        [self.fdb.primary(hash), self.fdb.secondary(hash)]
    }

    fn slots(&self, hash: u64) -> impl Iterator<Item = Slot<'f>> + use<'f> {
        self.candidates(hash).into_iter().flat_map(slots_of)
    }

    fn held(&self, port: PortId) -> u32 {
        self.fdb.held[usize::from(port.number())].load(Ordering::Relaxed)
    }

    /// Static entries count against nobody's quota.
    fn count(&self, value: Value, more: bool) {
        if value.is_static() {
            return;
        }
        let number = usize::from(value.port().number());
        let held = &self.fdb.held[number];
        let now = held.load(Ordering::Relaxed);
        held.store(if more { now + 1 } else { now - 1 }, Ordering::Relaxed);
        self.fdb.ports_seen.fetch_max(number + 1, Ordering::Relaxed);
    }

    fn next_epoch(&self) {
        self.fdb.epoch.store(self.fdb.epoch.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

fn slots_of(bucket: &Bucket) -> impl Iterator<Item = Slot<'_>> {
    let slot = move |way| bucket.peek(way).map(|(key, value)| Slot { bucket, way, key, value });
    (0..WAYS).filter_map(slot)
}

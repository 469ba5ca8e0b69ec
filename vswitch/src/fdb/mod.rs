//! The forwarding database: which station was last seen behind which port.
//!
//! One table of fixed memory for all lcores. Each address has two candidate buckets of four entries, found by the halves of
//! one keyed hash, so a lookup reads at most two cache lines whatever anybody sends. Reading and refreshing take no lock;
//! what changes an entry's owner (learn, move, evict, expire) goes through one `Writer` behind a try-lock, and an lcore
//! that finds it busy goes on without learning: the station's next packet tries again.
//!
//! # Who may stay
//! A port holds at most its quota. When there is no room, the entry of the port that holds most goes, and never for the
//! sake of a port that holds as much: who floods the table with made-up addresses hurts itself alone (S1).

mod age;
mod control;
mod entry;
mod reader;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use pmd::Counter;

pub use age::Sweep;
pub use control::{FdbEntry, StaticError};
pub(crate) use reader::Reader;

use crate::hash::KeyedHash;
use crate::mac::MAC_BITS;
use crate::{MAX_PORTS, Mac, PortId, SwitchError};
use entry::{Bucket, Value, WAYS};

/// What an FDB is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbConfig {
    /// Most entries; 64 to 16,777,216. The table has at least twice as many slots of 16 bytes.
    pub capacity: usize,
    /// A station that was silent for so long is forgotten; 1 s to 30 days.
    pub age: Duration,
    /// Most learned entries that one port may hold; `None`: half the capacity.
    pub port_quota: Option<usize>,
    /// Secrets of the hash, for tests that must repeat; `None`: drawn from the system, as it should be.
    pub secret: Option<[u64; 4]>,
}

impl Default for FdbConfig {
    fn default() -> Self {
        Self { capacity: 65_536, age: Duration::from_secs(300), port_quota: None, secret: None }
    }
}

/// What became of an attempt to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// It was known, behind this port; its age is 0 again.
    Known,
    /// It is new.
    Learned,
    /// It was behind another port.
    Moved,
    /// The port holds its quota.
    RefusedQuota,
    /// There is no room, and no port that holds more than this one.
    RefusedFull,
    /// A static entry says that it is elsewhere.
    RefusedStatic,
    /// Another thread is changing the table: not now.
    Busy,
}

/// How often entries changed. Written under the table's lock only.
#[derive(Debug, Default)]
struct Tally {
    learned: Counter,
    moved: Counter,
    evicted: Counter,
    expired: Counter,
    flushed: Counter,
    /// Entries moved to their other bucket to make room.
    relocated: Counter,
}

/// The FDB's counters and level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdbStats {
    /// Entries there are, static ones included.
    pub entries: u64,
    /// Entries there can be.
    pub capacity: u64,
    /// New stations learned.
    pub learned: u64,
    /// Stations seen behind another port than before.
    pub moved: u64,
    /// Entries that had to make room.
    pub evicted: u64,
    /// Entries forgotten for their age.
    pub expired: u64,
    /// Entries taken out by flush, removal of a port, or by name.
    pub flushed: u64,
    /// Attempts refused because the port held its quota.
    pub refused_quota: u64,
    /// Attempts refused because there was no room.
    pub refused_full: u64,
    /// Attempts refused because a static entry says otherwise.
    pub refused_static: u64,
    /// Attempts skipped because the table was being changed.
    pub lock_missed: u64,
}

/// The forwarding database.
#[derive(Debug)]
pub struct Fdb {
    buckets: Box<[Bucket]>,
    hash: KeyedHash,
    capacity: u32,
    quota: u32,
    age_s: AtomicU32,
    /// Changes whenever an entry's owner does. Who remembers a lookup may believe it while this stays the same.
    epoch: CachePadded<AtomicU64>,
    locked: CachePadded<AtomicBool>,
    /// Entries, static ones included.
    total: AtomicU32,
    /// Learned entries by port number.
    held: Box<[AtomicU32]>,
    /// One above the highest port number that ever held an entry.
    ports_seen: AtomicUsize,
    /// Buckets looked at for an entry to evict, ever: its hash says which is the next.
    evict_probes: AtomicU64,
    tally: Tally,
}

/// The FDB's word for an address in a VLAN: bits 0-47 the address as it lies in the frame, 48-59 the VLAN.
#[inline(always)]
pub(crate) fn key_of(mac_word: u64, vlan: u16) -> u64 {
    (mac_word & MAC_BITS) | u64::from(vlan & 0xfff) << 48
}

/// The slot of a bucket where a key is put if it is free there, and so looked for first: one compare finds most.
#[inline(always)]
fn first_way(hash: u64) -> usize {
    (hash >> 62) as usize
}

fn in_range(
    what: &'static str,
    value: u64,
    lo: u64,
    hi: u64,
    range: &'static str,
) -> Result<u32, SwitchError> {
    let fits = u32::try_from(value).ok().filter(|_| (lo..=hi).contains(&value));
    fits.ok_or(SwitchError::Fdb { what, value, range })
}

impl Fdb {
    /// Makes an empty one: all the memory that it will ever use.
    ///
    /// # Errors
    /// A number out of its range.
    pub fn new(config: &FdbConfig) -> Result<Self, SwitchError> {
        let capacity = in_range("capacity", config.capacity as u64, 64, 1 << 24, "64 to 16777216")?;
        let age_s = in_range("age", config.age.as_secs(), 1, 30 * 86_400, "1 s to 30 days")?;
        let quota = config.port_quota.unwrap_or(config.capacity / 2);
        let quota = in_range("port_quota", quota as u64, 1, 1 << 24, "1 to 16777216")?;
        let buckets = (config.capacity * 2 / WAYS).next_power_of_two();
        Ok(Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            hash: config.secret.map_or_else(KeyedHash::random, KeyedHash::new),
            capacity,
            quota,
            age_s: AtomicU32::new(age_s),
            epoch: CachePadded::default(),
            locked: CachePadded::default(),
            total: AtomicU32::new(0),
            held: (0..MAX_PORTS).map(|_| AtomicU32::new(0)).collect(),
            ports_seen: AtomicUsize::new(0),
            evict_probes: AtomicU64::new(0),
            tally: Tally::default(),
        })
    }

    /// Where `mac` in `vlan` was seen.
    #[must_use]
    pub fn lookup(&self, mac: Mac, vlan: u16) -> Option<PortId> {
        let key = key_of(mac.to_word(), vlan);
        self.reader().port_of(key)
    }

    /// Notes that `mac` in `vlan` was seen behind `port` in second `now_s`. Never waits.
    /// Groups and zero are nobody's address: [`Mac::is_station`] is the caller's to ask.
    pub fn learn(&self, mac: Mac, vlan: u16, port: PortId, now_s: u32) -> Learn {
        let key = key_of(mac.to_word(), vlan);
        self.learn_key(key, self.hash(key), port, now_s)
    }

    /// Learned entries that `port` holds.
    #[must_use]
    pub fn held_by(&self, port: PortId) -> usize {
        self.held[usize::from(port.number())].load(Ordering::Relaxed) as usize
    }

    /// Counters and level. The refused and the missed ones are counted by the lcores: 0 here.
    #[must_use]
    pub fn stats(&self) -> FdbStats {
        FdbStats {
            entries: u64::from(self.total.load(Ordering::Relaxed)),
            capacity: u64::from(self.capacity),
            learned: self.tally.learned.get(),
            moved: self.tally.moved.get(),
            evicted: self.tally.evicted.get(),
            expired: self.tally.expired.get(),
            flushed: self.tally.flushed.get(),
            ..FdbStats::default()
        }
    }

    /// Changes while lookups may have changed. A reader that saw it before its lookup may keep the answer as long as it
    /// sees the same; who is told of a removed port through its mailbox sees the change that the removal made.
    #[inline(always)]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: u64) -> u64 {
        self.hash.hash(key)
    }

    #[inline(always)]
    fn primary(&self, hash: u64) -> &Bucket {
        &self.buckets[hash as usize & (self.buckets.len() - 1)]
    }

    #[inline(always)]
    fn secondary(&self, hash: u64) -> &Bucket {
        &self.buckets[(hash >> 32) as usize & (self.buckets.len() - 1)]
    }

    fn find(&self, key: u64, hash: u64) -> Option<(&Bucket, usize, Value)> {
        let bucket = self.primary(hash);
        if let Some((way, value)) = bucket.get(key) {
            return Some((bucket, way, value));
        }
        self.find_secondary(key, hash)
    }

    fn find_secondary(&self, key: u64, hash: u64) -> Option<(&Bucket, usize, Value)> {
        let bucket = self.secondary(hash);
        bucket.get(key).map(|(way, value)| (bucket, way, value))
    }

    /// [`learn`](Self::learn) for who has the hash.
    pub(crate) fn learn_key(&self, key: u64, hash: u64, port: PortId, now_s: u32) -> Learn {
        match self.find(key, hash) {
            Some((bucket, way, value)) if value.port() == port => {
                if value.seen_s() < now_s && !value.is_static() {
                    // When another thread was faster, the entry is fresh or gone: both are fine.
                    bucket.replace(way, value, Value::dynamic(port, now_s));
                }
                Learn::Known
            }
            found => self.learn_change(key, hash, port, now_s, found.map(|(_, _, value)| value)),
        }
    }

    /// New, or behind another port.
    #[cold]
    #[inline(never)]
    fn learn_change(&self, key: u64, hash: u64, port: PortId, now_s: u32, found: Option<Value>) -> Learn {
        if found.is_some_and(Value::is_static) {
            return Learn::RefusedStatic;
        }
        if self.held[usize::from(port.number())].load(Ordering::Relaxed) >= self.quota {
            return Learn::RefusedQuota;
        }
        self.try_write().map_or(Learn::Busy, |mut writer| writer.learn(key, hash, port, now_s))
    }
}

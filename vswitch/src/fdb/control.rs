//! What operators ask of the table: list, flush, static entries. Here it may wait for the lock and allocate.

use super::entry::WAYS;
use super::{Fdb, Value, key_of};
use crate::{Mac, PortId};

/// Buckets flushed under one hold of the lock: a few microseconds' worth.
const FLUSH_CHUNK: usize = 256;

/// One entry, as the list shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The station.
    pub mac: Mac,
    /// Its VLAN; 0 where the switch knows none.
    pub vlan: u16,
    /// Behind which port it is.
    pub port: PortId,
    /// Seconds since it was seen; 0 for static entries.
    pub age_s: u32,
    /// Whether it was set by hand: it stays until it is taken out by hand or its port goes.
    pub is_static: bool,
}

/// Why a static entry could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StaticError {
    /// Groups and zero are nobody's address.
    #[error("{0} is no station's address")]
    NotAStation(Mac),
    /// The slots that it could have are full of static entries.
    #[error("no room for another static entry: take one out or make the FDB larger")]
    Full,
}

impl Fdb {
    /// All entries, in no order. Entries that change meanwhile may be missing or old.
    #[must_use]
    pub fn list(&self, now_s: u32) -> Vec<FdbEntry> {
        let slots = self.buckets.iter().flat_map(|b| (0..WAYS).filter_map(|way| b.peek(way)));
        slots.map(|(key, value)| entry(key, value, now_s)).collect()
    }

    /// Binds `mac` in `vlan` to `port` until it is taken out.
    ///
    /// # Errors
    /// [`StaticError`].
    pub fn add_static(&self, mac: Mac, vlan: u16, port: PortId) -> Result<(), StaticError> {
        if !mac.is_station() {
            return Err(StaticError::NotAStation(mac));
        }
        let key = key_of(mac.to_word(), vlan);
        let mut writer = self.write();
        writer.take_out_key(key, self.hash(key));
        let done = writer.below_capacity(0) && writer.place(key, self.hash(key), Value::fixed(port));
        if done { Ok(()) } else { Err(StaticError::Full) }
    }

    /// Takes the entry of `mac` in `vlan` out, static or learned; whether there was one.
    pub fn remove(&self, mac: Mac, vlan: u16) -> bool {
        let key = key_of(mac.to_word(), vlan);
        let mut writer = self.write();
        let was = writer.take_out_key(key, self.hash(key)).is_some();
        self.tally.flushed.add(u64::from(was));
        was
    }

    /// Forgets all learned entries; returns how many.
    pub fn flush(&self) -> u64 {
        self.flush_where(|value| !value.is_static())
    }

    /// Forgets all entries of `port`, static ones too; returns how many.
    pub fn flush_port(&self, port: PortId) -> u64 {
        self.flush_where(|value| value.port().number() == port.number())
    }

    /// Once more when an entry was relocated meanwhile: it may have gone from a bucket ahead to one behind.
    fn flush_where(&self, gone: impl Fn(Value) -> bool) -> u64 {
        let mut taken = 0;
        loop {
            let before = self.tally.relocated.get();
            taken += self.flush_pass(&gone);
            let writer = self.write();
            let moved = self.tally.relocated.get() != before;
            drop(writer);
            if !moved {
                return taken;
            }
        }
    }

    /// The lock is had anew for each chunk, so that lcores go on learning.
    fn flush_pass(&self, gone: &impl Fn(Value) -> bool) -> u64 {
        let mut taken = 0;
        for start in (0..self.buckets.len()).step_by(FLUSH_CHUNK) {
            let mut writer = self.write();
            let end = (start + FLUSH_CHUNK).min(self.buckets.len());
            let n = (start..end).map(|at| writer.take_out_where(at, gone)).sum();
            self.tally.flushed.add(n);
            taken += n;
        }
        taken
    }
}

fn entry(key: u64, value: Value, now_s: u32) -> FdbEntry {
    FdbEntry {
        mac: Mac::from_word(key),
        vlan: (key >> 48) as u16,
        port: value.port(),
        age_s: if value.is_static() { 0 } else { value.age_s(now_s) },
        is_static: value.is_static(),
    }
}

//! Addresses: result of the method `fdb.list`.

use serde::{Deserialize, Serialize};

use super::Table;

/// An address and where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FdbEntry {
    /// `52:54:00:00:00:01`
    pub(crate) mac: String,
    /// 0 where frames carry no tag.
    pub(crate) vlan: u16,
    /// The port's name.
    pub(crate) port: String,
    /// Whether it was set and not learned.
    pub(crate) is_static: bool,
    /// Seconds since it was last heard of.
    pub(crate) age_s: u64,
}

/// Addresses for people.
pub(crate) fn fdb_table(entries: &[FdbEntry]) -> String {
    let mut table = Table::new(&["MAC", "VLAN", "PORT", "TYPE", "AGE-S"]);
    for e in entries {
        let kind = if e.is_static { "static" } else { "learned" };
        table.row([e.mac.clone(), e.vlan.to_string(), e.port.clone(), kind.to_owned(), e.age_s.to_string()]);
    }
    table.to_string()
}

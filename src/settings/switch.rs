//! What the switch is to do.

use serde::Deserialize;

/// `[switch]`: what is not said stays as the switch has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchSetting {
    /// Seconds until an address not heard of is forgotten.
    pub(crate) mac_ageing_s: Option<u32>,
    /// Addresses that the forwarding table can hold.
    pub(crate) mac_table: Option<u32>,
    /// Addresses that one port may have learned.
    pub(crate) mac_quota: Option<u32>,
    /// What lcores do when nothing comes.
    #[serde(default)]
    pub(crate) poll: Poll,
}

/// What an lcore does when nothing comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Poll {
    /// Polls on for a while, then sleeps until a guest or a NIC has something.
    #[default]
    Adaptive,
    /// Polls on: lowest latency, a whole CPU.
    Always,
}

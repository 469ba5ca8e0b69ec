//! What a running switch says of itself: the shapes that go over the control socket, and the tables made of them.

mod fdb;
mod port;
mod rates;
mod stages;
mod stats;
mod table;

pub(crate) use fdb::{FdbEntry, fdb_table};
pub(crate) use port::{PortShow, port_show, port_table};
pub(crate) use rates::rates_table;
pub(crate) use stages::{LcoreStages, MOST_SECONDS, StageStats, Stages, stages_table};
pub(crate) use stats::{
    FdbStats, LcoreStats, PoolStats, PortStats, QueueStats, RemovedStats, Stats, stats_table,
};
pub(crate) use table::Table;

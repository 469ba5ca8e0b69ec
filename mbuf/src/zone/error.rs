//! Why a zone could not be had, and what mends it.

use std::io;

use super::pages::HugePool;
use super::{PageSize, ZoneConfig};

/// Why a zone could not be had. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZoneError {
    /// There are too few free hugepages of the wanted size (on the wanted node).
    #[error(
        "zone {name} needs {pages} hugepages of {size}{}, {available} are free: run `{command}`{}",
        on_node(*.node), advice(*.size)
    )]
    Hugepages {
        /// The zone.
        name: String,
        /// Pages it needs.
        pages: usize,
        /// Their size.
        size: PageSize,
        /// The node they were wanted on.
        node: Option<u32>,
        /// Pages of that size that are free and promised to nobody.
        available: usize,
        /// What to run, as root, to have enough.
        command: String,
    },
    /// Neither the processor nor the kernel knows pages of that size.
    #[error("zone {name} wants pages of {size}{}, which this machine does not have: choose another page size", on_node(*.node))]
    NoSuchPages {
        /// The zone.
        name: String,
        /// The page size that was wanted.
        size: PageSize,
        /// The node they were wanted on.
        node: Option<u32>,
    },
    /// More than the machine has left.
    #[error(
        "zone {name} needs {bytes} bytes, the machine has {available} left: ask for less, or stop something"
    )]
    Memory {
        /// The zone.
        name: String,
        /// Bytes it needs.
        bytes: usize,
        /// Bytes that can be had.
        available: usize,
    },
    /// The size is 0 or above what can be addressed.
    #[error("zone {name} of {bytes} bytes: the size must be from 1 to 2^46")]
    Size {
        /// The zone.
        name: String,
        /// The size that was wanted.
        bytes: usize,
    },
    /// The memory cannot be bound to the node.
    #[error(
        "zone {name} cannot be bound to NUMA node {node}: {source}; `cat /sys/devices/system/node/has_memory` lists the nodes that have memory"
    )]
    Node {
        /// The zone.
        name: String,
        /// The node that was wanted.
        node: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a step although enough pages seem to be free.
    #[error(
        "zone {name}, {bytes} bytes in pages of {size}: {step}: {source}; if this is a container, look at its memory and hugetlb limits"
    )]
    System {
        /// The zone.
        name: String,
        /// Bytes it needs.
        bytes: usize,
        /// The page size that was tried.
        size: PageSize,
        /// The step that failed.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn on_node(node: Option<u32>) -> String {
    node.map_or_else(String::new, |n| format!(" on NUMA node {n}"))
}

fn advice(size: PageSize) -> &'static str {
    match size {
        PageSize::Huge1G => {
            " (or boot with `hugepagesz=1G hugepages=N`: a running kernel may not find that much in one piece)"
        }
        _ => "",
    }
}

impl ZoneError {
    /// What a failed `step` of making a zone means: too few hugepages, if that is so, or what the kernel said.
    pub(super) fn at(
        step: &'static str,
        config: &ZoneConfig,
        size: PageSize,
        bytes: usize,
        source: io::Error,
    ) -> Self {
        let (name, node) = (config.name.clone(), config.numa_node);
        if size.is_huge() {
            let pages = bytes / size.bytes();
            let Some(pool) = HugePool::of(size, node) else { return Self::NoSuchPages { name, size, node } };
            if pool.available < pages {
                let (available, command) = (pool.available, pool.command(pages));
                return Self::Hugepages { name, pages, size, node, available, command };
            }
        }
        Self::System { name, bytes, size, step, source }
    }
}

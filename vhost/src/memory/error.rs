//! Why a memory table was refused.

use std::io;

use mbuf::foreign::ForeignError;

use super::budget::Kind;

/// Why a region, or a table of them, was refused. The snapshot before it stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("region at {gpa:#x} is empty")]
    Empty { gpa: u64 },
    #[error("region at {gpa:#x}: {what} {value:#x} is no multiple of 4096")]
    Unaligned { gpa: u64, what: &'static str, value: u64 },
    #[error("region at {gpa:#x}: {what} {start:#x} + {size:#x} passes the end of the address space")]
    Wraps { gpa: u64, what: &'static str, start: u64, size: u64 },
    #[error("regions at guest addresses {0:#x} and {1:#x} overlap")]
    OverlapGpa(u64, u64),
    #[error("regions at front end addresses {0:#x} and {1:#x} overlap")]
    OverlapVa(u64, u64),
    #[error("more than {0} regions")]
    TooMany(usize),
    #[error(
        "the table would map {asked} bytes, the port's limit is {limit}: add memory=SIZE to its specification, as in memory=2T"
    )]
    Limit { asked: u64, limit: u64 },
    #[error("{}", budget_text(*.kind, *.asked, *.used))]
    Budget { kind: Kind, asked: u64, used: u64 },
    #[error("no region at guest address {gpa:#x}, front end address {va:#x}, of {size:#x} bytes")]
    NoSuchRegion { gpa: u64, va: u64, size: u64 },
    #[error("region at {gpa:#x}: its descriptor is not open for reading and writing")]
    ReadOnly { gpa: u64 },
    #[error("region at {gpa:#x}: its file is sealed against writing")]
    WriteSealed { gpa: u64 },
    #[error("region at {gpa:#x}: its descriptor is no memfd, nor a file on tmpfs or hugetlbfs")]
    NotInMemory { gpa: u64 },
    #[error("region at {gpa:#x}: {source}")]
    Map { gpa: u64, source: ForeignError },
    #[error("region at {gpa:#x}: {what}: {source}")]
    Os { gpa: u64, what: &'static str, source: io::Error },
}

impl MemoryError {
    /// The name it is counted under.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "memory_region_empty",
            Self::Unaligned { .. } => "memory_region_unaligned",
            Self::Wraps { .. } => "memory_region_wraps",
            Self::OverlapGpa(..) | Self::OverlapVa(..) => "memory_regions_overlap",
            Self::TooMany(_) => "memory_regions_too_many",
            Self::Limit { .. } => "memory_limit",
            Self::Budget { .. } => "memory_budget",
            Self::NoSuchRegion { .. } => "memory_region_unknown",
            Self::NotInMemory { .. }
            | Self::Map {
                source: ForeignError::NotRegular { .. } | ForeignError::FileSystem { .. }, ..
            } => "memory_file_type",
            Self::Map { source: ForeignError::TooShort { .. }, .. } => "memory_file_too_short",
            Self::ReadOnly { .. } | Self::WriteSealed { .. } => "memory_file_read_only",
            Self::Map { .. } | Self::Os { .. } => "memory_not_mapped",
        }
    }
}

fn budget_text(kind: Kind, asked: u64, used: u64) -> String {
    let (what, fix) = match kind {
        Kind::Bytes => {
            ("bytes of address space", "add memory=SIZE to its specification, which sets SIZE aside for it")
        }
        Kind::Mappings => ("mappings", "raise vm.max_map_count, as in `sysctl -w vm.max_map_count=1048576`"),
    };
    format!(
        "the port has {used} {what}, and there are no {asked} more beyond its share: other ports use the rest; {fix}"
    )
}

//! What can be wrong with a message, and under which name it is counted.

use crate::memory::MemoryError;
use crate::wire::message::{MAX_FDS, MAX_PAYLOAD};

/// The message itself is broken, so nothing behind it can be trusted either: the session ends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("protocol version {0}; there is only version 1")]
    Version(u32),
    #[error("a reply where a request was due")]
    Reply,
    #[error("{got} bytes of payload; at most {MAX_PAYLOAD} in any message")]
    PayloadTooLong { got: u32 },
    #[error("{got} bytes of payload, not {want}")]
    PayloadSize { got: usize, want: usize },
    #[error("{got} file descriptors, not {want}")]
    Descriptors { got: usize, want: usize },
    #[error("more than {MAX_FDS} file descriptors, or none was free here")]
    DescriptorsTruncated,
    #[error("incomplete after {0:?}")]
    Slow(std::time::Duration),
}

impl Malformed {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Version(_) => "malformed_version",
            Self::Reply => "malformed_reply_flag",
            Self::PayloadTooLong { .. } | Self::PayloadSize { .. } => "malformed_payload_size",
            Self::Descriptors { .. } | Self::DescriptorsTruncated => "malformed_descriptors",
            Self::Slow(_) => "slow_message",
        }
    }
}

/// The message is well-formed, but asks for what is not to be had. A front end that wants an answer gets a no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no such request")]
    UnknownRequest,
    #[error("this back end does not offer it")]
    NotOffered,
    #[error("{0} was not negotiated")]
    NotNegotiated(&'static str),
    #[error("bits {0:#x} were not offered")]
    FeatureBits(u64),
    #[error("ring {index}; there are {rings}")]
    RingIndex { index: u64, rings: usize },
    #[error("a ring of {0} descriptors; 1 to 32768 is due, and a power of two unless the ring is packed")]
    RingSize(u32),
    #[error("base {0} in a split ring; up to 65535 is due")]
    RingBase(u32),
    #[error("base {base:#x} in a packed ring of {size}; both positions must be inside of the ring")]
    PackedBase { base: u32, size: u16 },
    #[error("{what} at {address:#x} is not aligned to {align}")]
    RingAlignment { what: &'static str, address: u64, align: u64 },
    #[error("{what} at {address:#x} with {len} bytes is not inside one region of memory")]
    RingOutside { what: &'static str, address: u64, len: u64 },
    #[error("value {0:#x}")]
    Value(u64),
    #[error("the descriptor is no eventfd")]
    NotEventfd,
    #[error("MTU {mtu}; {min} to {max} is due")]
    Mtu { mtu: u64, min: u16, max: u16 },
    #[error("{0:02x?} is no station's MAC address")]
    Mac([u8; 6]),
    #[error("the configuration is read-only")]
    ReadOnlyConfig,
    #[error("no memory for the bookkeeping of a ring of {0} descriptors")]
    NoMemory(u16),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("{what}: {source}")]
    Os { what: &'static str, source: std::io::Error },
}

impl Refusal {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::UnknownRequest => "unknown_request",
            Self::NotOffered => "not_offered",
            Self::NotNegotiated(_) => "not_negotiated",
            Self::FeatureBits(_) => "feature_bits",
            Self::RingIndex { .. } => "ring_index",
            Self::RingSize(_) => "ring_size",
            Self::RingBase(_) | Self::PackedBase { .. } => "ring_base",
            Self::RingAlignment { .. } => "ring_alignment",
            Self::RingOutside { .. } => "ring_outside_memory",
            Self::Value(_) => "value",
            Self::NotEventfd => "not_an_eventfd",
            Self::Mtu { .. } => "mtu",
            Self::Mac(_) => "mac",
            Self::ReadOnlyConfig => "config_read_only",
            Self::NoMemory(_) => "no_memory",
            Self::Memory(e) => e.name(),
            Self::Os { .. } => "system",
        }
    }
}

/// Either of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Trouble {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Malformed(e) => e.name(),
            Self::Refused(e) => e.name(),
        }
    }
}

impl From<MemoryError> for Trouble {
    fn from(e: MemoryError) -> Self {
        Self::Refused(e.into())
    }
}
